//! The lab: a throw-away compute host for demo, tests, benchmarks and documentation.
//!
//! Nothing in it is simulated: Open vSwitch, Docker, dnsmasq, router namespaces and iptables rules are the real ones, made
//! by the commands an operator or Neutron's agents would use. Nothing of the real host changes.
//!
//! # Processes
//! ```text
//! lab up            asks for a lab, waits until it is ready
//! └ supervise       owns the lab on the real host; whatever ends it ends the lab; removes what is left afterwards
//!   └ fabric        process 1 of its own pid, mount and network namespaces: the cables and the world outside
//!     └ node        one per lab host, process 1 of namespaces of its own; `sandbox` makes them look like a host
//!       └ build     runs inside the lab host, makes it what its profile says, and ends
//! ```
//! Reports go up (`report`), one JSON value a line. A pid namespace that loses its process 1 loses every process, so the
//! kernel takes the lab down, whoever is killed.
//!
//! # Plan and inventory
//! A profile is a pure function from the number of instances to an `inventory::Inventory`, computed alike by every
//! process above, and a builder that makes one host of it. What only the kernel can say (pids, container ids, versions) is
//! filled in by the builders. `check` and the tests know a lab by this inventory alone.
//!
//! # How to add a profile
//! 1. Add it to `inventory::Profile`, and to the two `match`es in `profile`.
//! 2. Write `profile/<name>.rs` with `plan(&Spec) -> Inventory` and `build(&Host) -> Result<Built>`. `build` runs inside the
//!    lab host: everything has its standard path there, and commands are run as they are (`command::run`).
//! 3. Shared pieces: `ovs` (daemons, transactions, flows), `runtime` (instances as containers or plain namespaces),
//!    `docker`, `image`, `netns`, `dhcp`, `nova_docker` (how a port gets into a container), and `hypervisor` with `guest` and
//!    `tap` (the same for a virtual machine).
//! 4. One more way to plug Neutron's ports is a `neutron::plan::Cabling` (which devices lie between the instance and
//!    br-int) and a `build` that makes these devices and hands the last one to `neutron::agent::Agent::plug_instance`.
//! 5. What `check` needs to know beyond the inventory's types becomes a field of the inventory, and a probe in `check`.
//!
//! Nothing a builder starts needs to be stopped: it ends with the host.

use anyhow::Result;

mod cgroup;
mod check;
mod command;
mod dhcp;
mod docker;
mod enter;
mod fabric;
mod guest;
mod host;
mod hypervisor;
mod identity;
mod image;
#[expect(unreachable_pub, reason = "the tests read a lab's inventory with this same file")]
mod inventory;
mod netns;
mod neutron;
mod node;
mod nova_docker;
mod ovs;
mod parallel;
mod profile;
mod report;
mod require;
mod runtime;
mod sandbox;
mod spec;
mod state;
mod supervise;
mod tap;
mod verb;

/// `cargo xtask lab`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Bring a lab up; it stays until `lab down`
    Up(verb::Up),
    /// Run a command inside a lab host, with its exit code, input and terminal passed through
    Exec(verb::Exec),
    /// Try what has to work in a lab: pings, TCP connections, DHCP, metadata
    Check(verb::Check),
    /// List labs and what is in them
    Status(verb::Status),
    /// Take labs down
    Down(verb::Down),
    #[command(hide = true)]
    Supervise(spec::Spec),
    #[command(hide = true)]
    Fabric(spec::Spec),
    #[command(hide = true)]
    Node(node::Args),
    #[command(hide = true)]
    Build(node::Args),
    #[command(hide = true)]
    Controller,
}

/// Runs one verb.
///
/// # Errors
/// The user lacks a privilege or a program, a lab is not there or is there already, or a step of building one failed.
pub(crate) fn run(args: Args) -> Result<()> {
    match args.verb {
        Verb::Up(up) => up.run(),
        Verb::Exec(exec) => exec.run(),
        Verb::Check(check) => check.run(),
        Verb::Status(status) => status.run(),
        Verb::Down(down) => down.run(),
        Verb::Supervise(spec) => supervise::run(&spec),
        Verb::Fabric(spec) => report::result(fabric::run(&spec)),
        Verb::Node(args) => report::result(node::run(&args)),
        Verb::Build(args) => report::result(node::build(&args)),
        Verb::Controller => neutron::controller::run(),
    }
}

/// What this process is to be where it was started as a hypervisor of a lab.
pub(crate) fn as_hypervisor() -> Option<Result<()>> {
    hypervisor::is_this_process().then(hypervisor::run)
}

/// The packet filter that Neutron's hybrid driver makes of two ports with so many rules, and the ports.
///
/// # Errors
/// The example deployment has no two instances on one host.
pub(crate) fn hybrid_rules(sizes: &[u16]) -> Result<serde_json::Value> {
    neutron::firewall::sized(sizes)
}

/// The packet filter of a router with so many floating IPs each: what it is compared with, for `cargo xtask bench`.
pub(crate) fn router_rules(sizes: &[u16]) -> Result<serde_json::Value> {
    neutron::router_rules(sizes)
}
