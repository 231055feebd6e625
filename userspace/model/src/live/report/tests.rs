use super::{Left, Unanswered};
use crate::{
    live::{
        journey::simulation::{FIXED, Kind, Made, joined, neutron},
        points::{Points, Side},
    },
    trace::Trace,
};

const MS: u64 = 1_000_000;

/// A packet on all devices of the way out, with what it leaves as.
fn leaves(packet: &Made, from: std::net::Ipv4Addr, points: &Points) -> Vec<crate::live::Sighting> {
    let translated = Made { source: (from, 50_000), ..packet.clone() };
    let stops = &points.tracks[0].stops;
    let seen = |stop: usize| if stop < 3 { packet } else { &translated };
    (0..5).map(|stop| seen(stop).at(MS + stop as u64 * 1_000, stop, stops[stop].side)).collect()
}

fn trace() -> Trace {
    let mut host = crate::testing::Host::new();
    let netns = host.netns(&[]);
    host.container("web-1", Some(netns));
    host.trace("web-1")
}

#[test]
fn a_packet_that_leaves_with_its_private_address_is_told_of_and_one_that_is_translated_is_not() {
    for (from, told) in [(FIXED, 1), (std::net::Ipv4Addr::new(172, 24, 4, 6), 0)] {
        let points = neutron();
        let mut left = Left::default();
        for journey in joined(points.clone(), leaves(&Made::syn(1), from, &points)) {
            left.add(&journey, &points);
        }
        let found = left.findings(&trace());
        assert_eq!(found.iter().filter(|finding| finding.code == "left-untranslated").count(), told, "{from}");
    }
}

#[test]
fn a_question_without_an_answer_is_told_of_and_one_with_is_not() {
    for (answered, told) in [(false, 1), (true, 0)] {
        let points = neutron();
        let ask = Made::new(Kind::Echo { kind: 8, identifier: 1, number: 1, payload: vec![] });
        let mut seen = leaves(&ask, FIXED, &points);
        let answer = Made::new(Kind::Echo { kind: 0, identifier: 1, number: 1, payload: vec![] }).answer();
        if answered {
            seen.push(answer.at(2 * MS, 0, Side::Received));
        }
        let mut unanswered = Unanswered::default();
        for journey in joined(points.clone(), seen) {
            unanswered.add(&journey, &points);
        }
        assert_eq!(unanswered.findings(&points, &trace()).len(), told);
    }
}
