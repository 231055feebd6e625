//! The live view on a compute host as Neutron leaves it, with real packets: found, followed, seen to die, written, counted by flow.

use std::{fs, thread};

use netdiag_tests::{Lab, Target, require_ebpf, require_programs, terminal::Terminal};

/// What passes in flows.
#[path = "tui_lab/rates.rs"]
mod rates;

/// Where the instance runs.
const HOST: &str = "compute-1";

/// An address of the outside world, behind the gateway of the external network.
const OUTSIDE: &str = "203.0.113.10";

/// Ends the traffic, however the test ends.
struct Enough<'p>(&'p str);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        // Without it the lab takes its processes with it.
        fs::write(self.0, "").ok();
    }
}

/// Starts the live view on the host, and waits for its first look.
fn start(terminal: &Terminal, lab: &Lab) {
    terminal.resize(132, 43);
    let line = format!("cd /tmp && exec {} tui --interval 1 {}", lab.binary(), rates::OPTIONS);
    terminal.line(&format!("{}; echo \"ended $?\"", lab.typed(HOST, &line)));
    let first = terminal.until("nova-");
    for seen in ["1 Instances", "2 Path", "● live", HOST] {
        assert!(first.contains(seen), "{seen}: {first}");
    }
}

/// Filters the instances by its floating IP, and opens its path.
fn open_path(terminal: &Terminal, target: &Target) {
    terminal.text("/");
    terminal.text(&format!("ip:{}", target.floating));
    terminal.until("1 of ");
    terminal.press(&["Enter", "Enter"]);
    let path = terminal.until("way out");
    for part in ["Instances > Path of ", &target.tap, &target.qg, "br-int", "SNAT to"] {
        assert!(path.contains(part), "{part}: {path}");
    }
}

/// Packets are followed while they come, and where they are made to die it is said.
fn follow(terminal: &Terminal, lab: &Lab, target: &Target) {
    terminal.press(&["l"]);
    terminal.until("WATCHING PACKETS");
    let seen = terminal.until_true("how long packets take", |screen| screen.contains("seen, p50 "));
    assert!(!seen.contains("died"), "a healthy path: {seen}");
    let rule = |verb: &str| target.in_router(&format!("iptables -{verb} FORWARD -s {} -p icmp -j DROP", target.fixed));
    lab.sh(HOST, &rule("I")).ok();
    // How many, and why.
    let counted = |line: &str| {
        let (number, why) = line.split_once(" died here: ")?;
        let number: u64 = number.rsplit(' ').next()?.parse().ok()?;
        Some(number > 0 && why.contains("icmp"))
    };
    let died = terminal.until_true("packets that died here, and why", |screen| {
        screen.lines().filter_map(counted).any(|is_counted| is_counted)
    });
    lab.sh(HOST, &rule("D")).ok();
    let marked = died.lines().any(|line| line.contains('✗') && line.contains(" o"));
    assert!(marked, "the hop is marked: {died}");
}

/// The packets are written, and another program finds them in the file, at devices, with what became of them.
fn write(terminal: &Terminal, lab: &Lab) {
    terminal.press(&["3"]);
    terminal.text("/");
    terminal.text("verdict:dropped");
    terminal.until("verdict:dropped  ");
    terminal.until_true("a packet that was dropped", |screen| screen.contains("✗ DROPPED"));
    terminal.press(&["Enter", "e", "p"]);
    let said = terminal.until("written to /tmp/netdiag-live-");
    let start = said.find("/tmp/netdiag-live-").expect("a file");
    let file: String = said[start..].chars().take_while(|character| !character.is_whitespace()).collect();
    let fields = "-T fields -e frame.interface_name -e frame.comment -e _ws.col.Info";
    let read = lab.sh(HOST, &format!("tshark -r {file} {fields} 2>/dev/null; rm {file}")).out;
    let first = read.lines().next().unwrap_or_default();
    assert!(first.contains('@') && first.contains("DROPPED") && first.contains("Echo (ping)"), "{read}");
    terminal.press(&["Escape"]);
}

/// Frozen, the screen stays, and says how much has come since.
fn freeze(terminal: &Terminal) {
    terminal.press(&["Space"]);
    terminal.until("FROZEN");
    terminal.until_true("what has come since", |screen| screen.contains("behind") && !screen.contains(" and 0 events"));
    terminal.press(&["Space"]);
    terminal.until_true("no FROZEN", |screen| !screen.contains("FROZEN"));
}

#[test]
fn on_a_compute_host_packets_of_an_instance_are_found_followed_seen_to_die_written_and_counted() {
    if !(require_ebpf() && require_programs(&["tshark"])) {
        return;
    }
    let Some(terminal) = Terminal::open() else { return };
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let target = Target::of(&lab, HOST);
    let enough = terminal.directory().join("enough").display().to_string();
    let pings =
        format!("until test -e {enough}; do {}; done", target.inside(&format!("ping -q -c 5 -i 0.1 -W 1 {OUTSIDE}")));
    thread::scope(|scope| {
        scope.spawn(|| lab.sh(HOST, &pings));
        let _enough = Enough(&enough);
        start(&terminal, &lab);
        open_path(&terminal, &target);
        follow(&terminal, &lab, &target);
        write(&terminal, &lab);
        freeze(&terminal);
        terminal.press(&["2"]);
        terminal.resize(60, 15);
        let narrow = terminal.until("1 Inst 2 Path 3 Live");
        assert!(narrow.contains("P99"), "one hop a line, with its times: {narrow}");
        terminal.resize(132, 43);
        terminal.press(&["l"]);
        rates::check(&terminal, &lab, &target);
        terminal.press(&["q"]);
        terminal.ended(0);
    });
}
