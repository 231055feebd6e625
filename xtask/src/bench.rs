//! `cargo xtask bench sg`: what enforcement costs, beside no filter and beside what Neutron does.
//!
//! What measures is a bench of the tests crate, as it needs the agent. It is built optimised, with the eBPF programs, and runs in
//! network and mount namespaces of its own.

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

/// The file with the rules of the hybrid driver, for `tests/benches/sg/hybrid.rs`.
const HYBRID: &str = "NETDIAG_BENCH_HYBRID";

/// Numbers of rules that are compared.
const SIZES: [u16; 2] = [10, 1000];

/// `cargo xtask bench`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Security groups
    Sg(Sg),
}

/// Options of `bench sg`.
#[derive(Clone, Debug, clap::Args)]
struct Sg {
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
    let What::Sg(Sg { setup, quick, json, against }) = args.what;
    setup::ensure(Scope::Lab, setup)?;
    let root = workspace::root()?;
    let rules = workspace::target_directory(&root).join("bench-hybrid.json");
    fs::write(&rules, lab::hybrid_rules(&SIZES)?.to_string()).with_context(|| format!("write {}", rules.display()))?;
    let program = bench(&root, &build::object(&root)?)?;
    let script = "ip link set lo up && mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && exec \"$0\" \"$@\"";
    let mut measure = command::as_root("unshare")?;
    measure.args(["--mount", "--net", "--", "env"]).arg(format!("{HYBRID}={}", rules.display()));
    measure.args(["sh", "-c", script]).arg(program);
    if quick {
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
fn bench(root: &Path, object: &Path) -> Result<PathBuf> {
    let mut cargo: Command = command::cargo(root);
    cargo
        .args(["bench", "--package", "netdiag-tests", "--bench", "sg", "--no-run", "--locked"])
        .args(["--message-format", "json-render-diagnostics"])
        .env(build::OBJECT_VARIABLE, object);
    let messages = command::output(cargo.stderr(std::process::Stdio::inherit()))?;
    let mut built = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = built.find_map(|message| {
        let here = message["target"]["name"] == "sg" && message["target"]["kind"][0] == "bench";
        message["executable"].as_str().filter(|_| here).map(PathBuf::from)
    });
    program.context("cargo has built no bench sg")
}
