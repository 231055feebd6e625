//! A Docker daemon of a lab host's own, and its containers.

use std::{
    fs,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::lab::{command, host, image, supervise};

const LOG: &str = "/var/log/dockerd.log";
const READY_WITHIN: Duration = Duration::from_mins(1);
const IMAGE: &str = "netdiag-lab/instance:latest";

/// A running daemon with the image of instances loaded.
#[derive(Clone, Debug)]
pub(crate) struct Docker {
    /// Its version.
    pub(crate) version: String,
    image: &'static str,
}

/// A container that runs.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    /// Its 64-digit id.
    pub(crate) id: String,
    /// Its process 1, as the lab host counts pids.
    pub(crate) pid: u32,
}

impl Docker {
    /// Starts dockerd with `options` on top of the lab's own, waits until it answers, and loads the image.
    pub(crate) fn start(options: &[&str]) -> Result<Self> {
        // overlay2 on the in-memory /var/lib/docker; a kernel without overlayfs copies whole layers instead.
        let overlay = fs::read_to_string("/proc/filesystems").unwrap_or_default().contains("overlay");
        let driver = if overlay { "overlay2" } else { "vfs" };
        let mut command = Command::new("dockerd");
        command.args(["--storage-driver", driver]).args(options);
        // Tells dockerd that it is confined already: it must not load an AppArmor profile, which all hosts would share.
        command.env("container", "netdiag-lab");
        let daemon = host::daemon(&mut command, Path::new(LOG))?;
        let version = wait_ready(daemon)?;
        load_image()?;
        Ok(Self { version, image: IMAGE })
    }

    /// Starts a container of the lab's image and waits until it has a process.
    pub(crate) fn run(&self, options: &[&str]) -> Result<Container> {
        let words = [&["run", "--detach"], options, &[self.image]].concat();
        let id = command::run("docker", words)?.trim().to_owned();
        let pid = command::run("docker", ["inspect", "--format", "{{.State.Pid}}", &id])?;
        match pid.trim().parse() {
            Ok(pid) if pid > 0 => Ok(Container { id, pid }),
            _ => bail!("container {id} has ended: {}", command::run("docker", ["logs", &id])?),
        }
    }
}

/// Waits until the daemon answers and returns its version; its log is in the error otherwise.
fn wait_ready(mut daemon: Child) -> Result<String> {
    let mut version = String::new();
    let ready = host::wait_until("the start of dockerd", READY_WITHIN, || {
        if let Some(status) = daemon.try_wait().context("look after dockerd")? {
            bail!("dockerd ended with {status}");
        }
        version = command::run("docker", ["version", "--format", "{{.Server.Version}}"]).unwrap_or_default();
        Ok(!version.is_empty())
    });
    match ready {
        Ok(()) => Ok(version.trim().to_owned()),
        Err(error) => bail!("{error:#}; its log ends with:\n{}", supervise::tail(Path::new(LOG), 12)),
    }
}

/// Makes the image of instances out of the busybox of this machine: nothing is pulled.
fn load_image() -> Result<()> {
    let root = Path::new("/run/netdiag-lab-image");
    image::write_root(root)?;
    let archive = root.with_extension("tar");
    let (from, to) = (root.to_string_lossy(), archive.to_string_lossy());
    command::run("tar", ["--create", "--owner=0", "--group=0", "--file", &to, "--directory", &from, "."])?;
    let entry = format!("ENTRYPOINT [\"{}\"]", image::ENTRY);
    command::run("docker", ["import", "--change", &entry, &to, IMAGE])?;
    fs::remove_dir_all(root).context("remove the image's directory")?;
    fs::remove_file(&archive).context("remove the image's archive")
}
