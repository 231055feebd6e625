//! What this host can and cannot do. Flow: discover.
//!
//! Each check says what was found, what follows from it and what to do; none can fail or hang the whole. What could not
//! be found out is reported as such: unknown is not "no". A host without Docker or Open vSwitch has nothing wrong with
//! it.
//!
//! The checks change nothing on the host. The one that loads and attaches an eBPF program does so in a namespace of its
//! own, which ends with it.

use std::{error::Error, fs, future::Future, io, path::Path, time::Duration};

use netdiag_model::doctor::{Check, Report, from_facts};

use crate::discover::{self, Options};

/// Each capability by name.
mod capability;
/// The eBPF programs and the whole chain they depend on.
mod datapath;
/// What the kernel is and offers.
mod kernel;
/// Settings of the network stack that decide over packets without leaving a trace of it.
mod network;
/// Daemons that know instances by name.
mod service;
/// The programs that list packet filter rules.
mod tool;

/// The most one group of checks may take, the sources aside, which have [`Options::timeout`].
const PATIENCE: Duration = Duration::from_secs(15);
/// The most one daemon or program may take to answer.
const ANSWER: Duration = Duration::from_secs(3);

/// Makes every check there is.
pub async fn examine(options: &Options) -> Report {
    let (kernel, capabilities, datapath, network, tools, services, facts) = tokio::join!(
        bounded("kernel", PATIENCE, blocking(kernel::checks)),
        bounded("capabilities", PATIENCE, blocking(capability::checks)),
        bounded("eBPF chain", PATIENCE, datapath::checks()),
        bounded("sysctls", PATIENCE, blocking(network::checks)),
        bounded("rule listing", PATIENCE, tool::checks()),
        bounded("services", PATIENCE, service::checks(options)),
        // Its sources have the timeout each; finding the namespaces they look into comes before them.
        bounded("sources", options.timeout + PATIENCE, facts(options)),
    );
    report([kernel, capabilities, datapath, facts, services, tools, network].concat())
}

/// Makes the checks that the agent stands or falls with: kernel, capabilities, and the whole chain of the programs.
pub async fn examine_for_agent() -> Report {
    let (kernel, capabilities, datapath) = tokio::join!(
        bounded("kernel", PATIENCE, blocking(kernel::checks)),
        bounded("capabilities", PATIENCE, blocking(capability::checks)),
        bounded("eBPF chain", PATIENCE, datapath::checks()),
    );
    report([kernel, capabilities, datapath].concat())
}

fn report(checks: Vec<Check>) -> Report {
    let uname = rustix::system::uname();
    Report {
        schema_version: Report::VERSION,
        hostname: uname.nodename().to_string_lossy().into_owned(),
        kernel: uname.release().to_string_lossy().into_owned(),
        netdiag: env!("CARGO_PKG_VERSION").to_owned(),
        checks,
    }
}

async fn facts(options: &Options) -> Vec<Check> {
    from_facts(&Box::pin(discover::look(options.clone())).await.facts)
}

/// Runs checks that read files, away from the threads that wait for sockets.
async fn blocking(checks: fn() -> Vec<Check>) -> Vec<Check> {
    tokio::task::spawn_blocking(checks).await.unwrap_or_else(|error| vec![Check::unknown("checks", error.to_string())])
}

/// Cuts a group of checks off when its time is up; that they hang is then the result.
fn bounded(name: &str, limit: Duration, checks: impl Future<Output = Vec<Check>>) -> impl Future<Output = Vec<Check>> {
    // On the heap: together the groups would make a future too large to pass around.
    let checks = tokio::time::timeout(limit, Box::pin(checks));
    async move {
        checks.await.unwrap_or_else(|_| {
            let hangs = Check::unknown(name, format!("no answer within {} s", limit.as_secs()));
            vec![hangs.so("nothing is known about it").fix("see what hangs: `dmesg`, `ps -eo pid,stat,comm`")]
        })
    }
}

/// What a small file of the kernel's holds, without the newline at its end; none if it does not exist.
type Read = io::Result<Option<String>>;

fn read(path: impl AsRef<Path>) -> Read {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A check that could not be made because a file could not be read.
fn unreadable(name: &str, path: &str, error: &io::Error) -> Check {
    Check::unknown(name, format!("{path}: {error}")).fix("run as root")
}

/// An error and what caused it, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        // Some libraries print the cause in the error and give it as its source as well.
        if !text.ends_with(&inner) {
            text = format!("{text}: {inner}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{bounded, chain};
    use netdiag_model::doctor::Status;
    use std::{io, time::Duration};

    #[tokio::test]
    async fn a_group_of_checks_that_hangs_becomes_one_that_is_unknown() {
        let checks = bounded("docker", Duration::from_millis(1), std::future::pending()).await;
        assert_eq!((checks.len(), checks[0].status, checks[0].name.as_str()), (1, Status::Unknown, "docker"));
    }

    #[test]
    fn a_chain_names_every_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("attach")]
        struct Outer(#[source] io::Error);
        #[derive(Debug, thiserror::Error)]
        #[error("outermost: {0}")]
        struct Repeats(#[source] Outer);
        let error = Repeats(Outer(io::Error::other("no room")));
        assert_eq!(chain(&error), "outermost: attach: no room");
    }
}
