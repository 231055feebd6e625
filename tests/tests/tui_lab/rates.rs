//! What passes in flows, counted while somebody looks at them, and not longer.

use netdiag_tests::{Lab, Target, agent, site, terminal::Terminal};

use super::HOST;

/// Where the agent of the test lives on its host.
const HOME: &str = "/run/rates-test";
/// Where netdiag finds it.
pub(crate) const OPTIONS: &str = "--agent-socket /run/rates-test/agent.sock --bpffs /run/rates-test/bpffs/netdiag";

/// Bytes of an echo request that carries a thousand, with its frame.
const FRAME: f64 = 1042.0;

/// An agent that tracks the flows of one instance, and a ping of its gateway: both end with this.
struct Tracked<'l>(&'l Lab);

impl<'l> Tracked<'l> {
    fn start(lab: &'l Lab, target: &Target) -> Self {
        let all = lab.instances(HOST);
        let one = all.iter().find(|one| one["ports"][0]["host_devices"][0] == target.tap.as_str()).expect("its port");
        let (id, address) = (&one["ports"][0]["id"], &one["ports"][0]["address"]["address"]);
        let port = format!(r#"{{"id": {id}, "security_groups": ["group"], "fixed_ips": [{address}]}}"#);
        let way = |direction: &str| format!(r#"{{"direction": "{direction}", "ethertype": "IPv4"}}"#);
        let rules = site::rules(&[way("ingress"), way("egress")]);
        let policy = site::document(&[("group", &rules)], &[port], "");
        let options = format!("--policy-dir {HOME}/policy.d --state-dir {HOME}/state --socket {HOME}/agent.sock");
        let ping = target.inside("ping -q -i 0.1 -s 1000 -w 120 10.0.0.1");
        let line = format!(
            "mkdir -p {HOME}/bpffs {HOME}/policy.d {HOME}/state && mount -t bpf bpf {HOME}/bpffs && \
             echo '{policy}' > {HOME}/policy.d/test.yaml && \
             (setsid {} agent {options} --bpffs {HOME}/bpffs/netdiag > {HOME}/log 2>&1 < /dev/null & \
             echo $! > {HOME}/pids; setsid {ping} > /dev/null 2>&1 < /dev/null & echo $! >> {HOME}/pids)",
            lab.binary()
        );
        let tracked = Self(lab);
        lab.sh(HOST, &line).ok();
        tracked
    }

    /// How many programs the live view holds.
    fn held(&self) -> String {
        let line =
            "for one in $(pgrep -f '[t]ui --interval 1'); do ls -l /proc/$one/fd; done 2>/dev/null | grep -c bpf.prog";
        self.0.sh(HOST, line).out.trim().to_owned()
    }
}

impl Drop for Tracked<'_> {
    fn drop(&mut self) {
        // The lab ends with all its processes; this only spares it the wait.
        drop(self.0.sh(HOST, &format!("kill $(cat {HOME}/pids); umount -l {HOME}/bpffs")));
    }
}

/// Bytes and packets a second of the ping of the gateway, once there are any.
fn rate(screen: &str) -> Option<(f64, f64)> {
    let line = screen.lines().find(|line| line.contains("10.0.0.1 type 8"))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let unit = words.iter().position(|word| *word == "kB")?;
    Some((words.get(unit - 1)?.parse::<f64>().ok()? * 1000.0, words.get(unit + 1)?.parse().ok()?))
}

/// What netdiag takes past the router has no rate of its own, and it is said why, and what its port has.
fn past_the_router(terminal: &Terminal) {
    terminal.text("/");
    terminal.text(super::OUTSIDE);
    terminal.press(&["Enter"]);
    // Below the table, where it is what it is now.
    let told = terminal.until("all flows of this port together");
    assert!(told.contains("past the router before they can be told apart"), "{told}");
    terminal.press(&["Escape"]);
}

/// The flow of a ping has, on a terminal that is wide and watches nothing else, the rate that it has, while its tab is open.
pub(crate) fn check(terminal: &Terminal, lab: &Lab, target: &Target) {
    let tracked = Tracked::start(lab, target);
    terminal.press(&["4"]);
    terminal.until_true("the flow is tracked", |screen| screen.contains("10.0.0.1 type 8"));
    // Ten questions a second, and as many answers. A busy machine may be late with some.
    let right = |screen: &str| {
        let settled = screen.contains("rates of the last 3 s");
        let seen = rate(screen).filter(|_| settled);
        seen.is_some_and(|(bytes, packets)| {
            (17.0..=21.0).contains(&packets) && (bytes / packets - FRAME).abs() < 0.1 * FRAME
        })
    };
    terminal.until_true("what passes in it", right);
    past_the_router(terminal);
    agent::until("packets are counted", || tracked.held() != "0");
    terminal.press(&["1"]);
    agent::until("nothing is counted any more", || tracked.held() == "0");
}
