//! `cargo xtask setup`: installs what the other verbs use, after saying what.
//!
//! Every verb starts with `ensure`, so nobody has to run this one first. What is already there, from whatever
//! source, is left as it is: a program counts, not the package it came from.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{command, workspace};

/// Installs packages with apt, without starting the daemons in them.
mod apt;
/// Packages of a Debian release other than this machine's.
pub(crate) mod archive;
/// The linker of the eBPF programs.
mod linker;
/// The packages, and how to tell that one is not needed.
pub(crate) mod packages;
/// The source of the standard library.
mod rust_src;

/// Options of `setup`, and of every verb that sets up first.
#[derive(Clone, Copy, Debug, clap::Args)]
// Other verbs flatten this into their own `Args`, and clap would name both groups after the type.
#[group(skip)]
pub(crate) struct Args {
    /// Install nothing: name what is missing and fail
    #[arg(long)]
    pub(crate) no_install: bool,
}

/// How much has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// What compiles the workspace and the eBPF programs.
    Build,
    /// That, and what the lab, the demo and the benchmarks run.
    Lab,
    /// That, and what only the privileged tests run.
    Test,
    /// That, and what runs all of it on another kernel.
    Vm,
}

/// One thing that is missing.
#[derive(Clone, Copy, Debug)]
enum Missing {
    /// Debian or Ubuntu packages.
    Package(&'static packages::Need),
    /// bpf-linker, or the right version of it.
    Linker,
    /// The source of the standard library.
    RustSource,
}

impl Missing {
    /// What will be installed, and what for.
    fn describe(self) -> String {
        match self {
            Self::Package(need) => need.describe(),
            Self::Linker => format!("bpf-linker {} (cargo install): links the eBPF programs", linker::VERSION),
            Self::RustSource => "rust-src (rustup, else Debian's package): `core` for the eBPF programs".to_owned(),
        }
    }
}

/// Installs everything any verb uses but `vm`, which few need and which brings a whole emulator.
pub(crate) fn run(args: Args) -> Result<()> {
    ensure(Scope::Test, args)?;
    println!("everything netdiag's build, lab and tests use is installed");
    Ok(())
}

/// Sees to it that everything within a scope is there.
pub(crate) fn ensure(scope: Scope, args: Args) -> Result<()> {
    let root = workspace::root()?;
    let missing = missing(scope, &root)?;
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.iter().map(|missing| missing.describe()).collect::<Vec<_>>().join("\n  ");
    if args.no_install {
        bail!("missing, and --no-install forbids to install it:\n  {list}");
    }
    eprintln!("will install:\n  {list}");
    let needs: Vec<_> = missing
        .iter()
        .filter_map(|missing| if let Missing::Package(need) = missing { Some(*need) } else { None })
        .collect();
    // First, because the other two may need a linker and certificates.
    if !needs.is_empty() {
        apt::install(&needs)?;
    }
    for missing in missing {
        match missing {
            Missing::Package(_) => {}
            Missing::Linker => linker::install(&root)?,
            Missing::RustSource => rust_src::install(&root)?,
        }
    }
    verify(scope, &root)
}

/// An installation that reports success and leaves the thing missing is a failure, and says so here rather than later.
fn verify(scope: Scope, root: &Path) -> Result<()> {
    let still: Vec<_> = missing(scope, root)?.into_iter().map(Missing::describe).collect();
    if still.is_empty() { Ok(()) } else { bail!("installed, but still not found:\n  {}", still.join("\n  ")) }
}

fn missing(scope: Scope, root: &Path) -> Result<Vec<Missing>> {
    let mut missing: Vec<_> = packages::NEEDS
        .iter()
        .filter(|need| need.scope <= scope)
        .filter(|need| !need.is_met())
        .map(Missing::Package)
        .collect();
    if !linker::is_installed() {
        missing.push(Missing::Linker);
    }
    if !rust_src::is_installed(&sysroot(root)?) {
        missing.push(Missing::RustSource);
    }
    Ok(missing)
}

/// Where the pinned toolchain is.
pub(crate) fn sysroot(root: &Path) -> Result<PathBuf> {
    let printed = command::output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(root))?;
    Ok(PathBuf::from(printed.trim()))
}
