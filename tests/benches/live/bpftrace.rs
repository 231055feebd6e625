//! bpftrace with the same filter, a line for each packet at each device: what one writes who has no tracer that knows the path.
//!
//! It is left out where it is not installed, or has no tracepoints.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{tcpdump::ran, world::run};

/// Where the kernel lists its tracepoints, in this mount namespace.
const TRACING: &str = "/sys/kernel/tracing";
/// The network namespaces of this machine are all one to a tracepoint; no other one has these addresses.
const SCRIPT: &str = "
tracepoint:net:net_dev_start_xmit, tracepoint:net:netif_receive_skb
{
  $skb = (struct sk_buff *)args->skbaddr;
  $ip = (struct iphdr *)($skb->head + $skb->network_header);
  $ports = (struct tcphdr *)($skb->head + $skb->network_header + 20);
  if ($skb->protocol == 8 && $ip->protocol == 6 && (($ip->saddr == 0x01004d0a && $ip->daddr == 0x02004d0a)
      || ($ip->saddr == 0x02004d0a && $ip->daddr == 0x01004d0a))) {
    printf(\"%llu %s %d %d %d %u\\n\", nsecs, str(args->name), args->len, $ports->source, $ports->dest, $ports->seq);
  }
}
BEGIN { system(\"touch %s\", str($1)); }
";

/// How long it may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// It runs.
pub(super) struct Bpftrace {
    child: Child,
    output: tempfile::NamedTempFile,
}

/// Whether it can be compared with; puts the tracepoints where it looks for them.
pub(super) fn is_installed() -> bool {
    let mounted = || Path::new(TRACING).join("events").exists();
    let mount = || run(&["mount", "-t", "tracefs", "none", TRACING]).is_ok();
    Command::new("bpftrace").arg("--version").output().is_ok_and(|output| output.status.success())
        && (mounted() || mount())
}

impl Bpftrace {
    /// Begins, and waits until it watches.
    pub(super) fn start() -> Result<Self> {
        let output = tempfile::NamedTempFile::new().context("make a file for its output")?;
        // Its output is written when there is much of it; what its script runs says at once that it runs.
        let begun = output.path().with_extension("begun");
        let mut command = Command::new("bpftrace");
        command.arg("--unsafe").arg("-o").arg(output.path()).args(["-e", SCRIPT]).arg(&begun);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("start bpftrace")?;
        let mut all = Self { child, output };
        let started = Instant::now();
        while fs::remove_file(&begun).is_err() {
            ensure!(all.child.try_wait()?.is_none() && started.elapsed() < PATIENCE, "bpftrace does not begin");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(all)
    }

    /// Ends; nanoseconds it has run since it began, and lines it has written and events it has lost.
    pub(super) fn end(mut self) -> Result<(u64, u64, u64)> {
        let ran = ran(&self.child)?;
        self.interrupt()?;
        let (mut seen, mut lost) = (0, 0);
        for line in BufReader::new(File::open(self.output.path())?).lines() {
            let line = line?;
            let mut words = line.split(' ');
            match (words.next(), words.next()) {
                (Some("Lost"), Some(number)) => lost += number.parse::<u64>().context("how many it has lost")?,
                (Some(time), Some(_)) if time.parse::<u64>().is_ok() => seen += 1,
                _ => {}
            }
        }
        Ok((ran, seen, lost))
    }

    /// Has it end. A signal that meets it just before it waits for packets is noticed with the next one, and none come.
    fn interrupt(&mut self) -> Result<()> {
        for _ in 0..PATIENCE.as_secs() {
            run(&["kill", "-INT", &self.child.id().to_string()])?;
            let asked = Instant::now();
            while asked.elapsed() < Duration::from_secs(1) {
                if self.child.try_wait()?.is_some() {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        bail!("bpftrace does not end");
    }
}

impl Drop for Bpftrace {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
