//! `docs/reasons.md` is made from the list of reasons, by this test: `cargo xtask gen` has it written, every other run
//! compares.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{env, fmt::Write as _, fs};

use netdiag_common::abi::{floating::Way, reason::Reason};

/// Set where the file is to be written.
const WRITE: &str = "NETDIAG_GEN";

/// The file, from this crate's directory.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reasons.md");

const HEAD: &str = "\
# Reasons

Every packet at a port of netdiag's is counted under one of these words, and every event about a packet carries one:
`netdiag sg show` has the counters, `netdiag events --reason no-rule` the packets. What is decided in which order is in
[DATAPATH.md](DATAPATH.md). The number is what counters are indexed by and what records carry.

Made from `common/src/abi/reason.rs` and `common/src/abi/floating.rs` by `cargo xtask gen`.

| reason | number | packet | meaning |
|---|---|---|---|
";

const WAYS: &str = "
# Ways

Every packet of a floating IP that goes the fast way, or could, is counted under one of these words, by port and
direction; `netdiag fip` has the counters. All but `fast`, `refused` and `straight` are the slow way, through the router.

| way | number | meaning |
|---|---|---|
";

fn document() -> String {
    let mut text = HEAD.to_owned();
    for reason in Reason::ALL {
        let verdict = if reason.passes() { "passes" } else { "dropped" };
        let (name, meaning) = (reason.name(), reason.meaning().trim());
        writeln!(text, "| `{name}` | {} | {verdict} | {meaning} |", *reason as u8).unwrap();
    }
    text.push_str(WAYS);
    for way in Way::ALL {
        writeln!(text, "| `{}` | {} | {} |", way.name(), *way as u8, way.meaning().trim()).unwrap();
    }
    text
}

#[test]
fn the_documented_reasons_are_those_there_are() {
    let wanted = document();
    if env::var_os(WRITE).is_some() {
        fs::write(FILE, &wanted).unwrap();
    }
    let there = fs::read_to_string(FILE).unwrap_or_default();
    assert!(there == wanted, "docs/reasons.md is out of date: run `cargo xtask gen`");
}
