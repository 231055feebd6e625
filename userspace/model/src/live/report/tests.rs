use super::{Left, Silent, Tally, Told, Unanswered};
use crate::{
    live::{
        Cost, Losses,
        journey::{
            Journeys,
            simulation::{FIXED, Kind, Made, joined, neutron},
        },
        points::{Points, Side},
    },
    trace::{Trace, Verdict},
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
        assert_eq!(unanswered.findings(2_000 * MS, &points, &trace()).len(), told);
    }
}

#[test]
fn nobody_has_to_answer_what_is_for_all() {
    let mut points = neutron();
    points.tracks[0].stops[2].mac = Some(crate::id::Mac([2, 0, 0, 0, 0, 9]));
    let told = |to: crate::id::Mac| {
        let ask = Made::new(Kind::Echo { kind: 8, identifier: 1, number: 1, payload: vec![] });
        let ask = Made { destination: ([10, 0, 0, 255].into(), 0), macs: (ask.macs.0, to), ..ask };
        let seen = leaves(&ask, FIXED, &points).into_iter().take(2).collect();
        let mut unanswered = Unanswered::default();
        for journey in joined(points.clone(), seen) {
            assert_eq!(journey.ended, crate::live::journey::Ended::Aside);
            unanswered.add(&journey, &points);
        }
        unanswered.findings(9_000 * MS, &points, &trace()).len()
    };
    assert_eq!(told(crate::id::Mac([0xff; 6])), 0);
    assert_eq!(told(crate::id::Mac([2, 0, 0, 0, 0, 3])), 1);
}

#[test]
fn whoever_was_asked_a_moment_ago_may_yet_answer_and_is_heard_where_enough_was_told() {
    let points = neutron();
    let ask = Made::new(Kind::Echo { kind: 8, identifier: 1, number: 1, payload: vec![] });
    let answer = Made::new(Kind::Echo { kind: 0, identifier: 1, number: 1, payload: vec![] }).answer();
    let journeys = joined(points.clone(), leaves(&ask, FIXED, &points));
    let answers = joined(points.clone(), vec![answer.at(3 * MS, 0, Side::Received)]);
    let asked = |heard: bool| {
        let mut unanswered = Unanswered::default();
        for journey in &journeys {
            unanswered.add(journey, &points);
        }
        for journey in answers.iter().filter(|_| heard) {
            unanswered.hear(journey);
        }
        unanswered
    };
    assert_eq!(asked(false).findings(500 * MS, &points, &trace()).len(), 0, "half a second is no silence");
    assert_eq!(asked(false).findings(2_000 * MS, &points, &trace()).len(), 1);
    assert_eq!(asked(true).findings(2_000 * MS, &points, &trace()).len(), 0);
}

#[test]
fn an_answer_that_is_not_told_of_because_there_were_enough_is_still_one() {
    let points = neutron();
    let echo = |kind| Made::new(Kind::Echo { kind, identifier: 1, number: 1, payload: vec![] });
    let asked = joined(points.clone(), leaves(&echo(8), [172, 24, 4, 6].into(), &points));
    let answers = joined(points.clone(), vec![echo(0).answer().at(3 * MS, 0, Side::Received)]);
    let codes = |overheard: bool| {
        let mut journeys = Journeys::new(points.clone());
        journeys.advance(5_000 * MS);
        let mut tally = Tally::of_both_ways();
        for journey in asked.clone() {
            tally.add(&Told { journey, blame: None }, &points);
        }
        for journey in answers.iter().filter(|_| overheard) {
            tally.overhear(journey);
        }
        let trace = Trace { verdict: Verdict::Works, ..trace() };
        let summary = tally.summary(&points, &trace, (journeys.counted(), Cost::default()), 0);
        summary.findings.into_iter().map(|finding| finding.code).collect::<Vec<_>>()
    };
    assert_eq!((codes(false), codes(true)), (vec!["unanswered".to_owned()], vec![]));
}

/// A packet that comes to the instance by all devices.
fn comes(packet: &Made, points: &Points) -> Vec<crate::live::Sighting> {
    let stops = &points.tracks[0].stops;
    let at = |stop: usize| packet.at(MS + (4 - stop as u64) * 1_000, stop, stops[stop].side.other());
    (0..5).rev().map(at).collect()
}

#[test]
fn what_the_instance_was_asked_and_did_not_answer_is_told_of_by_what_it_was() {
    let points = neutron();
    let asks =
        [Made::syn(1).answer(), Made::new(Kind::Echo { kind: 8, identifier: 1, number: 1, payload: vec![] }).answer()];
    let replies = [
        Made::new(Kind::Tcp { sequence: 9, flags: 0x12, payload: vec![] }),
        Made::new(Kind::Echo { kind: 0, identifier: 1, number: 1, payload: vec![] }),
    ];
    for ((ask, reply), (answered, says)) in
        asks.iter().zip(&replies).flat_map(|one| [(one, (true, "")), (one, (false, "did not answer"))])
    {
        let mut silent = Silent::default();
        let mut seen = comes(ask, &points);
        if answered {
            seen.extend(
                leaves(reply, FIXED, &points)
                    .into_iter()
                    .map(|one| crate::live::Sighting { time_ns: one.time_ns + MS, ..one }),
            );
        }
        for journey in joined(points.clone(), seen) {
            silent.add(&journey, &points);
        }
        let found = silent.findings(2_000 * MS, &points, &trace());
        let messages: Vec<&str> = found.iter().map(|finding| finding.message.as_str()).collect();
        assert_eq!(messages.len(), usize::from(!answered), "{messages:#?}");
        assert!(messages.iter().all(|message| message.contains(says)), "{messages:#?}");
    }
}

#[test]
fn an_answer_to_another_port_or_another_host_is_none() {
    let points = neutron();
    let ask = Made::syn(1).answer();
    let told = |reply: Made| {
        let mut silent = Silent::default();
        let seen = [comes(&ask, &points), leaves(&reply, FIXED, &points)].concat();
        for journey in joined(points.clone(), seen) {
            silent.add(&journey, &points);
        }
        silent.findings(2_000 * MS, &points, &trace()).len()
    };
    let ack = Made::new(Kind::Tcp { sequence: 9, flags: 0x12, payload: vec![] });
    assert_eq!(told(ack.clone()), 0);
    assert_eq!(told(Made { source: (FIXED, 81), ..ack.clone() }), 1);
    assert_eq!(told(Made { destination: ([203, 0, 113, 99].into(), 443), ..ack }), 1);
}

#[test]
fn where_more_have_answered_than_are_remembered_nobody_is_called_silent() {
    let points = neutron();
    let ask = Made::new(Kind::Echo { kind: 8, identifier: 1, number: 1, payload: vec![] });
    let asked = joined(points.clone(), leaves(&ask, FIXED, &points));
    let told = |others: u16| {
        let mut unanswered = Unanswered::default();
        for journey in &asked {
            unanswered.add(journey, &points);
        }
        let from = |number: u16| {
            let [high, low] = number.to_be_bytes();
            let source = (std::net::Ipv4Addr::new(198, 51, high, low), 443);
            Made { source, ..Made::syn(number.into()).answer() }.at(MS, 0, Side::Received)
        };
        for journey in joined(points.clone(), (0..others).map(from).collect()) {
            unanswered.add(&journey, &points);
        }
        unanswered.findings(2_000 * MS, &points, &trace()).len()
    };
    assert_eq!((told(1_023), told(1_024)), (1, 0));
}

#[test]
fn what_is_expected_to_die_does_not_work_because_some_that_were_seen_came_through_and_others_were_not_seen() {
    let verdict = |expected: Verdict, losses: Losses| {
        let points = neutron();
        let mut journeys = Journeys::new(points.clone());
        journeys.losses(0, losses);
        let mut tally = Tally::default();
        for journey in joined(points.clone(), leaves(&Made::syn(1), [172, 24, 4, 6].into(), &points)) {
            tally.add(&Told { journey, blame: None }, &points);
        }
        let trace = Trace { verdict: expected, ..trace() };
        let summary = tally.summary(&points, &trace, (journeys.counted(), Cost::default()), 0);
        (summary.verdict, summary.sentence)
    };
    let lost = Losses { lost: 0, throttled: 7 };
    assert_eq!(verdict(Verdict::Works, lost).0, Verdict::Works);
    assert_eq!(verdict(Verdict::Broken, Losses::default()).0, Verdict::Works);
    let (seen, sentence) = verdict(Verdict::Broken, lost);
    assert_eq!(seen, Verdict::Inconclusive);
    assert!(sentence.starts_with("the trace expects packets to die, and none of 1 was seen to, but 7 s"), "{sentence}");
}

#[test]
fn why_an_end_is_not_known_is_said_and_not_what_cannot_be_why() {
    let said = |losses: Losses, opaque: bool| {
        let mut points = neutron();
        if opaque {
            let router = points.tracks[0].stops[2].link.netns;
            points.tracks[0].opaque.push(router);
        }
        let mut journeys = Journeys::new(points.clone());
        for sighting in leaves(&Made::syn(1), FIXED, &points).into_iter().take(3) {
            journeys.see(sighting);
        }
        journeys.losses(1_000 * MS, losses);
        let mut over = journeys.advance(1_000 * MS);
        over.extend(journeys.finish());
        let mut tally = Tally::default();
        for journey in over {
            tally.add(&Told { journey, blame: None }, &points);
        }
        tally.summary(&points, &trace(), (journeys.counted(), Cost::default()), 0).sentence
    };
    let none = Losses::default();
    let begin = "of 1 of 1 packets the end is not known: ";
    assert_eq!(said(none, false), format!("{begin}watching ended while they were under way"));
    assert_eq!(said(none, true), format!("{begin}what a router translates could not be read"));
    let both = "1 sighting was lost, 3 sightings were left out to keep the cost down (--max-overhead)";
    assert_eq!(said(Losses { lost: 1, throttled: 3 }, false), format!("{begin}{both}"));
}
