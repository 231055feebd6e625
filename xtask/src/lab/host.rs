//! The lab host a builder works on, from inside.

use std::{
    fmt::Write as _,
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::lab::{
    command,
    inventory::{self, Inventory, Uplink},
    spec::Spec,
};

/// One lab host and the lab it belongs to. Commands run where they are started: this process is inside.
pub(crate) struct Host<'a> {
    /// The whole lab as planned.
    pub(crate) lab: &'a Inventory,
    /// This host as planned.
    pub(crate) plan: &'a inventory::Host,
    /// Whether instances shall be Docker containers.
    pub(crate) docker: bool,
}

impl<'a> Host<'a> {
    /// The host `name` of a planned lab.
    pub(crate) fn new(spec: &Spec, lab: &'a Inventory, name: &str) -> Result<Self> {
        let plan = lab.host(name).with_context(|| format!("the lab has no host {name}"))?;
        Ok(Self { lab, plan, docker: !spec.no_docker })
    }

    /// The NIC of this name, which the plan must have.
    pub(crate) fn uplink(&self, device: &str) -> Result<&'a Uplink> {
        self.plan.uplink(device).with_context(|| format!("{} has no {device}", self.plan.name))
    }

    /// Gives a NIC the address it has by plan, and a default route where its segment has a gateway.
    pub(crate) fn configure_uplink(&self, uplink: &Uplink) -> Result<()> {
        let mut batch = format!("link set {} up\n", uplink.device);
        if let Some(address) = uplink.address {
            writeln!(batch, "address add {address} dev {}", uplink.device)?;
            let segment = self.lab.segments.iter().find(|segment| segment.name == uplink.segment);
            if let Some(gateway) = segment.and_then(|segment| segment.gateway) {
                writeln!(batch, "route add default via {} dev {}", gateway.address, uplink.device)?;
            }
        }
        command::feed("ip", ["-batch", "-"], &batch).map(drop)
    }
}

/// Starts a program that does not go into the background by itself; its words go to `log`.
pub(crate) fn daemon(command: &mut Command, log: &Path) -> Result<Child> {
    let shown = command::line(command);
    let file = File::create(log).with_context(|| format!("write {}", log.display()))?;
    let same = file.try_clone().with_context(|| format!("write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file).stderr(same).spawn().with_context(|| format!("start `{shown}`"))
}

/// Asks again and again until `ready` says so; after `bound` it is an error.
pub(crate) fn wait_until(what: &str, bound: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + bound;
    while !ready()? {
        if Instant::now() > deadline {
            bail!("{what} took longer than {} s", bound.as_secs());
        }
        thread::sleep(Duration::from_millis(25));
    }
    Ok(())
}
