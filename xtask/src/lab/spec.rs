//! What a lab is asked to be; every process of the lab is started with the same words.

use std::ffi::OsString;

use anyhow::{Context as _, Result};

use crate::lab::inventory::Profile;

/// Which lab.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Spec {
    /// Name of the lab
    #[arg(long, default_value = "lab")]
    pub(crate) name: String,
    /// What it imitates: neutron-ovs, hybrid, dvr, vm, docker
    #[arg(long, default_value = "neutron-ovs")]
    pub(crate) profile: Profile,
    /// Number of instances; a profile's own example is always there
    #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
    pub(crate) instances: u32,
    /// Plain namespaces instead of Docker containers
    #[arg(long)]
    pub(crate) no_docker: bool,
}

impl Spec {
    /// The command line that starts another process of this lab.
    pub(crate) fn command_line(&self, role: &str, host: Option<&str>) -> Result<Vec<OsString>> {
        let program = std::env::current_exe().context("find the path of this program")?;
        let mut words: Vec<OsString> = vec![program.into(), "lab".into(), role.into()];
        words.extend(["--name", &self.name, "--profile", &self.profile.to_string()].map(OsString::from));
        words.extend(["--instances".into(), self.instances.to_string().into()]);
        if self.no_docker {
            words.push("--no-docker".into());
        }
        if let Some(host) = host {
            words.extend(["--host", host].map(OsString::from));
        }
        Ok(words)
    }
}
