//! `cargo xtask build`: the eBPF programs, then the binary that carries them.
//!
//! The programs are compiled by the same pinned stable compiler as everything else. There is no ready-made `core` for
//! a BPF target, so cargo builds it from `rust-src`; that, and the inline assembly of aya-ebpf, are unstable features,
//! which `RUSTC_BOOTSTRAP=1` opens for this one cargo call.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    command,
    setup::{self, Scope},
    workspace,
};

/// The BPF target of this machine's byte order.
const TARGET: &str = if cfg!(target_endian = "little") { "bpfel-unknown-none" } else { "bpfeb-unknown-none" };

/// The variable by which `userspace/agent/build.rs` is told where the object is.
pub(crate) const OBJECT_VARIABLE: &str = "NETDIAG_BPF_OBJECT";

/// Options of `build`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    /// Optimise the user-space binary; the eBPF programs always are
    #[arg(long)]
    release: bool,
    #[command(flatten)]
    setup: setup::Args,
}

/// Builds the programs and the binary, and says where the binary is.
pub(crate) fn run(args: Args) -> Result<()> {
    setup::ensure(Scope::Build, args.setup)?;
    let root = workspace::root()?;
    let binary = binary(&root, args.release)?;
    println!("built {}", binary.display());
    Ok(())
}

/// Builds the programs and the binary; returns where the binary is.
pub(crate) fn binary(root: &Path, release: bool) -> Result<PathBuf> {
    let object = object(root)?;
    let mut cargo = command::cargo(root);
    cargo.args(["build", "--package", "netdiag", "--locked"]).env(OBJECT_VARIABLE, object);
    if release {
        cargo.arg("--release");
    }
    command::run(&mut cargo)?;
    let profile = if release { "release" } else { "debug" };
    Ok(workspace::target_directory(root).join(profile).join("netdiag"))
}

/// Builds the eBPF programs; returns where the object is.
pub(crate) fn object(root: &Path) -> Result<PathBuf> {
    command::run(ebpf_cargo(root, "build")?.arg("--release"))?;
    Ok(ebpf_target_directory(root).join(TARGET).join("release/netdiag"))
}

/// A cargo call on the eBPF crate with everything it takes to compile for its target.
pub(crate) fn ebpf_cargo(root: &Path, verb: &str) -> Result<std::process::Command> {
    let mut cargo = command::cargo(root);
    cargo
        .args([verb, "--locked", "-Zbuild-std=core", "--target", TARGET, "--manifest-path", "ebpf/Cargo.toml"])
        .arg("--target-dir")
        .arg(ebpf_target_directory(root))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(root)?.join("\x1f"));
    Ok(cargo)
}

/// A directory of its own: the flags differ from those of the workspace, and neither build shall throw the other's
/// work away.
fn ebpf_target_directory(root: &Path) -> PathBuf {
    workspace::target_directory(root).join("ebpf")
}

/// Flags of the compiler and of bpf-linker.
fn flags(root: &Path) -> Result<Vec<String>> {
    let root = root.to_str().context("the path of the repository is not UTF-8")?;
    let mut flags = vec![
        // aya-ebpf picks the register layout of the machine the programs will run on.
        format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("--remap-path-prefix={root}=/netdiag"),
    ];
    // The object names source files in its line information. Where they were on this machine is nobody's business, and
    // would make every machine build another object.
    if let Some(home) = cargo_home() {
        flags.push(format!("--remap-path-prefix={home}=/cargo"));
    }
    let sysroot = setup::sysroot(Path::new(root))?;
    flags.push(format!("--remap-path-prefix={}=/rust", sysroot.display()));
    Ok(flags)
}

fn cargo_home() -> Option<String> {
    let given = env::var("CARGO_HOME").ok();
    given.or_else(|| env::var("HOME").ok().map(|home| format!("{home}/.cargo")))
}
