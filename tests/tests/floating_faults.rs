//! Faults while a hundred flows of two floating IPs run: none of them is lost, and nobody gets what is another's.

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant, SystemTime},
};

use netdiag_tests::{
    agent::{PATIENCE, run},
    floating::{FIXED, FLOATING, FloatingHost, OPEN, OTHER, QG, ROUTER, SECOND, flows::Flows},
    require_programs,
};
use rustix::process::Signal;

/// The floating IPs of the router.
const BOTH: [(Ipv4Addr, Ipv4Addr); 2] = [(FLOATING, FIXED), (OTHER, SECOND)];
/// How many flows run.
const FLOWS: u16 = 100;

/// What has changed must be heard of: nobody looks just because it is time.
const EVENTS: [&str; 2] = ["--full-pass", "3600"];

/// A host whose router has two floating IPs, both past it. A flow that came to the router unprepared would get another port, and be
/// lost.
async fn enter(test: &str) -> Option<FloatingHost> {
    if !require_programs(&["iptables", "iptables-restore", "conntrack"]) {
        return None;
    }
    let mut site = FloatingHost::enter(test)?;
    site.random = true;
    // A router that has no rules yet lets private addresses out, which no network outside takes.
    site.from_outside("sysctl -qw net.ipv4.conf.all.rp_filter=1");
    site.plug_outside();
    site.build_router(&BOTH);
    site.host.policy(OPEN);
    site.host.start_with(&EVENTS);
    fast(&site);
    for from in ["instance", "second"] {
        // The way out is known when somebody has gone it.
        assert!(site.pings(from, Ipv4Addr::new(203, 0, 113, 1)).await);
    }
    Some(site)
}

/// The same, with flows over it.
async fn enter_with_flows(test: &str) -> Option<(FloatingHost, Flows)> {
    let site = enter(test).await?;
    let flows = Flows::start(&site, FLOWS).await;
    flows.go_on("before anything happens");
    assert_eq!(flows.lost(), 0, "before anything happens");
    past_the_router(&site, &flows);
    Some((site, flows))
}

fn fast(site: &FloatingHost) {
    site.wait_until_fast(FLOATING);
    site.wait_until_fast(OTHER);
}

/// Packets that have gone past the router, to both floating IPs and from them.
fn gone(site: &FloatingHost) -> Vec<u64> {
    let ways = [FLOATING, OTHER].map(|address| ["ingress", "egress"].map(|way| site.packets(address, way, "fast")));
    ways.concat()
}

/// Waits until packets of both floating IPs go past the router, in both directions.
#[track_caller]
fn past_the_router(site: &FloatingHost, flows: &Flows) {
    let (before, started) = (gone(site), Instant::now());
    while gone(site).iter().zip(&before).any(|(now, before)| now <= before) {
        assert!(started.elapsed() < PATIENCE, "{before:?}: {:?}", gone(site));
        flows.check("on the way past the router");
        thread::sleep(Duration::from_millis(50));
    }
}

/// What is so after a fault: all go on, past the router, and not one datagram is lost any more.
#[track_caller]
fn all_is_well(site: &FloatingHost, flows: &Flows, fault: &str) {
    flows.go_on(fault);
    fast(site);
    past_the_router(site, flows);
    // Of those in between some are lost.
    flows.forget_lost();
    flows.go_on(fault);
    assert_eq!(flows.lost(), 0, "{fault}: and nothing is lost after it");
    flows.check(fault);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_flows_outlive_an_agent_that_is_killed_at_any_moment_and_lose_nothing() {
    let test = "a_hundred_flows_outlive_an_agent_that_is_killed_at_any_moment_and_lose_nothing";
    let Some((mut site, flows)) = enter_with_flows(test).await else { return };
    let seed = SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    let mut moment = u64::from(seed);
    for round in 0..10 {
        // From before it has read a map to when it has looked at everything.
        moment = (moment * 6_364_136_223 + 1_442_695) % 1_000_003;
        site.host.end(Signal::KILL);
        flows.check("while nobody is there");
        site.host.launch(&EVENTS);
        thread::sleep(Duration::from_millis(moment % 1200));
        flows.check(&format!("round {round} of seed {seed}"));
    }
    site.host.end(Signal::KILL);
    site.host.start_with(&EVENTS);
    fast(&site);
    assert_eq!(flows.lost(), 0, "seed {seed}: not one datagram");
    all_is_well(&site, &flows, "an agent that is killed");
    let tracked = [FLOATING, OTHER].map(|address| site.tracked(Some(ROUTER), address));
    assert!(tracked.concat().is_empty(), "seed {seed}: the router has seen none of it: {tracked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_flows_outlive_a_router_that_is_deleted_and_made_again() {
    let test = "a_hundred_flows_outlive_a_router_that_is_deleted_and_made_again";
    let Some((mut site, flows)) = enter_with_flows(test).await else { return };
    delete_router();
    // Until the agent has seen it, what is loaded goes on.
    gone_away(&site);
    site.build_router(&BOTH);
    all_is_well(&site, &flows, "a router that is deleted and made again");

    delete_router();
    site.build_router(&BOTH);
    all_is_well(&site, &flows, "a router that is made again at once");

    delete_router();
    gone_away(&site);
    site.host.end(Signal::KILL);
    site.host.start_with(&EVENTS);
    site.build_router(&BOTH);
    all_is_well(&site, &flows, "a router that is made again for an agent that has never seen it");
}

/// As Neutron's agent does: its devices first.
fn delete_router() {
    for device in ["tapqr", "tapqg"] {
        run(&format!("ip link del {device}"));
    }
    run(&format!("ip netns del {ROUTER}"));
}

#[track_caller]
fn gone_away(site: &FloatingHost) {
    for address in [FLOATING, OTHER] {
        site.wait_for(address, "gone", serde_json::Value::is_null);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_is_made_again_with_its_floating_ips_at_other_instances_keeps_no_flow_of_before() {
    let test = "a_router_that_is_made_again_with_its_floating_ips_at_other_instances_keeps_no_flow_of_before";
    let Some(site) = enter(test).await else { return };
    let mut connection = site.connect(("outside", "instance"), FLOATING, 9001).await;
    let datagrams = site.datagrams(("outside", "instance"), FLOATING, 9002).await;
    assert!(connection.works(PATIENCE) && datagrams.exchange().is_some(), "before anything happens");
    delete_router();
    gone_away(&site);
    site.build_router(&[(FLOATING, SECOND), (OTHER, FIXED)]);
    fast(&site);
    let tracked = site.tracked(Some(ROUTER), FLOATING);
    let before: Vec<_> = tracked.iter().filter(|line| line.contains(&format!("={FIXED} "))).collect();
    assert!(before.is_empty(), "the router was told of flows that are not its own: {before:#?}");
    assert_eq!(datagrams.exchange(), None, "whose the floating IP was gets nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_flows_outlive_a_gateway_that_gets_another_mac_address() {
    let test = "a_hundred_flows_outlive_a_gateway_that_gets_another_mac_address";
    let Some((site, flows)) = enter_with_flows(test).await else { return };
    // Whoever takes an address over says so.
    site.from_outside("sysctl -qw net.ipv4.conf.eth0.arp_notify=1");
    for last in ["01", "02"] {
        site.from_outside(&format!("ip link set eth0 address 02:00:00:00:99:{last}"));
        flows.go_on("a gateway with another MAC address");
    }
    all_is_well(&site, &flows, "a gateway with another MAC address");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_flows_outlive_an_external_device_that_goes_down_and_one_that_is_made_again() {
    let test = "a_hundred_flows_outlive_an_external_device_that_goes_down_and_one_that_is_made_again";
    let Some((site, flows)) = enter_with_flows(test).await else { return };
    for pause in [0, 300] {
        run("ip link set ext0 down");
        thread::sleep(Duration::from_millis(pause));
        run("ip link set ext0 up");
        flows.go_on("an external device that goes down and comes up");
    }
    all_is_well(&site, &flows, "an external device that goes down and comes up");
    let index = || run("ip -o link show dev ext0").split(':').next().map(str::to_owned);
    let before = index();
    site.plug_again();
    assert_ne!(index(), before);
    all_is_well(&site, &flows, "an external device that is made again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_flows_outlive_a_gateway_that_answers_nobody_for_a_while() {
    let test = "a_hundred_flows_outlive_a_gateway_that_answers_nobody_for_a_while";
    let Some((site, flows)) = enter_with_flows(test).await else { return };
    let lost = || {
        ["egress"; 2]
            .into_iter()
            .zip([FLOATING, OTHER])
            .all(|(direction, address)| site.packets(address, direction, "unresolved-neighbour") > 0)
    };
    for round in 0..2 {
        site.from_outside("sysctl -qw net.ipv4.conf.all.arp_ignore=8");
        site.router(&format!("ip neigh replace 203.0.113.1 dev {QG} nud failed"));
        let started = Instant::now();
        while !lost() {
            assert!(started.elapsed() < PATIENCE, "nobody misses it");
            thread::sleep(Duration::from_millis(50));
        }
        // The router asks three times, a second each, and gives up.
        thread::sleep(Duration::from_secs(if round == 0 { 4 } else { 1 }));
        flows.check("while the gateway answers nobody");
        site.from_outside("sysctl -qw net.ipv4.conf.all.arp_ignore=0");
        all_is_well(&site, &flows, "a gateway that answers nobody for a while");
    }
}
