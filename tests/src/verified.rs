//! How far the verifier followed the programs that this process holds.

use std::{collections::BTreeMap, fs};

use aya::programs::loaded_programs;

/// How many instructions a kernel's verifier follows before it refuses a program (`BPF_COMPLEXITY_LIMIT_INSNS`).
pub const LIMIT: u32 = 1_000_000;

/// By name (15 characters of it, as the kernel keeps), instructions followed for each program this process has open. They differ
/// from kernel to kernel; programs of other processes are left out.
///
/// # Panics
/// The kernel does not tell.
#[must_use]
pub fn steps() -> BTreeMap<String, u32> {
    let infos = fs::read_dir("/proc/self/fdinfo")
        .expect("descriptors")
        .flatten()
        .filter_map(|info| fs::read_to_string(info.path()).ok());
    let id = |info: String| info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
    let own: Vec<u32> = infos.filter_map(id).collect();
    let held = loaded_programs().flatten().filter(|program| own.contains(&program.id()));
    let step = |program: aya::programs::ProgramInfo| {
        let steps = program.verified_instruction_count().expect("every supported kernel says it");
        (program.name_as_str().expect("a name in ASCII").to_owned(), steps)
    };
    held.map(step).collect()
}
