//! Embeds the objects with the eBPF programs, if there are any.
//!
//! `cargo xtask build` compiles the programs and says in `NETDIAG_BPF_OBJECT` where they are; those that watch packets are in
//! an object of their own beside it. A plain `cargo check` or
//! `cargo test` sets nothing and needs no BPF toolchain; the crate then carries no programs and says so when asked.

use std::{env, error::Error, fs, path::PathBuf};

const OBJECT: &str = "NETDIAG_BPF_OBJECT";
const LIVE: &str = "netdiag-live";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed={OBJECT}");
    println!("cargo::rustc-check-cfg=cfg(netdiag_bpf_object)");
    let Some(object) = env::var_os(OBJECT).filter(|path| !path.is_empty()).map(PathBuf::from) else { return Ok(()) };
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo set no OUT_DIR")?);
    for (object, name) in [(&object, "netdiag.bpf.o"), (&object.with_file_name(LIVE), "live.bpf.o")] {
        println!("cargo::rerun-if-changed={}", object.display());
        fs::copy(object, out.join(name)).map_err(|error| format!("{OBJECT}: copy {}: {error}", object.display()))?;
    }
    println!("cargo::rustc-cfg=netdiag_bpf_object");
    Ok(())
}
