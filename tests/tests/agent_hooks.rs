//! What `netdiag list -o wide` says of the hooks of a port, beside what the kernel says of the device.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, loaded_programs};
use netdiag_tests::{
    AgentHost, Switch,
    agent::{PATIENCE, names, run},
    program::has_tcx,
};
use rustix::process::Signal;

const POLICY: &str = "
security_groups: [{id: web, security_group_rules: []}]
ports: [{id: p1, security_groups: [web], binding: {device: tap0}}]
";

/// The column of the instance's hooks.
fn listed(host: &AgentHost) -> String {
    let path = |name: &str| host.path(name).display().to_string();
    let (root, socket, switch) = (path("bpffs/netdiag"), path("run/agent.sock"), path("run/db.sock"));
    let nowhere = path("nowhere");
    let where_from = ["--bpffs", &root, "--agent-socket", &socket, "--ovsdb-socket", &switch];
    let more = ["--docker-socket", &nowhere, "--width", "500"];
    let output = host.netdiag(&[&["list", "-o", "wide"], &where_from[..], &more].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let titles = lines.find(|line| line.starts_with("INSTANCE")).unwrap_or_else(|| panic!("no titles: {output:?}"));
    let row: Vec<char> = lines.find(|line| line.starts_with("instance ")).unwrap_or_default().chars().collect();
    // A column that nobody has anything in is left out.
    let Some(start) = titles.find("HOOK") else { return "-".to_owned() };
    let next = titles[start..].find("  ").map_or("", |end| titles[start + end..].trim_start());
    let end = titles.len() - next.len();
    row[start.min(row.len())..end.min(row.len())].iter().collect::<String>().trim().to_owned()
}

/// A program of netdiag's is among these.
fn has(programs: &[ProgramInfo], name: &str) -> bool {
    programs.iter().any(|program| program.name_as_str() == Some(name))
}

/// Where the kernel and its tools show a program of netdiag's at the instance's device.
fn found(name: &str, side: TcAttachType, word: &str) -> Vec<&'static str> {
    let mut found = Vec::new();
    if SchedClassifier::query_tcx("tap0", side).is_ok_and(|(_, programs)| has(&programs, name)) {
        found.push("tcx");
    }
    if run(&format!("tc filter show dev tap0 {word}")).contains(&format!("netdiag:{name}")) {
        found.push("clsact");
    }
    found
}

/// The program at XDP, as `ip` shows it.
fn at_xdp() -> Option<ProgramInfo> {
    let shown = run("ip -d link show tap0");
    let id: u32 = shown.split_once("prog/xdp id ")?.1.split(' ').next()?.parse().ok()?;
    loaded_programs().flatten().find(|program: &ProgramInfo| program.id() == id)
}

/// What the column must be.
fn loaded() -> String {
    let mut egress = found("from_instance", TcAttachType::Ingress, "ingress");
    let ingress = found("to_instance", TcAttachType::Egress, "egress");
    if at_xdp().is_some_and(|program| has(&[program], "from_instance_x")) {
        egress.push("xdp");
    }
    let word = |found: &[&str]| if found.is_empty() { "NONE".to_owned() } else { found.join("+") };
    let (egress, ingress) = (word(&egress), word(&ingress));
    if egress == ingress { egress } else { format!("{egress} out, {ingress} in") }
}

/// Waits until the kernel has something, and the list says so.
#[track_caller]
fn both_say(host: &AgentHost, what: &str) {
    let started = Instant::now();
    // While an agent changes something, what is there may be another thing from one look to the next.
    while [loaded(), listed(host)] != [what, what] {
        let said = [loaded(), listed(host)];
        assert!(started.elapsed() < PATIENCE, "never {what}: {said:?}\n{}", host.log());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_list_says_of_a_port_s_hooks_what_the_kernel_has_at_its_device() {
    if !Switch::is_there() {
        return;
    }
    let Some(mut host) = AgentHost::enter("the_list_says_of_a_port_s_hooks_what_the_kernel_has_at_its_device") else {
        return;
    };
    let switch = Switch::start(&host);
    host.ovsdb.clone_from(&switch.socket);
    host.policy(POLICY);
    host.start_with(&["--full-pass", "3600"]);
    host.wait_for_ports(&["p1"]);
    let usual = if has_tcx(1) { "tcx" } else { "clsact" };
    both_say(&host, usual);
    switch.vsctl("add-br br-int -- set bridge br-int datapath_type=netdev");
    switch.vsctl("add-port br-int tap0");
    both_say(&host, &format!("xdp out, {usual} in"));
    switch.vsctl("del-port br-int tap0");
    both_say(&host, usual);

    // Nobody is there to mend what somebody takes away.
    host.end(Signal::KILL);
    if usual == "tcx" {
        let links = host.root().join("links");
        let device = names(&links).pop().unwrap();
        fs::remove_file(links.join(device).join("in")).unwrap();
        both_say(&host, "NONE out, tcx in");
    } else {
        run("tc filter del dev tap0 ingress");
        both_say(&host, "NONE out, clsact in");
    }
    host.start();
    both_say(&host, usual);
    host.end(Signal::TERM);
    let root = host.root().display().to_string();
    let state = host.path("state").display().to_string();
    assert!(host.netdiag(&["agent", "--detach", "--bpffs", &root, "--state-dir", &state]).status.success());
    assert_eq!((loaded(), listed(&host)), ("NONE".to_owned(), "-".to_owned()));
}
