//! How an answer looks in the environments it is asked in: the whole program, on the snapshot of a recorded host.
#![cfg(test)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A file among the tests of the views, which have the recorded hosts and how their traces must look.
fn recorded(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../views/tests").join(path)
}

/// What netdiag does when it knows nothing of its surroundings but these variables.
fn run(words: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut netdiag = Command::new(env!("CARGO_BIN_EXE_netdiag"));
    netdiag.args(words).arg("--from").arg(recorded("fixtures/neutron-ovs-compute-1.json"));
    netdiag.env_clear().envs(environment.iter().copied()).output().unwrap()
}

/// What it writes.
fn answer(words: &[&str], environment: &[(&str, &str)]) -> String {
    let output = run(words, environment);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn trace(environment: &[(&str, &str)]) -> String {
    answer(&["trace", "172.24.4.6"], environment)
}

/// What a snapshot test of the views expects.
fn golden(name: &str) -> String {
    let file = fs::read_to_string(recorded(&format!("snapshots/golden__neutron-ovs-compute-1-{name}.snap"))).unwrap();
    file.splitn(3, "---\n").nth(2).unwrap().replace('␛', "\u{1b}")
}

#[test]
fn without_a_terminal_a_page_has_80_columns_and_no_colour() {
    assert_eq!(trace(&[]), golden("172.24.4.6-trace-80"));
    assert_eq!(trace(&[("NETDIAG_WIDTH", "200")]), golden("172.24.4.6-trace-200"));
    assert_eq!(answer(&["list"], &[]), golden("list-80"));
}

#[test]
fn no_color_beats_whatever_asks_for_colour_but_the_option() {
    let forced = ("CLICOLOR_FORCE", "1");
    let (plain, coloured) = (golden("172.24.4.6-trace-80"), golden("172.24.4.6-trace-colour"));
    assert_ne!(plain, coloured);
    assert_eq!(trace(&[forced]), coloured);
    assert_eq!(trace(&[forced, ("NO_COLOR", "1")]), plain);
    assert_eq!(
        trace(&[("FORCE_COLOR", "1"), ("NO_COLOR", "1"), ("NETDIAG_WIDTH", "200")]),
        golden("172.24.4.6-trace-200")
    );
    // As no-color.org has it: an empty one does not count.
    assert_eq!(trace(&[forced, ("NO_COLOR", "")]), coloured);
    assert_eq!(answer(&["trace", "172.24.4.6", "--color", "always"], &[("NO_COLOR", "1")]), coloured);
}

#[test]
fn a_locale_without_utf_8_gets_ascii() {
    let ascii = golden("172.24.4.6-trace-ascii");
    assert!(ascii.is_ascii());
    assert_eq!(trace(&[("LC_ALL", "C")]), ascii);
    assert_eq!(trace(&[("LANG", "C.UTF-8")]), golden("172.24.4.6-trace-80"));
    assert_eq!(answer(&["trace", "172.24.4.6", "--ascii"], &[("LANG", "C.UTF-8"), ("NO_COLOR", "1")]), ascii);
}

#[test]
fn a_floating_ip_whose_instance_is_not_here_is_not_said_to_be_unknown() {
    let told = |query: &str| {
        let output = run(&["trace", query], &[]);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let of_another_host = told("172.24.4.9");
    assert!(of_another_host.starts_with("netdiag: no instance \"172.24.4.9\"; there are:\n"), "{of_another_host}");
    let last = of_another_host.lines().last().unwrap();
    assert_eq!(last, "172.24.4.9 is a floating IP here that leads elsewhere: netdiag fip 172.24.4.9");
    let of_nobody = told("172.24.4.66");
    assert!(!of_nobody.contains("netdiag fip"), "{of_nobody}");
}
