//! Floating IPs of an agent, found and its own, on a real kernel with real traffic.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    cell::Cell,
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use netdiag_tests::{
    agent::{PATIENCE, command, names, run, until},
    floating::{Connection, FIXED, FLOATING, FloatingHost, OPEN, OTHER, OUTSIDE, QG, ROUTER, SECOND},
    require_programs,
};
use rustix::process::Signal;

/// Long enough for a datagram.
const A_MOMENT: Duration = Duration::from_millis(300);
/// Packets one after the other that all go the same way.
const IN_A_ROW: u64 = 10;
/// Long enough for what must not happen.
const A_WHILE: Duration = Duration::from_secs(2);

/// The policy with a floating IP of netdiag's own.
fn own(address: Ipv4Addr, port: &str) -> String {
    format!("{OPEN}\nfloatingips:\n  - {{id: f, floating_ip_address: {address}, port_id: {port}, device: ext0}}\n")
}

fn enter(test: &str) -> Option<FloatingHost> {
    if !require_programs(&["iptables", "iptables-restore", "iptables-legacy", "conntrack"]) {
        return None;
    }
    FloatingHost::enter(test)
}

/// A host with a router, and an agent that leads the router's floating IP past it.
fn enter_with_router(test: &str) -> Option<FloatingHost> {
    let mut site = enter(test)?;
    site.add_router();
    site.host.policy(OPEN);
    site.host.start();
    site.wait_until_fast(FLOATING);
    Some(site)
}

/// The MAC address in what `ip link show` prints.
fn mac(shown: &str) -> String {
    shown.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
}

// === found ===

#[tokio::test(flavor = "multi_thread")]
async fn a_floating_ip_of_a_router_goes_past_it_in_both_directions() {
    let test = "a_floating_ip_of_a_router_goes_past_it_in_both_directions";
    let Some(site) = enter_with_router(test) else { return };
    assert!(site.pings("outside", FLOATING).await, "{:#}", site.floating(FLOATING));
    let mut inward = site.connect(("outside", "instance"), FLOATING, 7).await;
    assert!(inward.works(PATIENCE));
    let mut outward = site.connect(("instance", "outside"), OUTSIDE, 8).await;
    assert!(outward.works(PATIENCE));
    assert_eq!(outward.seen_as().ip(), FLOATING);
    let udp = site.datagrams(("instance", "outside"), OUTSIDE, 9).await;
    assert_eq!(udp.exchange().unwrap().ip(), FLOATING);
    assert_eq!(site.tracked(Some(ROUTER), FLOATING), Vec::<String>::new(), "the router has seen nothing");
    let floating = site.floating(FLOATING);
    assert!(site.packets(FLOATING, "ingress", "fast") > 8, "{floating:#}");
    assert!(site.packets(FLOATING, "egress", "fast") > 8, "{floating:#}");
    assert_eq!(floating["port_id"], "p1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_the_router_knows_stays_with_it_and_a_new_one_goes_past_it() {
    let test = "a_flow_the_router_knows_stays_with_it_and_a_new_one_goes_past_it";
    let Some(mut site) = enter(test) else { return };
    site.add_router();
    // It must not be over before the agent has begun.
    site.router("sysctl -qw net.netfilter.nf_conntrack_udp_timeout=600");
    let old = site.datagrams(("instance", "outside"), OUTSIDE, 9).await;
    assert_eq!(old.exchange().unwrap().ip(), FLOATING);
    let mut inward = site.connect(("outside", "instance"), FLOATING, 7).await;
    let mut outward = site.connect(("instance", "outside"), OUTSIDE, 8).await;
    assert!(inward.works(PATIENCE) && outward.works(PATIENCE));
    site.host.policy(OPEN);
    site.host.start();
    site.wait_until_fast(FLOATING);
    let known = site.tracked(Some(ROUTER), FLOATING).len();
    // What the instance sends in the middle of a connection is no new one.
    assert!(old.exchange().is_some() && outward.works(PATIENCE) && inward.works(PATIENCE), "all go on");
    assert_eq!(site.packets(FLOATING, "egress", "fast"), 0, "{:#}", site.floating(FLOATING));
    let new = site.datagrams(("instance", "outside"), OUTSIDE, 10).await;
    assert_eq!(new.exchange().unwrap().ip(), FLOATING);
    assert_eq!(site.packets(FLOATING, "egress", "fast"), 1, "{:#}", site.floating(FLOATING));
    assert_eq!(site.tracked(Some(ROUTER), FLOATING).len(), known, "the router has not seen it");
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_be_slow_it_begins_flows_at_its_router_and_ends_those_it_has_across_a_restart() {
    let test = "told_to_be_slow_it_begins_flows_at_its_router_and_ends_those_it_has_across_a_restart";
    let Some(mut site) = enter_with_router(test) else { return };
    let socket = site.host.path("run/agent.sock").display().to_string();
    let mut fast = site.connect(("outside", "instance"), FLOATING, 7).await;
    assert!(fast.works(PATIENCE));
    let said = site.host.netdiag(&["fip", "slow", "203.0.113.50", "--socket", &socket]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert_eq!(site.floating(FLOATING)["state"], "slow");
    assert_eq!(site.host.end(Signal::TERM), Some(0));
    site.host.start();
    site.wait_for(FLOATING, "slow still", |floating| floating["state"] == "slow");
    let mut slow = site.connect(("outside", "instance"), FLOATING, 8).await;
    assert!(slow.works(PATIENCE) && fast.works(PATIENCE));
    let tracked = site.tracked(Some(ROUTER), FLOATING);
    assert!(tracked.iter().any(|line| line.contains("dport=8 ")), "{tracked:#?}");
    assert!(!tracked.iter().any(|line| line.contains("dport=7 ")), "{tracked:#?}");
    assert!(site.packets(FLOATING, "ingress", "draining") > 0, "{:#}", site.floating(FLOATING));
    let said = site.host.netdiag(&["fip", "fast", "--all", "--socket", &socket]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert_eq!(site.floating(FLOATING)["state"], "fast");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_for_a_floating_ip_that_changes_nothing_now_says_so() {
    let test = "an_order_for_a_floating_ip_that_changes_nothing_now_says_so";
    let Some(site) = enter_with_router(test) else { return };
    let socket = site.host.path("run/agent.sock").display().to_string();
    let order = |words: &[&str]| {
        let said = site.host.netdiag(&[&["fip"], words, &["--socket", &socket]].concat());
        (said.status.code(), String::from_utf8_lossy(&said.stderr).into_owned())
    };
    let (code, why) = order(&["slow", "nobody"]);
    assert!(code == Some(4) && why.contains("there are: 203.0.113.50"), "{code:?} {why}");
    for way in ["slow", "fast"] {
        // Mistyped, or not there yet.
        let (code, why) = order(&[way, "203.0.113.51"]);
        assert!(code == Some(6) && why.contains("no floating IP of this host now; there are: 203.0.113.50"), "{why}");
    }
    assert_eq!(order(&["slow", "--all"]).0, Some(0));
    let (code, why) = order(&["fast", "203.0.113.50"]);
    assert!(code == Some(2) && why.contains("all floating IPs were told to be slow"), "{code:?} {why}");
    assert_eq!(order(&["fast", "--all"]).0, Some(0));
    assert_eq!(order(&["slow", "203.0.113.50"]).0, Some(0), "one that is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_while_flows_run_loses_none_of_them() {
    let test = "an_agent_that_is_killed_while_flows_run_loses_none_of_them";
    let Some(mut site) = enter_with_router(test) else { return };
    let mut inward = site.connect(("outside", "instance"), FLOATING, 7).await;
    let mut outward = site.connect(("instance", "outside"), OUTSIDE, 8).await;
    for pause in [0, 30, 150, 400] {
        site.host.end(Signal::KILL);
        assert!(inward.works(PATIENCE) && outward.works(PATIENCE), "they go on while nobody is there");
        site.host.start();
        thread::sleep(Duration::from_millis(pause));
        assert!(inward.works(PATIENCE) && outward.works(PATIENCE), "and under the next agent");
    }
    site.wait_until_fast(FLOATING);
    assert_eq!(site.tracked(Some(ROUTER), FLOATING), Vec::<String>::new());
}

/// A connection of the instance to somebody outside, begun past the router.
async fn leaves_past_the_router(site: &FloatingHost) -> Connection {
    // The router asks for its gateway when somebody goes there, and until then what goes there is its own.
    let started = Instant::now();
    while site.packets(FLOATING, "egress", "fast") == 0 {
        assert!(started.elapsed() < PATIENCE, "{:#}", site.floating(FLOATING));
        assert!(site.pings("instance", OUTSIDE).await);
    }
    let mut stream = site.connect(("instance", "outside"), OUTSIDE, 8).await;
    assert!(stream.works(PATIENCE));
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_another_mac_address_is_followed() {
    let test = "a_gateway_with_another_mac_address_is_followed";
    let Some(site) = enter_with_router(test) else { return };
    let mut stream = leaves_past_the_router(&site).await;
    let before = site.packets(FLOATING, "egress", "fast");
    site.from_outside("ip link set eth0 address 02:00:00:00:99:01");
    // The router hears of it as of any neighbour that asks for it.
    assert!(site.pings("outside", Ipv4Addr::new(203, 0, 113, 20)).await);
    assert!(stream.works(PATIENCE));
    let started = Instant::now();
    while site.packets(FLOATING, "egress", "fast") <= before {
        assert!(stream.works(PATIENCE) && started.elapsed() < PATIENCE, "{:#}", site.floating(FLOATING));
    }
    is_past_the_router(&site);
}

/// No connection of the floating IP is known to the router, not even as one it was told of.
#[track_caller]
fn is_past_the_router(site: &FloatingHost) {
    let tracked = site.tracked(Some(ROUTER), FLOATING);
    assert!(!tracked.iter().any(|line| line.starts_with("tcp")), "{tracked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_gets_another_mac_address_and_tells_nobody_is_found_by_the_router_meanwhile() {
    let test = "a_gateway_that_gets_another_mac_address_and_tells_nobody_is_found_by_the_router_meanwhile";
    let Some(mut site) = enter(test) else { return };
    // A flow that came to the router unprepared would get another port, and be lost.
    site.random = true;
    site.add_router();
    site.host.policy(OPEN);
    site.host.start_with(&["--full-pass", "3600"]);
    site.wait_until_fast(FLOATING);
    let mut stream = leaves_past_the_router(&site).await;
    is_past_the_router(&site);
    let old = mac(&site.from_outside("ip -o link show dev eth0"));
    site.from_outside("ip link set eth0 address 02:00:00:00:99:01");
    // The router asks the one it knows, who is not there any more. That takes seconds, unless it is told to be quick.
    for setting in ["ucast_solicit=1", "retrans_time_ms=100"] {
        site.router(&format!("sysctl -qw net.ipv4.neigh.{QG}.{setting}"));
    }
    site.router(&format!("ip neigh replace 203.0.113.1 lladdr {old} dev {QG} nud probe"));
    // Until somebody needs it nobody asks everybody. A flow that does comes to the router, which has been told of it.
    assert!(stream.works(PATIENCE));
    let tracked = site.tracked(Some(ROUTER), FLOATING);
    assert!(tracked.iter().any(|line| line.starts_with("tcp") && line.contains("dport=8 ")), "{tracked:#?}");
    let gone = || ["fast", "unresolved-neighbour"].map(|way| site.packets(FLOATING, "egress", way));
    let started = Instant::now();
    loop {
        let before = gone();
        assert!(stream.works(PATIENCE) && started.elapsed() < PATIENCE, "{:#}", site.floating(FLOATING));
        let after = gone();
        if after[0] > before[0] && after[1] == before[1] {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_outside_may_be_seen_for_a_while_and_nothing_changes() {
    let test = "who_is_outside_may_be_seen_for_a_while_and_nothing_changes";
    let Some(site) = enter_with_router(test) else { return };
    let mut inward = site.connect(("outside", "instance"), FLOATING, 7).await;
    assert!(inward.works(PATIENCE));
    // The far end of the network card is in a namespace of this machine, which is seen while a process is in it.
    let sleep = || Command::new("sleep").arg("1000").spawn();
    let mut seen = site.namespace("outside").run(sleep).await.unwrap().unwrap();
    // Another floating IP, so that it is known that the agent has looked.
    site.rules("iptables-restore", &[(FLOATING, FIXED), (OTHER, SECOND)]);
    site.router(&format!("ip addr add {OTHER}/32 dev {QG}"));
    let devices = [OTHER, FLOATING].map(|address| site.wait_until_fast(address)["device"].clone());
    assert_eq!(devices, ["ext0", "ext0"]);
    let before = site.packets(FLOATING, "ingress", "fast");
    assert!(inward.works(PATIENCE));
    assert!(site.packets(FLOATING, "ingress", "fast") > before, "{:#}", site.floating(FLOATING));
    seen.kill().unwrap();
    seen.wait().unwrap();
    site.router(&format!("ip addr del {OTHER}/32 dev {QG}"));
    site.rules("iptables-restore", &[(FLOATING, FIXED)]);
    site.wait_for(OTHER, "gone", serde_json::Value::is_null);
    assert!(inward.works(PATIENCE));
    is_past_the_router(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_the_router_has_not_heard_of_for_a_while_is_asked_for() {
    let test = "a_gateway_the_router_has_not_heard_of_for_a_while_is_asked_for";
    let Some(site) = enter_with_router(test) else { return };
    let mac = mac(&site.from_outside("ip -o link show dev eth0"));
    let stale = format!("ip neigh replace 203.0.113.1 lladdr {mac} dev qg-22222222-22 nud stale");
    site.router(&stale);
    let neighbour = || site.router("ip neigh show 203.0.113.1 dev qg-22222222-22");
    until("the gateway answers", || neighbour().contains("REACHABLE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_goes_takes_its_floating_ips_along_and_one_that_comes_again_is_led_past_again() {
    let test = "a_router_that_goes_takes_its_floating_ips_along_and_one_that_comes_again_is_led_past_again";
    let Some(site) = enter_with_router(test) else { return };
    run(&format!("ip netns del {ROUTER}"));
    // The agent watches it from inside, and must not keep it alive.
    until("the router is gone", || !command("ip link show dev tapqg").status.success());
    site.wait_for(FLOATING, "gone", serde_json::Value::is_null);
    assert!(!site.pings_soon("outside", FLOATING).await);
    site.build_router(&[(FLOATING, FIXED)]);
    site.wait_until_fast(FLOATING);
    until("the instance answers again", || {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(site.pings_soon("outside", FLOATING)))
    });
}

/// Rules that change by `tool` say nothing, or do.
async fn rules_are_followed(test: &str, tool: &str) {
    let Some(mut site) = enter(test) else { return };
    site.add_router();
    site.router("iptables -t nat -F");
    site.router("iptables -t nat -X");
    site.rules(&format!("{tool}-restore"), &[(FLOATING, FIXED)]);
    site.host.policy(OPEN);
    site.host.start_with(&["--full-pass", "3600"]);
    site.wait_until_fast(FLOATING);
    let mut stream = site.connect(("outside", "instance"), FLOATING, 7).await;
    assert!(stream.works(PATIENCE));
    // The floating IP moves to the other instance.
    site.rules(&format!("{tool}-restore"), &[(FLOATING, SECOND)]);
    site.wait_for(FLOATING, "moved", |floating| floating["port_id"] == "p2" && floating["state"] == "fast");
    let mut moved = site.connect(("outside", "second"), FLOATING, 8).await;
    assert!(moved.works(PATIENCE) && !stream.works(A_WHILE), "exact from the next packet");
    site.router(&format!("{tool} -t nat -F neutron-l3-agent-float-snat"));
    site.wait_for(FLOATING, "broken", |floating| floating["state"] == "broken" && floating["reason"].is_string());
    site.rules(&format!("{tool}-restore"), &[(FLOATING, FIXED)]);
    site.wait_for(FLOATING, "back", |floating| floating["port_id"] == "p1" && floating["state"] == "fast");
    assert!(site.pings("outside", FLOATING).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_a_router_that_change_by_nftables_are_followed_at_once() {
    rules_are_followed("rules_of_a_router_that_change_by_nftables_are_followed_at_once", "iptables-nft").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_a_router_that_change_by_legacy_iptables_are_followed_too() {
    rules_are_followed("rules_of_a_router_that_change_by_legacy_iptables_are_followed_too", "iptables-legacy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_to_leave_routers_alone_does_and_one_that_ends_by_detaching_leaves_nothing() {
    let test = "an_agent_that_is_to_leave_routers_alone_does_and_one_that_ends_by_detaching_leaves_nothing";
    let Some(mut site) = enter_with_router(test) else { return };
    let links = site.host.root().join("links");
    let external = |site: &FloatingHost| {
        let devices = names(&site.host.root().join("links")).into_iter();
        devices.filter(|device| names(&links.join(device)).contains(&"external".to_owned())).count()
    };
    assert_eq!(external(&site), 1);
    assert_eq!(site.host.end(Signal::TERM), Some(0));
    site.host.start_with(&["--floating-ips", "off"]);
    until("nothing is attached outside", || external(&site) == 0);
    assert!(site.pings("outside", FLOATING).await);
    assert!(!site.tracked(Some(ROUTER), FLOATING).is_empty(), "through the router");
    assert_eq!(site.host.end(Signal::TERM), Some(0));
    site.host.start();
    site.wait_until_fast(FLOATING);
    assert_eq!(site.host.end(Signal::KILL), None);
    let (root, state) = (site.host.root().display().to_string(), site.host.path("state").display().to_string());
    let detached = site.host.netdiag(&["agent", "--detach", "--bpffs", &root, "--state-dir", &state]);
    assert_eq!(detached.status.code(), Some(0), "{detached:?}");
    assert!(!site.host.root().exists());
    assert!(site.pings("outside", FLOATING).await, "through the router again");
}

// === own ===

#[tokio::test(flavor = "multi_thread")]
async fn a_floating_ip_of_netdiags_own_is_served_announced_moved_and_withdrawn() {
    let test = "a_floating_ip_of_netdiags_own_is_served_announced_moved_and_withdrawn";
    let Some(mut site) = enter(test) else { return };
    site.be_router();
    let before = run("iptables-save");
    let somebody_else = "ip neigh replace 203.0.113.50 lladdr 02:00:00:00:99:99 dev eth0 nud stale";
    site.from_outside(somebody_else);
    site.host.policy(&own(FLOATING, "p1"));
    site.host.start();
    site.wait_until_fast(FLOATING);
    let mac = mac(&run("ip -o link show dev ext0"));
    until("the outside has heard who has it", || site.from_outside("ip neigh show 203.0.113.50").contains(&mac));
    let mut stream = site.connect(("outside", "instance"), FLOATING, 7).await;
    let mut outward = site.connect(("instance", "outside"), OUTSIDE, 8).await;
    assert!(stream.works(PATIENCE) && outward.works(PATIENCE));
    assert_eq!(outward.seen_as().ip(), FLOATING);
    assert!(site.packets(FLOATING, "ingress", "fast") > 2, "{:#}", site.floating(FLOATING));
    assert_eq!(site.tracked(None, FLOATING), Vec::<String>::new(), "the host has seen nothing");

    site.host.policy(&own(FLOATING, "p2"));
    site.wait_for(FLOATING, "moved", |floating| floating["port_id"] == "p2" && floating["state"] == "fast");
    let mut moved = site.connect(("outside", "second"), FLOATING, 9).await;
    assert!(moved.works(PATIENCE) && !stream.works(A_WHILE));

    site.host.policy(OPEN);
    site.wait_for(FLOATING, "withdrawn", serde_json::Value::is_null);
    assert!(!site.pings_soon("outside", FLOATING).await);
    assert!(!run("ip addr show dev ext0").contains("203.0.113.50"));
    let counters = |text: &str| text.lines().filter(|line| !line.starts_with(['#', ':'])).count();
    assert_eq!(counters(&run("iptables-save")), counters(&before));
    assert!(!run("iptables-save").contains("netdiag"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_past_the_host_works_through_it_and_security_groups_hold_either_way() {
    let test = "what_is_not_past_the_host_works_through_it_and_security_groups_hold_either_way";
    let Some(mut site) = enter(test) else { return };
    site.be_router();
    site.host.policy(&own(FLOATING, "p1"));
    site.host.start();
    site.wait_until_fast(FLOATING);
    site.host.ok("PUT", "/v1/floatingips/f/way", r#"{"slow": true}"#);
    let mut slow = site.connect(("outside", "instance"), FLOATING, 7).await;
    assert!(slow.works(PATIENCE), "Docker's policy for what is forwarded does not drop it");
    assert!(!site.tracked(None, FLOATING).is_empty());
    // The host, and an instance beside it, reach it as well.
    assert!(site.pings("second", FLOATING).await, "by the host, which the answer comes back through");
    site.host.ok("PUT", "/v1/floatingips/all/way", r#"{"slow": false}"#);
    assert!(site.pings("outside", FLOATING).await);
    let server = site.namespace("instance").run(|| UdpSocket::bind("0.0.0.0:9")).await.unwrap().unwrap();
    server.set_read_timeout(Some(A_MOMENT)).unwrap();
    let bind = || [(); 3].map(|()| UdpSocket::bind("0.0.0.0:0").unwrap());
    let [before, fast, through] = site.namespace("outside").run(bind).await.unwrap();
    // Each has a number: what comes late is not taken for what is sent next.
    let number = Cell::new(0_u32);
    let hears = |client: &UdpSocket| {
        let said = number.replace(number.get() + 1).to_be_bytes();
        let mut heard = [0; 4];
        let sent = client.send_to(&said, (FLOATING, 9)).is_ok();
        sent && std::iter::from_fn(|| server.recv(&mut heard).ok().map(|_| heard)).any(|heard| heard == said)
    };
    until("the instance hears", || hears(&before));
    let closed = own(FLOATING, "p1").replace("{direction: ingress, ethertype: IPv4}", "");
    site.host.policy(&closed.replace("      - \n", ""));
    until("the instance is closed", || {
        tokio::task::block_in_place(|| {
            !tokio::runtime::Handle::current().block_on(site.pings_soon("outside", FLOATING))
        })
    });
    assert!(!slow.works(A_WHILE));
    // Nor does it hear what it could not answer.
    assert!(!hears(&before) && !hears(&fast), "past the host");
    site.host.ok("PUT", "/v1/floatingips/f/way", r#"{"slow": true}"#);
    assert!(!hears(&through), "through it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_knows_what_is_netdiags_own_and_detaching_takes_all_of_it_away() {
    let test = "a_restart_knows_what_is_netdiags_own_and_detaching_takes_all_of_it_away";
    let Some(mut site) = enter(test) else { return };
    site.be_router();
    site.host.policy(&own(FLOATING, "p1"));
    site.host.start();
    site.wait_until_fast(FLOATING);
    let mut stream = site.connect(("outside", "instance"), FLOATING, 7).await;
    site.host.end(Signal::KILL);
    assert!(stream.works(PATIENCE), "it is served without the agent");
    // It is another one when the next agent starts.
    site.host.policy(&own(OTHER, "p1"));
    site.host.start();
    site.wait_until_fast(OTHER);
    assert!(site.pings("outside", OTHER).await && !site.pings_soon("outside", FLOATING).await);
    assert_eq!(run("iptables-save").matches("-A POSTROUTING -j netdiag-float-snat").count(), 1);
    site.host.end(Signal::KILL);
    let (root, state) = (site.host.root().display().to_string(), site.host.path("state").display().to_string());
    let detached = site.host.netdiag(&["agent", "--detach", "--bpffs", &root, "--state-dir", &state]);
    assert_eq!(detached.status.code(), Some(0), "{detached:?}");
    assert!(!run("iptables-save").contains("netdiag") && !run("ip addr").contains("203.0.113.51"));
    assert!(!site.pings_soon("outside", OTHER).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_somebody_else_or_a_port_of_nobody_is_held_with_the_reason_and_the_others_are_served() {
    let test = "an_address_of_somebody_else_or_a_port_of_nobody_is_held_with_the_reason_and_the_others_are_served";
    let Some(mut site) = enter(test) else { return };
    site.be_router();
    run("ip addr add 203.0.113.52/32 dev br0");
    site.host.policy(&own(FLOATING, "p1"));
    site.host.start();
    site.wait_until_fast(FLOATING);
    for (id, address, port, reason) in
        [("g", "203.0.113.52", "p2", "br0"), ("h", "203.0.113.53", "p9", "p9"), ("i", "198.51.100.1", "p2", "subnet")]
    {
        let body = format!(r#"{{"floating_ip_address": "{address}", "port_id": "{port}", "device": "ext0"}}"#);
        let (status, answer) = site.host.request("PUT", &format!("/v1/floatingips/{id}"), &body);
        if status == 400 {
            assert!(answer.to_string().contains(reason), "{answer:#}");
            continue;
        }
        assert_eq!(status, 202, "{answer:#}");
        assert!(answer["reason"].as_str().unwrap().contains(reason), "{answer:#}");
        let broken = site.floating(address.parse().unwrap());
        assert_eq!(broken["state"], "broken", "{broken:#}");
    }
    assert!(site.pings("outside", FLOATING).await);
    assert!(run("ip addr show dev br0").contains("203.0.113.52"), "what is not netdiag's stays");
}

// === moving ===

/// A datagram from outside, and which of the instances has heard it, if one does in time.
fn heard(client: &UdpSocket, ends: [&UdpSocket; 2], number: u32, patience: Duration) -> [bool; 2] {
    // A port that nobody listens at any more may have said so about the one before.
    while client.send(&number.to_be_bytes()).is_err() {}
    let started = Instant::now();
    let mut heard = [false; 2];
    while started.elapsed() < patience && heard == [false; 2] {
        for (heard, end) in heard.iter_mut().zip(ends) {
            let mut word = [0; 8];
            *heard |= end.recv(&mut word).is_ok_and(|length| word[..length] == number.to_be_bytes());
        }
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_floating_ip_that_moves_takes_its_flows_along_with_the_next_packet_and_one_that_goes_leaves_nobody_behind() {
    let test =
        "a_floating_ip_that_moves_takes_its_flows_along_with_the_next_packet_and_one_that_goes_leaves_nobody_behind";
    let Some(mut site) = enter(test) else { return };
    site.be_router();
    site.host.policy(OPEN);
    site.host.start();
    let bind = || UdpSocket::bind("0.0.0.0:9").unwrap();
    let one = site.namespace("instance").run(bind).await.unwrap();
    let two = site.namespace("second").run(bind).await.unwrap();
    for end in [&one, &two] {
        end.set_nonblocking(true).unwrap();
    }
    let client = site.namespace("outside").run(|| UdpSocket::bind("0.0.0.0:0")).await.unwrap().unwrap();
    client.connect((FLOATING, 9)).unwrap();
    let put = |port: &str| {
        let body = format!(r#"{{"floating_ip_address": "{FLOATING}", "port_id": "{port}", "device": "ext0"}}"#);
        site.host.request("PUT", "/v1/floatingips/f", &body)
    };
    let serve = |port: &str| {
        let (status, answer) = put(port);
        assert_eq!(status, 200, "{answer:#}");
    };
    // The agent may not have looked at the routers yet.
    drop(put("p1"));
    let floating = site.wait_until_fast(FLOATING);
    assert_eq!(floating["port_id"], "p1");
    let mac = mac(&run("ip -o link show dev ext0"));
    let mut outward = site.connect(("instance", "outside"), OUTSIDE, 8).await;
    assert!(outward.works(PATIENCE));
    assert_eq!(outward.seen_as().ip(), FLOATING);
    for (round, port) in (0..6).zip(["p1", "p2"].into_iter().cycle()) {
        serve(port);
        // One flow, whatever its next packet meets: the way past the host, or the host itself for the first moment.
        let expected = if port == "p1" { [true, false] } else { [false, true] };
        assert_eq!(heard(&client, [&one, &two], round, PATIENCE), expected, "round {round}, right after the answer");
        site.wait_for(FLOATING, "fast", |floating| floating["state"] == "fast" && floating["port_id"] == port);
        assert_eq!(heard(&client, [&one, &two], round + 100, PATIENCE), expected, "round {round}, past the host");
    }
    // Gone, and the outside still sends what it has for it here.
    site.host.ok("DELETE", "/v1/floatingips/f", "");
    site.from_outside(&format!("ip neigh replace {FLOATING} lladdr {mac} dev eth0 nud permanent"));
    assert_eq!(heard(&client, [&one, &two], 1000, A_MOMENT), [false, false]);
    assert!(!outward.works(A_WHILE), "nothing leaves as an address that is nobody's here");
    // Back from another host: the outside knows it there, until it is told.
    site.from_outside(&format!("ip neigh replace {FLOATING} lladdr 02:00:00:00:99:99 dev eth0 nud stale"));
    serve("p2");
    until("the outside has heard who has it", || {
        site.from_outside(&format!("ip neigh show {FLOATING}")).contains(&mac)
    });
    assert_eq!(heard(&client, [&one, &two], 1001, PATIENCE), [false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_from_an_address_of_another_network_of_the_host_goes_through_it_and_its_rules() {
    let test = "what_comes_from_an_address_of_another_network_of_the_host_goes_through_it_and_its_rules";
    let Some(mut site) = enter(test) else { return };
    site.be_router();
    run("ip link add br1 type bridge");
    run("ip addr add 198.18.0.1/24 dev br1");
    run("ip link set br1 up");
    run("iptables -t nat -A POSTROUTING -s 198.18.0.0/24 ! -o br1 -j MASQUERADE");
    for device in ["all", "ext0"] {
        run(&format!("sysctl -qw net.ipv4.conf.{device}.rp_filter=0"));
    }
    site.host.policy(&own(FLOATING, "p1"));
    site.host.start();
    site.wait_until_fast(FLOATING);
    let server = site.namespace("instance").run(|| UdpSocket::bind("0.0.0.0:9")).await.unwrap().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    site.from_outside("ip addr add 198.18.0.9/32 dev lo");
    let mut word = [0; 4];
    for (from, seen, fast) in [("203.0.113.1:0", OUTSIDE, true), ("198.18.0.9:0", Ipv4Addr::new(192, 0, 2, 1), false)] {
        let before = site.packets(FLOATING, "ingress", "fast");
        let client = site.namespace("outside").run(move || UdpSocket::bind(from)).await.unwrap().unwrap();
        client.send_to(b"ping", (FLOATING, 9)).unwrap();
        let (_, by) = server.recv_from(&mut word).unwrap();
        assert_eq!(by.ip(), seen, "as the rules have it");
        assert_eq!(site.packets(FLOATING, "ingress", "fast") > before, fast, "{:#}", site.floating(FLOATING));
    }
}

// === straight ===

/// Packets that a device has sent.
fn packets_sent(device: &str) -> u64 {
    let shown = run("cat /proc/net/dev");
    let line = shown.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':')).unwrap();
    line.split_whitespace().nth(9).unwrap().parse().unwrap()
}

/// Somebody else's program at a device, which lets everything pass, and what else is done with it.
fn see_all(device: &str, file: &Path, action: &str) {
    fs::write(file, "1,6 0 0 4294967295").unwrap();
    if !run(&format!("tc qdisc show dev {device}")).contains("clsact") {
        run(&format!("tc qdisc add dev {device} clsact"));
    }
    let file = file.display();
    run(&format!("tc filter add dev {device} ingress prio 7 bpf bytecode-file {file}{action}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_one_bridge_send_straight_to_each_other_and_past_nobody_who_has_to_see_it() {
    let test = "instances_of_one_bridge_send_straight_to_each_other_and_past_nobody_who_has_to_see_it";
    if !require_programs(&["tc"]) {
        return;
    }
    let Some(mut site) = enter(test) else { return };
    site.add_router();
    site.host.policy(OPEN);
    // What programs there are is seen by looking alone.
    let looking = ["--full-pass", "1"];
    site.host.start_with(&looking);
    site.wait_until_fast(FLOATING);
    let udp = site.datagrams(("instance", "second"), SECOND, 9).await;
    let straight = || site.packets(FLOATING, "egress", "straight");
    // Whatever way they take, all arrive. Whether so many in a row go straight is what is waited for: until the last of several
    // changes is followed, some may go as it was between two of them.
    let goes = |wanted: bool, what: &str| {
        until(what, || {
            let before = straight();
            for _ in 0..IN_A_ROW {
                assert_eq!(udp.exchange().map(|from| from.ip()), Some(FIXED.into()), "{what}");
            }
            straight() - before == if wanted { IN_A_ROW } else { 0 }
        });
    };
    goes(true, "two of one bridge");
    run("ip link add watcher type veth peer name watches");
    run("ip link set watcher up");
    run("ip link set watches up");
    let watched = || packets_sent("watcher");
    for (who, action) in [("another program", ""), ("a mirror", " action mirred egress mirror dev watcher")] {
        see_all("tap1", &site.host.path("bytecode"), action);
        goes(false, who);
        let before = watched();
        for _ in 0..20 {
            assert!(udp.exchange().is_some());
        }
        assert_eq!(watched() >= before + 20, who == "a mirror", "{who} sees what it has to see");
        run("tc filter del dev tap1 ingress prio 7");
        goes(true, "nobody looks any more");
    }
    // The same subnet behind another bridge: one network for those who are on it, and two for the host.
    run("ip link add br1 type bridge");
    run("ip link add between type veth peer name across");
    for line in ["br1 up", "between master br0 up", "across master br1 up", "tap1 master br1"] {
        run(&format!("ip link set {line}"));
    }
    goes(false, "two bridges");
    run("ip link set tap1 master br0");
    // The bridge knows it elsewhere until it says something.
    assert!(site.pings("second", FIXED).await);
    goes(true, "one bridge again");
    // What groups refuse is refused on this way as well.
    let closed = OPEN.replace("      - {direction: ingress, ethertype: IPv4}\n", "");
    assert_ne!(closed, OPEN);
    site.host.policy(&closed);
    until("the group is closed", || udp.exchange().is_none());
    site.host.policy(OPEN);
    until("the group is open", || udp.exchange().is_some());
    goes(true, "the group is open");
}

/// All that a device sees of UDP, as it comes, until it is told to end.
fn listen(device: &str, file: &Path) -> Child {
    let mut command = Command::new("tcpdump");
    command.args(["--immediate-mode", "-Ulni", device, "udp"]).stdout(fs::File::create(file).unwrap());
    command.stderr(Stdio::null()).spawn().expect("it is installed")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_at_a_bridge_sees_what_its_instances_send_to_each_other() {
    let test = "who_listens_at_a_bridge_sees_what_its_instances_send_to_each_other";
    if !require_programs(&["tcpdump"]) {
        return;
    }
    let Some(mut site) = enter(test) else { return };
    site.add_router();
    site.host.policy(OPEN);
    // That somebody listens must be heard of. No flag of the bridge says so.
    site.host.start_with(&["--full-pass", "3600"]);
    site.wait_until_fast(FLOATING);
    let udp = site.datagrams(("instance", "second"), SECOND, 9).await;
    let file = site.host.path("heard");
    let heard = || fs::read_to_string(&file).unwrap().lines().count();
    let straight = || site.packets(FLOATING, "egress", "straight");
    let is_straight = |wanted: bool, what: &str| {
        until(what, || {
            let before = straight();
            for _ in 0..IN_A_ROW {
                assert!(udp.exchange().is_some(), "{what}");
            }
            straight() - before == if wanted { IN_A_ROW } else { 0 }
        });
    };
    is_straight(true, "nobody listens");
    let mut tcpdump = listen("br0", &file);
    is_straight(false, "somebody listens");
    until("it has heard both of them", || heard() >= 20);
    tcpdump.kill().unwrap();
    tcpdump.wait().unwrap();
    is_straight(true, "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_send_to_each_other_by_their_bridge_where_the_switch_says_so() {
    let test = "instances_send_to_each_other_by_their_bridge_where_the_switch_says_so";
    let Some(mut site) = enter(test) else { return };
    site.add_router();
    site.host.policy(OPEN);
    site.host.start_with(&["--straight", "off"]);
    site.wait_until_fast(FLOATING);
    let udp = site.datagrams(("instance", "second"), SECOND, 9).await;
    for _ in 0..10 {
        assert!(udp.exchange().is_some());
    }
    assert_eq!(site.packets(FLOATING, "egress", "straight"), 0, "{:#}", site.floating(FLOATING));
}
