//! What watching may cost, and what is no loss.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use netdiag_agent::live::{Plan, Session};
use netdiag_model::live::{Clause, Losses, View, What};
use netdiag_tests::{behaviour::wire::Wire, private_host, require_ebpf, verified};

use super::{Host, introduce, only, plan, port, seen, seen_of, send, socket, start};

/// Sends packets for a second, and reads what is seen: how many were sent, how many of them were seen, and what became of the others.
async fn second(session: &mut Session) -> (u64, u64, Losses) {
    let here = socket("a", 5000).await;
    let (mut sent, mut delivered) = (0, 0);
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        for _ in 0..16 {
            here.send_to(b"a packet", "10.77.0.2:4000").unwrap();
            sent += 1;
        }
        delivered += session.take().len() as u64;
    }
    delivered += seen(session).await.len() as u64;
    (sent, delivered, session.losses().unwrap())
}

#[tokio::test]
async fn what_would_cost_more_than_is_allowed_is_left_out_and_counted_exactly() {
    if !(require_ebpf()
        && private_host::enter("cost::what_would_cost_more_than_is_allowed_is_left_out_and_counted_exactly"))
    {
        return;
    }
    let _host = Host::new().await;
    introduce();
    let mut point = Host::point("", "tap-a", View::Tc);
    point.sent = false;
    let filter = only(Clause { there: port(4000), ..Clause::default() });
    // Whoever sends is the process that watches, and both take what there is of their CPUs.
    let mut all = start(Plan { overhead: Some(4.0), ..plan(vec![point.clone()], filter.clone()) }).await;
    let (sent, delivered, losses) = second(&mut all).await;
    assert_eq!((delivered, losses), (sent, Losses::default()), "there is room");
    drop(all);
    let mut few = start(Plan { overhead: Some(1e-6), ..plan(vec![point], filter) }).await;
    let (sent, delivered, losses) = second(&mut few).await;
    assert!(losses.throttled > 0 && delivered > 0, "{losses:?}");
    assert_eq!((losses.lost, losses.throttled), (0, sent - delivered));
    // A hundred a second from now on.
    let (sent, more, _) = second(&mut few).await;
    assert!(more > 0 && more < 1_000 && sent > 2_000, "{more} of {sent}");
}

#[tokio::test]
async fn what_a_closed_packet_socket_had_not_read_is_told_from_what_a_socket_had_not() {
    if !(require_ebpf()
        && private_host::enter("cost::what_a_closed_packet_socket_had_not_read_is_told_from_what_a_socket_had_not"))
    {
        return;
    }
    let _host = Host::new().await;
    introduce();
    let filter = only(Clause { there: port(4444), ..Clause::default() });
    let mut session = start(Plan { drops: true, ..plan(Vec::new(), filter) }).await;
    let capture = Host::namespace("b").run(|| Wire::open("eth0").unwrap()).await.unwrap();
    let listener = socket("b", 4444).await;
    send(4444).await;
    assert_eq!(seen(&mut session).await, [], "both have it");
    drop(capture);
    assert_eq!(copies(&mut session).await, [true]);
    drop(OwnedFd::from(listener));
    assert_eq!(copies(&mut session).await, [false]);
}

/// Of what is given up, which something must be, whether it is a copy.
async fn copies(session: &mut Session) -> Vec<bool> {
    let seen = seen_of(session, 1).await;
    seen.iter().map(|seen| matches!(seen.what, What::Dropped { copy: true, .. })).collect()
}

/// Steps the verifier of an older kernel may need for each that this one's does: 6.1 needs 2.7, and a million are all there are.
const OLDER: u32 = 10;

#[tokio::test]
async fn programs_are_followed_by_the_verifier_in_a_tenth_of_what_it_may_at_most() {
    if !(require_ebpf()
        && private_host::enter("cost::programs_are_followed_by_the_verifier_in_a_tenth_of_what_it_may_at_most"))
    {
        return;
    }
    let _host = Host::new().await;
    let points = vec![Host::point("", "tap-a", View::Tc), Host::point("", "tap-b", View::Socket)];
    let session = start(Plan { drops: true, ..plan(points, only(Clause::default())) }).await;
    let programs = verified::steps();
    for (name, steps) in &programs {
        assert!(steps < &(verified::LIMIT / OLDER), "{name}: {steps}");
    }
    for name in ["live_either", "live_socket_in", "live_socket_out", "live_dropped"] {
        assert!(programs.contains_key(name), "{name}: {programs:?}");
    }
    drop(session);
}
