//! The live view as somebody at a terminal meets it: the real program in a real terminal (tmux), its screens read back,
//! and the terminal as it was afterwards, however it ends.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use netdiag_tests::{
    private_host,
    terminal::{Terminal, binary},
};
use rustix::process::Pid;

/// A snapshot of a real host.
fn fixture(name: &str) -> String {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../userspace/views/tests/fixtures").join(format!("{name}.json"));
    path.canonicalize().expect("find the fixture").display().to_string()
}

#[test]
fn one_moves_filters_opens_a_path_freezes_resizes_and_quits() {
    let Some(terminal) = Terminal::open() else { return };
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
    for (width, height, expected) in [(60, 15, "1 Inst 2"), (50, 15, "needs 60 x 15"), (160, 40, "HOST END")] {
        terminal.resize(width, height);
        terminal.until(expected);
    }
    terminal.press(&["?"]);
    terminal.until("help: keys of this tab");
    terminal.press(&["Escape", "7"]);
    terminal.until("netdiag doctor on the host");
    terminal.press(&["q"]);
    let screen = terminal.ended(0);
    assert!(!screen.contains("1 Instances"), "the screen is left clean: {screen}");
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

#[test]
fn a_still_screen_costs_next_to_nothing() {
    let Some(terminal) = Terminal::open() else { return };
    let netdiag = terminal.netdiag().display();
    let file = fixture("docker-1");
    terminal.line(&format!("sh -c 'echo $$ > pid; exec {netdiag} tui --from {file}'; echo \"ended $?\""));
    terminal.until("web-1");
    sleep(Duration::from_secs(3));
    let pid = terminal.pid();
    let before = ticks(pid);
    sleep(Duration::from_secs(10));
    // 100 ticks are a second: 10 of them in ten seconds are one hundredth of a core.
    let used = ticks(pid) - before;
    assert!(used <= 10, "{used} ticks in 10 seconds");
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

/// A measurement of three minutes in which nothing may happen, of the build that users have: beside other tests, and of a
/// development build, the share would be that of another program on another host. `cargo xtask build --release &&
/// NETDIAG_BIN=$PWD/target/release/netdiag cargo test -p netdiag-tests --test tui_tmux -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement of a release build, of three minutes"]
fn a_live_host_of_fifty_namespaces_that_nobody_looks_at_costs_at_most_a_hundredth_of_a_core() {
    if !private_host::enter("a_live_host_of_fifty_namespaces_that_nobody_looks_at_costs_at_most_a_hundredth_of_a_core")
    {
        return;
    }
    let Some(terminal) = Terminal::open() else { return };
    for number in 1..=50 {
        let (host, inside) = (format!("10.8.{number}.1"), format!("10.8.{number}.2"));
        sh(&format!(
            "ip netns add s{number} && ip link add v{number} type veth peer name eth0 netns s{number} \
             && ip address add {host}/24 dev v{number} && ip link set v{number} up \
             && ip -n s{number} link set lo up && ip -n s{number} address add {inside}/24 dev eth0 \
             && ip -n s{number} link set eth0 up && ip -n s{number} route add default via {host}"
        ));
    }
    let netdiag = terminal.netdiag().display();
    terminal.line(&format!("sh -c 'echo $$ > pid; exec {netdiag} tui'; echo \"ended $?\""));
    terminal.until("s49");
    // Whoever started it is taken for somebody who looks, and the host's own checks are made once.
    sleep(Duration::from_secs(40));
    let (pid, began) = (terminal.pid(), Instant::now());
    let before = ticks(pid);
    sleep(Duration::from_mins(2));
    let (used, took) = (ticks(pid) - before, began.elapsed());
    let screen = terminal.screen();
    let share = Duration::from_millis(10 * used).div_duration_f64(took) * 100.0;
    writeln!(std::io::stderr(), "{share:.2} % of a core; {}", screen.lines().next().unwrap_or_default()).unwrap();
    assert!(share <= 1.0, "{share:.2} %: {screen}");
    assert!(!screen.contains("STALE") && !screen.contains("old:"), "it says that it looks seldom: {screen}");
    terminal.press(&["q"]);
    terminal.ended(0);
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
