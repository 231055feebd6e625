//! The live view as somebody at a terminal meets it: the real program in a real terminal (tmux), its screens read back,
//! and the terminal as it was afterwards, however it ends.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use netdiag_tests::{
    AgentHost, agent, private_host, site,
    terminal::{Terminal, binary},
};
use rustix::process::Pid;

/// A snapshot of a real host.
fn fixture(name: &str) -> String {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../userspace/views/tests/fixtures").join(format!("{name}.json"));
    path.canonicalize().expect("find the fixture").display().to_string()
}

/// Every size that is promised to work, one after the other, on every tab, and with something over the table: the screen is as
/// large as the terminal, from the first line to the last, and too small a one says so.
fn every_size(terminal: &Terminal) {
    for (width, height, seen) in
        [(60, 15, "1 Inst 2"), (80, 24, "DROPS"), (132, 43, "HOST END"), (200, 60, "RUNS"), (50, 15, "needs 60 x 15")]
    {
        terminal.resize(width, height);
        let large = |screen: &str| {
            let last = screen.lines().nth(usize::from(height) - 1).unwrap_or_default();
            screen.contains(seen) && (width < 60 || last.contains("? help") && last.contains("q quit"))
        };
        terminal.until_true(&format!("{seen} at {width} x {height}"), large);
        for (key, title) in
            (2..).zip(["Path of ", "Live", "Flows", "Policy", "Agent", "Doctor"]).filter(|_| width >= 60)
        {
            terminal.press(&[&key.to_string()]);
            terminal.until_true(title, |screen| screen.lines().nth(2).is_some_and(|line| line.starts_with(title)));
        }
        terminal.press(&["1"]);
    }
    // What is over the table is laid out anew, too.
    terminal.resize(200, 60);
    terminal.until("RUNS");
    terminal.press(&["?"]);
    terminal.until("help: keys of this tab");
    terminal.resize(60, 15);
    terminal.until_true("the help of a small screen", |screen| {
        let lines: Vec<&str> = screen.lines().collect();
        lines.get(2).is_some_and(|line| line.starts_with('┌') && line.ends_with('┐'))
            && lines.get(12).is_some_and(|line| line.contains("Esc closes") && line.contains(" 1-9 of "))
    });
    terminal.press(&["Escape"]);
    terminal.until_true("no help", |screen| !screen.contains("help: keys"));
}

/// Nothing but the sixteen colours every terminal has is said to it.
fn sixteen_colours(terminal: &Terminal) {
    let said = fs::read(terminal.directory().join("said")).expect("what was written to the terminal");
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("\u{1b}[32;"), "green is said: {said:?}");
    assert!(!["[38;5;", "[48;5;", ";38;5;", ";48;5;", ";38;2;"].iter().any(|other| said.contains(other)), "{said:?}");
}

#[test]
fn one_moves_filters_opens_a_path_freezes_resizes_and_quits() {
    let Some(terminal) = Terminal::open() else { return };
    let said = terminal.directory().join("said").display().to_string();
    terminal.tmux(&["pipe-pane", "-o", &format!("cat > {said}")]);
    terminal.start(&format!("--from {}", fixture("neutron-ovs-compute-1")));
    let first = terminal.until("nova-");
    assert!(first.contains("1 Instances") && first.contains("compute-1"), "{first}");
    terminal.press(&["j", "j"]);
    terminal.text("/");
    terminal.text("172.24.4.6");
    terminal.until("1 of ");
    terminal.press(&["Enter", "Enter"]);
    let path = terminal.until("way out");
    assert!(path.contains("Instances > Path of ") && path.contains("br-int"), "{path}");
    terminal.press(&["Escape"]);
    terminal.until("ADDRESSES");
    terminal.press(&["Escape", "Space"]);
    terminal.until("FROZEN");
    terminal.press(&["Space"]);
    terminal.until_true("no FROZEN", |screen| !screen.contains("FROZEN"));
    every_size(&terminal);
    terminal.press(&["7"]);
    terminal.until("host makes all");
    terminal.press(&["q"]);
    let screen = terminal.ended(0);
    assert!(!screen.contains("1 Instances"), "the screen is left clean: {screen}");
    sixteen_colours(&terminal);
}

/// What a mouse of a terminal says (SGR, as xterm names it): a button, the column and the row from 1, pressed.
fn mouse(terminal: &Terminal, button: u8, column: u16, row: u16) {
    terminal.text(&format!("\u{1b}[<{button};{column};{row}M"));
}

#[test]
fn the_mouse_selects_scrolls_goes_in_and_changes_tabs_and_can_be_left_to_the_terminal() {
    let Some(terminal) = Terminal::open() else { return };
    terminal.start(&format!("--from {}", fixture("docker-1")));
    let first = terminal.until("web-1");
    let row = first.lines().position(|line| line.starts_with("web-1")).expect("its row");
    let row = u16::try_from(row).expect("a row of the screen") + 1;
    let rule = |screen: &str, name: &str| screen.lines().any(|line| line.starts_with(&format!("── {name} ─")));
    mouse(&terminal, 0, 4, row);
    terminal.until_true("it is selected", |screen| rule(screen, "web-1"));
    // The wheel, up: three lines.
    mouse(&terminal, 64, 4, row);
    terminal.until_true("another one is selected", |screen| !rule(screen, "web-1"));
    mouse(&terminal, 0, 4, row);
    mouse(&terminal, 0, 4, row);
    terminal.until("Path of web-1");
    // Behind two tabs.
    mouse(&terminal, 0, 26, 2);
    terminal.until("a snapshot has no events");
    let wanted = terminal.tmux(&["display-message", "-p", "#{mouse_any_flag}"]);
    assert_eq!(String::from_utf8_lossy(&wanted.stdout).trim(), "1");
    terminal.press(&["q"]);
    terminal.ended(0);
    terminal.start(&format!("--no-mouse --from {}", fixture("docker-1")));
    terminal.until("web-1");
    let wanted = terminal.tmux(&["display-message", "-p", "#{mouse_any_flag}"]);
    assert_eq!(String::from_utf8_lossy(&wanted.stdout).trim(), "0");
    terminal.press(&["q"]);
    terminal.ended(0);
}

#[test]
fn without_colour_in_ascii_and_on_a_light_ground_it_is_as_it_is_asked_to_be() {
    let Some(terminal) = Terminal::open() else { return };
    let file = fixture("docker-1");
    // How green and blue are said, and whether there is anything outside of ASCII.
    for (before, options, green, blue, ascii) in [
        ("NO_COLOR=1", "", false, false, false),
        ("TERM=dumb", "", false, false, false),
        ("TERM=linux", "", true, false, false),
        ("LC_ALL=C", "", true, false, true),
        ("A=1", "--ascii --theme light", false, true, true),
        ("NO_COLOR=1", "--color always", true, false, false),
    ] {
        terminal
            .line(&format!("{before} {} tui {options} --from {file}; echo \"ended $?\"", terminal.netdiag().display()));
        let screen = terminal.until("q quit");
        let screen = if screen.contains("web-1") { screen } else { terminal.until("web-1") };
        let has = |shown: &str, colour: &str| {
            shown.contains(&format!("[{colour}m")) || shown.contains(&format!(";{colour}m"))
        };
        // A screen is drawn from its first line to its last, and what is asked about may not be there yet.
        let wanted = [("32", green), ("34", blue)];
        let is_drawn = || wanted.iter().all(|(colour, there)| !there || has(&terminal.styled(), colour));
        agent::until(&format!("{before} {options}: the colours"), is_drawn);
        let shown = terminal.styled();
        let said = |colour: &str| has(&shown, colour);
        let case = format!("{before} {options}: {shown:?}");
        assert_eq!((said("32"), said("34")), (green, blue), "{case}");
        assert_eq!(screen.is_ascii(), ascii, "{case}");
        assert!(shown.contains("[7m") || shown.contains(";7m"), "what is selected is turned around: {case}");
        terminal.press(&["q"]);
        terminal.ended(0);
        terminal.line("clear");
    }
}

#[test]
fn the_last_screen_stays_where_one_asks_for_it() {
    let Some(terminal) = Terminal::open() else { return };
    terminal.start(&format!("--from {}", fixture("docker-1")));
    terminal.until("q quit");
    terminal.press(&["Q"]);
    terminal.ended(0);
    // Its first lines may have been scrolled away by the shell's.
    let screen = String::from_utf8(terminal.tmux(&["capture-pane", "-p", "-S", "-100"]).stdout).unwrap();
    assert!(screen.contains("1 Instances") && screen.contains("web-1"), "{screen}");
}

#[test]
fn a_view_is_written_beside_and_nothing_is_overwritten() {
    let Some(terminal) = Terminal::open() else { return };
    terminal.start(&format!("--from {}", fixture("docker-1")));
    terminal.until("web-1");
    terminal.press(&["e"]);
    terminal.until("write the rows");
    terminal.press(&["j"]);
    terminal.until("written to /");
    terminal.press(&["C-c"]);
    terminal.ended(0);
    let files = fs::read_dir(terminal.directory()).unwrap().map(|entry| entry.unwrap().path());
    let written: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    assert_eq!(written.len(), 1, "{written:?}");
    let list =
        Command::new(terminal.netdiag()).args(["list", "-o", "json", "--from", &fixture("docker-1")]).output().unwrap();
    assert_eq!(fs::read(&written[0]).unwrap(), list.stdout, "as netdiag list -o json prints it");
}

#[test]
fn the_terminal_is_given_back_after_a_panic() {
    let Some(terminal) = Terminal::open() else { return };
    terminal.line("export NETDIAG_TEST_PANIC=1 RUST_BACKTRACE=0");
    terminal.start(&format!("--from {}", fixture("docker-1")));
    terminal.until("web-1");
    terminal.press(&["C-x"]);
    let screen = terminal.ended(101);
    assert!(screen.contains("asked to panic"), "{screen}");
}

#[test]
fn the_terminal_is_given_back_after_signals() {
    use rustix::process::{Signal, kill_process};
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let Some(terminal) = Terminal::open() else { return };
        let netdiag = terminal.netdiag().display();
        let file = fixture("docker-1");
        terminal.line(&format!("sh -c 'echo $$ > pid; exec {netdiag} tui --from {file}'; echo \"ended $?\""));
        terminal.until("web-1");
        kill_process(terminal.pid(), signal).unwrap();
        terminal.ended(130);
    }
}

#[test]
fn it_goes_to_the_shell_and_comes_back() {
    use rustix::process::{Signal, kill_process};
    let Some(terminal) = Terminal::open() else { return };
    let netdiag = terminal.netdiag().display();
    let file = fixture("docker-1");
    terminal.line(&format!("sh -c 'echo $$ > pid; exec {netdiag} tui --from {file}'"));
    terminal.until("web-1");
    terminal.press(&["C-z"]);
    terminal.until_true("the shell", |screen| screen.contains("topped") || screen.contains("Suspended"));
    terminal.line("stty -a | tail -n +2 > between; cmp before between && echo the same meanwhile");
    terminal.until("the same meanwhile\n");
    terminal.line("fg");
    terminal.until("1 Instances");
    terminal.press(&["j", "7"]);
    terminal.until("netdiag doctor on the host");
    // The same from outside.
    kill_process(terminal.pid(), Signal::TSTP).unwrap();
    terminal.until_true("the shell", |screen| !screen.contains("1 Instances"));
    terminal.line("fg");
    terminal.until("1 Instances");
    terminal.press(&["q"]);
    terminal.until_true("the end", |screen| !screen.contains("1 Instances"));
    terminal.line("echo \"ended 0\"");
    terminal.ended(0);
}

#[test]
fn without_a_terminal_it_says_so_and_ends_with_2() {
    let Some(netdiag) = binary() else { return };
    let mut command = Command::new(netdiag);
    command.args(["tui", "--from", &fixture("docker-1")]).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{said}");
    assert!(said.contains("draws on a terminal") && said.contains("netdiag list"), "{said}");
}

#[test]
fn what_cannot_be_shown_is_said_on_the_terminal_as_it_was() {
    let Some(terminal) = Terminal::open() else { return };
    for (words, expected) in [
        ("--from /nonexistent", "No such file"),
        ("--from before", "is not a netdiag snapshot"),
        ("--theme pink", "possible values: auto, dark, light"),
    ] {
        terminal.line("clear");
        terminal.start(words);
        terminal.until(expected);
        terminal.until("ended 2");
    }
}

/// Hundredths of a second of CPU time that a process has used, with the programs it has run and waited for.
fn ticks(pid: Pid) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).expect("the process is there");
    let (_, fields) = text.rsplit_once(')').expect("a stat has a name in brackets");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields[11..15].iter().map(|field| field.parse::<u64>().expect("ticks are a number")).sum()
}

/// How often a still screen is measured at most: who has just begun, and who runs beside, makes it seem to cost more, never less.
const LOOKS: u32 = 6;

#[test]
fn a_still_screen_costs_next_to_nothing() {
    let Some(terminal) = Terminal::open() else { return };
    let netdiag = terminal.netdiag().display();
    let file = fixture("docker-1");
    terminal.line(&format!("sh -c 'echo $$ > pid; exec {netdiag} tui --from {file}'; echo \"ended $?\""));
    terminal.until("web-1");
    sleep(Duration::from_secs(3));
    let pid = terminal.pid();
    let used = (0..LOOKS).map(|_| {
        let before = ticks(pid);
        sleep(Duration::from_secs(10));
        ticks(pid) - before
    });
    // 100 ticks are a second: 10 of them in ten seconds are one hundredth of a core.
    let mut seen = Vec::new();
    let is_cheap = used.inspect(|used| seen.push(*used)).any(|used| used <= 10);
    assert!(is_cheap, "ticks in 10 seconds: {seen:?}");
    terminal.press(&["q"]);
    terminal.ended(0);
}

/// Runs a line of shell that must succeed.
#[track_caller]
fn sh(line: &str) {
    let output = Command::new("sh").args(["-c", line]).output().expect("start a shell");
    assert!(output.status.success(), "{line}: {output:?}");
}

/// A private host with one namespace that is plugged in.
fn plug() {
    sh("ip link set lo up && ip netns add shop && ip link add vshop type veth peer name eth0 netns shop \
        && ip address add 10.7.0.1/24 dev vshop && ip link set vshop up && ip netns exec shop ip link set lo up \
        && ip netns exec shop ip address add 10.7.0.2/24 dev eth0 && ip netns exec shop ip link set eth0 up \
        && ip netns exec shop ip route add default via 10.7.0.1");
}

/// Fifty namespaces that are plugged in.
fn fifty() {
    for number in 1..=50 {
        let (host, inside) = (format!("10.8.{number}.1"), format!("10.8.{number}.2"));
        sh(&format!(
            "ip netns add s{number} && ip link add v{number} type veth peer name eth0 netns s{number} \
             && ip address add {host}/24 dev v{number} && ip link set v{number} up \
             && ip -n s{number} link set lo up && ip -n s{number} address add {inside}/24 dev eth0 \
             && ip -n s{number} link set eth0 up && ip -n s{number} route add default via {host}"
        ));
    }
}

/// Starts the live view, whose process says its id.
fn start_known(terminal: &Terminal, options: &str) {
    let netdiag = terminal.netdiag().display();
    terminal.line(&format!("sh -c 'echo $$ > pid; exec {netdiag} tui {options}'; echo \"ended $?\""));
    terminal.until_true("all of them", |screen| screen.contains("50 instances") || screen.contains("51 instances"));
}

/// What the live view takes of a core while nobody does anything, in hundredths, with the programs it runs.
#[expect(clippy::print_stderr, reason = "what was measured is for whoever measures")]
fn share(terminal: &Terminal, what: &str, span: Duration) -> f64 {
    // Whoever pressed a key is taken for somebody who looks, and the host's own checks are made once.
    sleep(Duration::from_secs(40));
    let (pid, began) = (terminal.pid(), Instant::now());
    let before = ticks(pid);
    sleep(span);
    let (used, took) = (ticks(pid) - before, began.elapsed());
    let screen = terminal.screen();
    let share = Duration::from_millis(10 * used).div_duration_f64(took) * 100.0;
    let head = screen.lines().next().unwrap_or_default();
    eprintln!("{what}: {share:.2} % of a core; {head}");
    assert!(!screen.contains("STALE") && !screen.contains("old:"), "it says that it looks seldom: {screen}");
    share
}

/// A measurement of three minutes in which nothing may happen, of the build that users have: beside other tests, and of a
/// development build, the share would be that of another program on another host. `cargo xtask build --release &&
/// NETDIAG_BIN=$PWD/target/release/netdiag cargo test -p netdiag-tests --test tui_tmux -- --ignored --nocapture`. What every run can
/// see, `a_still_screen_costs_next_to_nothing` does; docs/bench.md has what was measured.
#[test]
#[ignore = "a measurement of three minutes of a quiet host and a release build, by the command above: beside other tests the share is theirs"]
fn a_live_host_of_fifty_namespaces_that_nobody_looks_at_costs_at_most_a_hundredth_of_a_core() {
    if !private_host::enter("a_live_host_of_fifty_namespaces_that_nobody_looks_at_costs_at_most_a_hundredth_of_a_core")
    {
        return;
    }
    let Some(terminal) = Terminal::open() else { return };
    fifty();
    start_known(&terminal, "");
    let share = share(&terminal, "instances", Duration::from_mins(2));
    assert!(share <= 1.0, "{share:.2} %");
    terminal.press(&["q"]);
    terminal.ended(0);
}

/// Ends with what was measured.
struct Traffic(std::process::Child);

impl Drop for Traffic {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The same while the flows of an instance are open, whose rates are counted then: without traffic, with that of an instance that
/// has little to do, and with as much as one ping can make. It is run as the one before.
#[test]
#[ignore = "a measurement of six minutes of a quiet host and a release build, as the one before: beside other tests the share is theirs"]
fn flows_that_are_left_open_cost_at_most_a_hundredth_of_a_core() {
    const PORT: &str = "aa000000-0000-4000-8000-000000000001";
    let Some(mut host) = AgentHost::enter("flows_that_are_left_open_cost_at_most_a_hundredth_of_a_core") else {
        return;
    };
    let Some(terminal) = Terminal::open() else { return };
    fifty();
    let mac = agent::run("ip netns exec instance cat /sys/class/net/eth0/address");
    let port = format!(
        r#"{{"id": "{PORT}", "mac_address": "{}", "fixed_ips": [{{"ip_address": "192.0.2.2"}}],
             "security_groups": ["group"], "binding": {{"device": "tap0"}}}}"#,
        mac.trim()
    );
    let way = |direction: &str| format!(r#"{{"direction": "{direction}", "ethertype": "IPv4"}}"#);
    host.policy(&site::document(&[("group", &site::rules(&[way("ingress"), way("egress")]))], &[port], ""));
    host.start();
    host.wait_for_ports(&[PORT]);
    let socket = host.path("run/agent.sock").display().to_string();
    start_known(&terminal, &format!("--agent-socket {socket} --bpffs {}", host.root().display()));
    let ping = |options: &str| {
        let mut words = vec!["-q"];
        words.extend(options.split(' '));
        words.push("192.0.2.2");
        Traffic(Command::new("ping").args(words).stdout(Stdio::null()).spawn().expect("start ping"))
    };
    let mut shares = Vec::new();
    for (what, options) in [("no traffic", ""), ("20 packets/s", "-i 0.1"), ("2,000 packets/s at most", "-i 0.001")] {
        let _traffic = (!options.is_empty()).then(|| ping(options));
        terminal.press(&["1", "4"]);
        terminal.until_true("rates", |screen| {
            screen.contains("rates of the last") || screen.contains("rates are estimates")
        });
        shares.push(share(&terminal, &format!("flows, {what}"), Duration::from_secs(80)));
        let counted = terminal.screen();
        assert!(counted.contains("rates of") || counted.contains("rates are estimates"), "{counted}");
    }
    terminal.press(&["q"]);
    terminal.ended(0);
    assert!(shares.iter().all(|share| *share <= 1.0), "{shares:?}");
}

#[test]
fn a_live_host_is_seen_as_it_changes() {
    if !private_host::enter("a_live_host_is_seen_as_it_changes") {
        return;
    }
    let Some(terminal) = Terminal::open() else { return };
    plug();
    terminal.start("--interval 1 --record day.jsonl");
    let first = terminal.until("shop");
    assert!(first.contains("live") && first.contains("10.7.0.2"), "{first}");
    terminal.press(&["Enter"]);
    let path = terminal.until("way out");
    assert!(path.contains("vshop") && path.contains("eth0"), "{path}");
    sh("ip netns exec shop ip link set eth0 down");
    terminal.until("BROKEN");
    sh("ip netns add second && ip link add vsecond type veth peer name eth0 netns second && ip link set vsecond up");
    terminal.press(&["Escape"]);
    terminal.until("second");
    terminal.press(&["3"]);
    terminal.until("no agent answers");
    terminal.press(&["7"]);
    terminal.until("CAP_NET_ADMIN");
    terminal.press(&["q"]);
    terminal.until("A recording is being made");
    terminal.press(&["q"]);
    terminal.ended(0);
    terminal.line("clear");
    terminal.start("--from day.jsonl");
    terminal.until("replay x1 ");
    terminal.press(&["+", "+"]);
    terminal.until("replay x4 ");
    terminal.until("second");
    terminal.press(&[",", ",", ",", ",", ",", ","]);
    terminal.press(&["q"]);
    terminal.ended(0);
}
