//! The verbs: what they take, and what they print.

use std::{
    ffi::OsString,
    io::{self, BufReader, Write},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::lab::{
    check, enter,
    inventory::{Instance, Inventory, Profile, Role, docker::Container, security::PacketFilter},
    report, require,
    spec::Spec,
    state::{self, State},
    supervise,
};

/// How long a lab may take to come up, and how much longer per instance.
const UP_WITHIN: Duration = Duration::from_mins(3);
const UP_WITHIN_PER_INSTANCE: Duration = Duration::from_secs(3);

/// How many instances of a host a summary lists.
const SHOWN: usize = 12;

/// A lab by its name, with or without `--name` before it.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Which {
    /// The lab; not needed while only one is up
    name: Option<String>,
    /// The same
    #[arg(long = "name", value_name = "NAME")]
    named: Option<String>,
}

impl Which {
    fn name(&self) -> Option<&str> {
        self.name.as_deref().or(self.named.as_deref())
    }
}

/// `lab up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    #[command(flatten)]
    spec: Spec,
    /// Name of the lab, as with --name
    #[arg(value_name = "NAME", conflicts_with = "name")]
    lab: Option<String>,
    /// Stay in the foreground; the lab ends with this process, however it ends
    #[arg(long)]
    foreground: bool,
}

impl Up {
    pub(crate) fn run(mut self) -> Result<()> {
        self.settle_name();
        require::root()?;
        require::commands()?;
        self.settle_docker()?;
        state::prune()?;
        let state = State::of(&self.spec.name)?;
        let mut supervisor = supervise::start(&self.spec)?;
        let stdin = supervisor.stdin.take().context("no pipe to the supervisor")?;
        let bound = UP_WITHIN + UP_WITHIN_PER_INSTANCE * self.spec.instances;
        let ready = wait_ready(&mut supervisor, bound);
        if let Err(error) = ready {
            // Without its owner the supervisor takes everything down again.
            drop(stdin);
            supervisor.wait().context("wait for the supervisor")?;
            return Err(error.context(format!("lab {} did not come up", self.spec.name)));
        }
        let lab = state.inventory()?.context("the lab has no inventory")?;
        summary(&mut io::stdout().lock(), &lab)?;
        self.leave(supervisor, stdin)
    }

    fn settle_name(&mut self) {
        if let Some(name) = self.lab.take() {
            self.spec.name = name;
        }
    }

    /// Decides what instances are; doing without Docker is never silent, and never happens where nobody looks.
    fn settle_docker(&mut self) -> Result<()> {
        if self.spec.profile == Profile::Docker && (self.spec.no_docker || !require::has_docker()) {
            bail!("the profile docker needs Docker (package docker.io)");
        }
        if self.spec.profile == Profile::Vm || self.spec.no_docker || require::has_docker() {
            return Ok(());
        }
        let lacking =
            "Docker is not installed (package docker.io): instances would be plain namespaces, not containers";
        if require::strict() {
            bail!("{lacking}; that is a failure in CI");
        }
        warn(&format!("{lacking}. Going on without."));
        self.spec.no_docker = true;
        Ok(())
    }

    fn leave(&self, mut supervisor: Child, mut stdin: ChildStdin) -> Result<()> {
        if self.foreground {
            let ended = supervisor.wait().context("wait for the supervisor");
            drop(stdin);
            return ended.map(drop);
        }
        stdin.write_all(supervise::DETACH.as_bytes()).context("leave the lab to itself")
    }
}

/// Waits for the supervisor's report.
fn wait_ready(supervisor: &mut Child, bound: Duration) -> Result<()> {
    let stdout = supervisor.stdout.take().context("no pipe from the supervisor")?;
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        // Nobody waits any more when the time is over.
        send.send(report::receive(&mut BufReader::new(stdout))).ok();
    });
    let report = receive.recv_timeout(bound).with_context(|| format!("it took longer than {} s", bound.as_secs()))?;
    report.map(drop)
}

#[expect(clippy::print_stderr, reason = "a warning belongs on standard error")]
fn warn(text: &str) {
    eprintln!("warning: {text}");
}

/// What a lab holds, and how to get in.
fn summary(out: &mut impl Write, lab: &Inventory) -> Result<()> {
    for host in lab.hosts.iter().filter(|host| host.role == Role::Compute) {
        let ovs = host.ovs.as_ref().map(|ovs| format!("Open vSwitch {} ({})", ovs.version, ovs.datapath_type));
        let machines = lab.instances_on(&host.name).any(|instance| instance.machine.is_some());
        let without = if machines { "virtual machines" } else { "plain namespaces" };
        let docker = host.docker.as_ref().map_or(without.into(), |version| format!("Docker {version}"));
        writeln!(out, "{}: {}", host.name, [ovs, Some(docker)].into_iter().flatten().collect::<Vec<_>>().join(", "))?;
        if let Some(filter) = &host.packet_filter {
            writeln!(out, "  security groups: {}", describe_filter(filter))?;
        }
        let containers = lab.containers.iter().filter(|container| container.host == host.name);
        let lines: Vec<_> =
            lab.instances_on(&host.name).map(describe).chain(containers.map(describe_container)).collect();
        for line in lines.iter().take(SHOWN) {
            writeln!(out, "  {line}")?;
        }
        let count = lines.len();
        if count > SHOWN {
            writeln!(out, "  and {} more", count - SHOWN)?;
        }
    }
    writeln!(out, "enter: cargo xtask lab exec {} -- bash    check: cargo xtask lab check {0}", lab.name)?;
    writeln!(out, "end:   cargo xtask lab down {}", lab.name).context("print the summary")
}

fn describe(instance: &Instance) -> String {
    let mut words = vec![match &instance.machine {
        Some(_) => format!("{:<9} {} {}", instance.display_name, instance.name, instance.uuid),
        None => format!("{:<9} nova-{}", instance.display_name, instance.uuid),
    }];
    for port in &instance.ports {
        words.push(port.address.address.to_string());
        words.extend(port.floating_ip.map(|floating| format!("({floating})")));
    }
    words.join(" ")
}

/// Whether the rules of security groups do anything.
fn describe_filter(filter: &PacketFilter) -> String {
    let remote =
        if filter.ipset { "remote groups by ipset" } else { "no ipset: a rule for each member of remote groups" };
    let state = match filter.bridge_nf_call_iptables {
        Some(true) => "active",
        Some(false) => "present but not asked (bridge-nf-call-iptables is 0)",
        None => "present but not asked (this kernel has no br_netfilter)",
    };
    format!("{state}, {remote}")
}

fn describe_container(container: &Container) -> String {
    let mut words = vec![format!("{:<9}", container.name)];
    words.extend(container.nics.iter().filter_map(|nic| Some(nic.address?.address.to_string())));
    words.extend(container.published.iter().map(|port| format!("({}->{})", port.host_port, port.container_port)));
    words.join(" ")
}

/// `lab exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct Exec {
    #[command(flatten)]
    which: Which,
    /// Lab host; the first compute host without it
    #[arg(long)]
    host: Option<String>,
    /// What to run
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Exec {
    pub(crate) fn run(self) -> Result<()> {
        require::root()?;
        let lab = choose(self.which.name())?;
        let host = match &self.host {
            None => lab.hosts.first().context("the lab has no host")?,
            Some(name) => lab.host(name).with_context(|| {
                let names: Vec<_> = lab.hosts.iter().map(|host| host.name.as_str()).collect();
                format!("lab {} has no host {name}; its hosts are {}", lab.name, names.join(", "))
            })?,
        };
        let mut command = enter::command(host)?;
        if let Ok(directory) = std::env::current_dir() {
            command.arg(format!("--wdns={}", directory.display()));
        }
        // nsenter takes the place of this process, so signals, terminal and exit code need no passing on.
        Err(command.arg("--").args(&self.command).exec()).context("run nsenter")
    }
}

/// The lab of this name, or the only one.
fn choose(name: Option<&str>) -> Result<Inventory> {
    state::prune()?;
    let labs = State::all()?;
    let lab = match (name, labs.as_slice()) {
        (Some(name), _) => {
            labs.iter().find(|lab| lab.name() == name).with_context(|| format!("no lab {name} is up"))?
        }
        (None, [only]) => only,
        (None, []) => bail!("no lab is up; bring one up with: cargo xtask lab up"),
        (None, several) => {
            let names: Vec<_> = several.iter().map(State::name).collect();
            bail!("several labs are up, name one: {}", names.join(", "))
        }
    };
    lab.inventory()?.with_context(|| format!("lab {} is still coming up", lab.name()))
}

/// `lab check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    #[command(flatten)]
    which: Which,
    /// Print only what failed
    #[arg(short, long)]
    quiet: bool,
}

impl Check {
    pub(crate) fn run(&self) -> Result<()> {
        require::root()?;
        let lab = choose(self.which.name())?;
        let outcomes = check::run(&lab)?;
        let mut out = io::stdout().lock();
        for host in &lab.hosts {
            if let Some(filter) = &host.packet_filter {
                writeln!(out, "note    {}: security groups {}", host.name, describe_filter(filter))?;
            }
        }
        let mut failed = 0;
        for outcome in &outcomes {
            match &outcome.result {
                Ok(()) if self.quiet => {}
                Ok(()) => writeln!(out, "ok      {}", outcome.probe)?,
                Err(why) => {
                    failed += 1;
                    writeln!(out, "FAILED  {}: {why}", outcome.probe)?;
                }
            }
        }
        writeln!(out, "{} of {} probes passed", outcomes.len() - failed, outcomes.len())?;
        if failed > 0 {
            bail!("{failed} probes failed");
        }
        Ok(())
    }
}

/// `lab status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    #[command(flatten)]
    which: Which,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Text,
    /// A list of inventories
    Json,
}

impl Status {
    pub(crate) fn run(&self) -> Result<()> {
        if rustix::process::geteuid().is_root() {
            state::prune()?;
        }
        let mut inventories = Vec::new();
        let mut out = io::stdout().lock();
        for lab in State::all()?.iter().filter(|lab| self.which.name().is_none_or(|name| name == lab.name())) {
            let inventory = match lab.inventory() {
                // Labs of another checkout may say more than this one understands: no reason to hide the others.
                Err(error) if self.which.name().is_none() => {
                    warn(&format!("lab {}: {error:#}", lab.name()));
                    continue;
                }
                inventory => inventory?,
            };
            match inventory {
                Some(inventory) => inventories.push(inventory),
                None if self.output == Format::Text => writeln!(out, "{}: coming up", lab.name())?,
                None => {}
            }
        }
        if self.output == Format::Json {
            serde_json::to_writer_pretty(&mut out, &inventories).context("print the inventories")?;
            return writeln!(out).context("print the inventories");
        }
        for lab in &inventories {
            let count = lab.instances.len() + lab.containers.len();
            let supervisor = lab.supervisor.map_or(0, |supervisor| supervisor.pid);
            writeln!(out, "{}: {}, {} instances, supervisor {supervisor}", lab.name, lab.profile, count)?;
            summary(&mut out, lab)?;
        }
        Ok(())
    }
}

/// `lab down`.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Down {
    /// The lab
    name: Option<String>,
    /// The same
    #[arg(long = "name", value_name = "NAME")]
    named: Option<String>,
    /// Every lab
    #[arg(long)]
    all: bool,
}

impl Down {
    pub(crate) fn run(&self) -> Result<()> {
        require::root()?;
        match self.name.as_ref().or(self.named.as_ref()) {
            Some(name) => {
                let lab = State::of(name)?;
                if !State::all()?.iter().any(|other| other.name() == name) {
                    bail!("no lab {name} is up");
                }
                lab.destroy()?;
            }
            None => State::all()?.iter().try_for_each(State::destroy)?,
        }
        state::prune()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Check, Down, Exec, Status, Up};

    /// A verb as it is written.
    #[derive(Debug, Parser)]
    struct Line<V: clap::Args> {
        #[command(flatten)]
        verb: V,
    }

    fn read<V: clap::Args>(words: &str) -> Result<V, clap::Error> {
        Line::try_parse_from(["verb"].into_iter().chain(words.split_whitespace())).map(|line| line.verb)
    }

    fn up(words: &str) -> Result<String, clap::Error> {
        let mut up: Up = read(words)?;
        up.settle_name();
        Ok(up.spec.name)
    }

    #[test]
    fn a_lab_is_named_with_and_without_the_option() {
        assert_eq!(up("").unwrap(), "lab");
        for words in ["x", "--name x"] {
            let name = Some("x");
            assert_eq!(up(&format!("{words} --profile docker")).unwrap(), "x");
            assert_eq!(read::<Exec>(&format!("{words} --host h -- true x")).unwrap().which.name(), name);
            assert_eq!(read::<Check>(words).unwrap().which.name(), name);
            assert_eq!(read::<Status>(words).unwrap().which.name(), name);
            let down: Down = read(words).unwrap();
            assert_eq!(down.name.or(down.named).as_deref(), name);
        }
        assert_eq!(read::<Exec>("-- true x").unwrap().which.name(), None);
    }

    #[test]
    fn a_lab_has_one_name() {
        assert!(up("x --name y").is_err() && read::<Exec>("x --name y -- true").is_err());
        assert!(read::<Check>("x --name y").is_err() && read::<Status>("x --name y").is_err());
        assert!(read::<Down>("x --name y").is_err() && read::<Down>("--name y --all").is_err());
        assert!(read::<Down>("").is_err());
    }
}
