//! tcpdump on the same devices with the same filter, writing to nowhere.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStderr, Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::world::run;

/// Namespaces and devices of the path from the first instance to the second.
const PATH: [(&str, &str); 4] = [("a", "eth0"), ("", "tapa"), ("", "tapb"), ("b", "eth0")];
/// What the programs are told to keep of a packet, too.
const SNAPLEN: &str = "184";
/// The same packets.
const FILTER: &str = "tcp and host 10.77.0.1 and host 10.77.0.2";

/// Nanoseconds a process has run on a CPU.
pub(super) fn ran(child: &Child) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{}/schedstat", child.id()))?;
    Ok(text.split_whitespace().next().context("an empty schedstat")?.parse()?)
}

/// One at each device.
pub(super) struct Tcpdump(Vec<(Child, BufReader<ChildStderr>)>);

impl Tcpdump {
    /// Begins, and waits until all watch.
    pub(super) fn start() -> Result<Self> {
        let mut all = Self(Vec::new());
        for (namespace, device) in PATH {
            let inside: &[&str] = if namespace.is_empty() { &[] } else { &["ip", "netns", "exec", namespace] };
            let own = ["tcpdump", "-n", "-Z", "root", "-s", SNAPLEN, "-i", device, "-w", "/dev/null", FILTER];
            let words = [inside, &own].concat();
            let mut command = Command::new(words[0]);
            let mut child = command.args(&words[1..]).stderr(Stdio::piped()).spawn().context("start tcpdump")?;
            let mut said = BufReader::new(child.stderr.take().context("no standard error")?);
            let mut line = String::new();
            while !line.contains("listening on") {
                line.clear();
                anyhow::ensure!(said.read_line(&mut line)? > 0, "tcpdump on {device} has ended");
            }
            all.0.push((child, said));
        }
        Ok(all)
    }

    /// Ends; nanoseconds all have run since they began, and packets they have captured and dropped.
    pub(super) fn end(mut self) -> Result<(u64, u64, u64)> {
        let ran = self.0.iter().map(|(child, _)| ran(child)).sum::<Result<u64>>()?;
        let (mut captured, mut dropped) = (0, 0);
        for (child, said) in &mut self.0 {
            run(&["kill", "-INT", &child.id().to_string()])?;
            child.wait()?;
            for line in said.lines() {
                let line = line?;
                let number = || line.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
                if line.contains("captured") {
                    captured += number();
                } else if line.contains("dropped by kernel") {
                    dropped += number();
                }
            }
        }
        Ok((ran, captured, dropped))
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        for (child, _) in &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
