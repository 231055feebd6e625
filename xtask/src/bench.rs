//! `cargo xtask bench`: what enforcement (`sg`) and the fast way of floating IPs (`fip`) cost, beside nothing and beside what
//! Neutron does, and what watching packets (`live`) costs, beside nothing and beside tcpdump.
//!
//! What measures are benches of the tests crate, as they need the agent. They are built optimised, with the eBPF programs, and run in
//! network and mount namespaces of their own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    build, command, lab,
    setup::{self, Scope},
    workspace,
};

/// The file with the rules that are compared with, for the benches.
const RULES: &str = "NETDIAG_BENCH_RULES";

/// Numbers of rules that are compared.
const SIZES: [u16; 2] = [10, 1000];
/// Numbers of floating IPs that are compared.
const FLOATING_IPS: [u16; 3] = [1, 100, 10_000];

/// `cargo xtask bench`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Security groups
    Sg(Common),
    /// Floating IPs
    Fip(Common),
    /// Packets watched live
    Live(Common),
}

/// Options of every bench.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    setup: setup::Args,
    /// A tenth of the samples: a look, no result
    #[arg(long)]
    quick: bool,
    /// Write everything that was measured to a file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure this eBPF object in turn with the one that is built: the programs, and the whole way with 10 rules
    #[arg(long, value_name = "OBJECT")]
    against: Option<PathBuf>,
}

/// Builds what measures, and starts it.
pub(crate) fn run(args: Args) -> Result<()> {
    match args.what {
        What::Sg(common) => measure("sg", &common, || lab::hybrid_rules(&SIZES)),
        What::Fip(common) => measure("fip", &common, || lab::router_rules(&FLOATING_IPS)),
        What::Live(common) => measure("live", &common, || Ok(serde_json::Value::Null)),
    }
}

fn measure(name: &str, common: &Common, rules: impl FnOnce() -> Result<serde_json::Value>) -> Result<()> {
    let Common { setup, quick, json, against } = common;
    setup::ensure(Scope::Lab, *setup)?;
    let root = workspace::root()?;
    let file = workspace::target_directory(&root).join(format!("bench-{name}.json"));
    fs::write(&file, rules()?.to_string()).with_context(|| format!("write {}", file.display()))?;
    let program = bench(&root, name, &build::object(&root)?)?;
    let script = "ip link set lo up && mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && exec \"$0\" \"$@\"";
    let mut measure = command::as_root("unshare")?;
    measure.args(["--mount", "--net", "--", "env"]).arg(format!("{RULES}={}", file.display()));
    measure.args(["sh", "-c", script]).arg(program);
    if *quick {
        measure.arg("--quick");
    }
    for (option, file) in [("--json", json), ("--against", against)] {
        if let Some(file) = file {
            measure.arg(option).arg(env::current_dir()?.join(file));
        }
    }
    command::run(&mut measure)
}

/// Builds the bench; returns where it is.
fn bench(root: &Path, name: &str, object: &Path) -> Result<PathBuf> {
    let mut cargo: Command = command::cargo(root);
    cargo
        .args(["bench", "--package", "netdiag-tests", "--bench", name, "--no-run", "--locked"])
        .args(["--message-format", "json-render-diagnostics"])
        .env(build::OBJECT_VARIABLE, object);
    let messages = command::output(cargo.stderr(std::process::Stdio::inherit()))?;
    let mut built = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = built.find_map(|message| {
        let here = message["target"]["name"] == name && message["target"]["kind"][0] == "bench";
        message["executable"].as_str().filter(|_| here).map(PathBuf::from)
    });
    program.with_context(|| format!("cargo has built no bench {name}"))
}
