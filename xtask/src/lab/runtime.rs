//! Instances: Docker containers where Docker is there, else plain namespaces that run the same programs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::lab::{
    docker::{Container, Docker},
    host::{self, Host},
    identity, image, supervise,
};

/// Root file system of plain namespaces.
const ROOT: &str = "/run/netdiag-lab-instance";
const STARTED_WITHIN: Duration = Duration::from_secs(10);

/// What starts instances on a host.
pub(crate) enum Runtime {
    /// A Docker daemon.
    Docker(Docker),
    /// `unshare`.
    Plain,
}

impl Runtime {
    /// Starts dockerd with `options`, or prepares for plain namespaces where the lab does without Docker.
    pub(crate) fn start(host: &Host<'_>, options: &[&str]) -> Result<Self> {
        if host.docker {
            return Docker::start(options).map(Self::Docker);
        }
        image::write_root(Path::new(ROOT))?;
        Ok(Self::Plain)
    }

    /// Version of the Docker daemon, if that is what it is.
    pub(crate) fn docker_version(&self) -> Option<String> {
        match self {
            Self::Docker(docker) => Some(docker.version.clone()),
            Self::Plain => None,
        }
    }

    /// Starts an instance without a network of its own to speak of: one loopback device.
    pub(crate) fn run(&self, name: &str, hostname: &str) -> Result<Container> {
        match self {
            Self::Docker(docker) => docker.run(&["--net=none", "--name", name, "--hostname", hostname]),
            Self::Plain => run_plain(name, hostname),
        }
        .with_context(|| format!("start instance {name}"))
    }
}

fn run_plain(name: &str, hostname: &str) -> Result<Container> {
    let log = PathBuf::from(format!("/var/log/{name}.log"));
    let script = format!("mount -t devtmpfs dev /dev; hostname {hostname}; ip link set lo up; exec {}", image::ENTRY);
    let mut command = Command::new("unshare");
    command.args(["--fork", "--kill-child", "--pid", "--mount", "--net", "--uts", "--ipc", "--mount-proc"]);
    command.args([&format!("--root={ROOT}"), "/bin/sh", "-c", &script]).env("PATH", "/bin:/sbin:/usr/bin");
    let mut maker = host::daemon(&mut command, &log)?;
    let mut pid = None;
    host::wait_until("the start of a plain namespace", STARTED_WITHIN, || {
        if let Some(status) = maker.try_wait().context("look after a plain namespace")? {
            bail!("a plain namespace ended with {status}: {}", supervise::tail(&log, 5));
        }
        pid = child_of(maker.id())?;
        Ok(pid.is_some())
    })?;
    // Looks like a container's id, for the name under `/run/netns`.
    let id = [1, 2, 3, 4].map(|salt| format!("{:016x}", identity::bits(name, salt))).concat();
    Ok(Container { id, pid: pid.context("a plain namespace without process")? })
}

/// The child of a process that has one child at most. Not every kernel has `/proc/<pid>/task/<tid>/children`.
fn child_of(parent: u32) -> Result<Option<u32>> {
    let wanted = format!("PPid:\t{parent}");
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let entry = entry.context("read /proc")?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end between being listed and being read.
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if status.lines().any(|line| line == wanted) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}
