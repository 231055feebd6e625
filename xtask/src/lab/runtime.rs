//! Instances: Docker containers where Docker is there, else plain namespaces that run the same programs.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::lab::{
    docker::{Container, Docker},
    host::{self, Host},
    identity, image,
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
    let root = format!("--root={ROOT}");
    let script = format!("hostname {hostname}; ip link set lo up; exec {}", image::ENTRY);
    let maker = Command::new("unshare")
        .args(["--fork", "--kill-child", "--pid", "--mount", "--net", "--uts", "--ipc", "--mount-proc", &root])
        .args(["/bin/sh", "-c", &script])
        .env("PATH", "/bin:/sbin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start unshare")?
        .id();
    let children = format!("/proc/{maker}/task/{maker}/children");
    let mut pid = None;
    host::wait_until("the start of a plain namespace", STARTED_WITHIN, || {
        pid = fs::read_to_string(&children).ok().and_then(|text| text.trim().parse().ok());
        Ok(pid.is_some())
    })?;
    let id = [1, 2, 3, 4].map(|salt| format!("{:016x}", identity::bits(name, salt))).concat();
    Ok(Container { id, pid: pid.context("a plain namespace without process")? })
}
