//! What Open vSwitch itself says would become of a packet (`ofproto/trace`), where it is the switch that lost it.

use super::{Blame, Case, Code, gap, last_headers, last_stop, openflow};
use crate::live::journey::Journey;

/// How a sentence ends where nothing says why.
pub(super) const NO_REASON: &str = "; the kernel gives no reason";

/// A question to Open vSwitch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The bridge the packet came to.
    pub bridge: String,
    /// The packet, with the port it came by.
    pub flow: String,
}

/// What to ask Open vSwitch about a packet that it lost; none where it was not the switch.
pub fn question(case: &Case<'_, '_>, journey: &Journey) -> Option<Question> {
    let stop = last_stop(case, journey)?;
    let port = case.inventory.port_of(stop.link)?;
    let bridge = &port.bridge.name;
    // The switch has it only where the packet went on into it.
    gap(case, journey).into_iter().find(|hop| hop.name == *bridge)?;
    let ofport = port.interface.ofport?;
    let flow = openflow(last_headers(journey)?)?;
    Some(Question { bridge: bridge.clone(), flow: format!("in_port={ofport},{flow}") })
}

/// What is said of a packet's death, once Open vSwitch has answered. Its answer counts where it drops the packet by flows
/// alone: what connection tracking would say of a packet that is not there, it only supposes.
#[must_use]
pub fn answered(blame: Blame, question: &Question, answer: &str) -> Blame {
    let dropped = answer.lines().any(|line| line.trim() == "Datapath actions: drop");
    let supposed = answer.contains("recirc(") || answer.contains("ct(");
    let Some(flow) = last_flow(answer).filter(|_| dropped && !supposed) else { return blame };
    let guilty = format!("flow of {}: {flow}", question.bridge);
    Blame {
        code: Code::SwitchFlow,
        sentence: format!("{}; Open vSwitch says that a {guilty} drops it", without_end(&blame.sentence)),
        guilty: Some(guilty),
        evidence: format!("{}; ofproto/trace of this very packet ends with drop", blame.evidence),
        ..blame
    }
}

/// A sentence without what is not true any more.
pub(super) fn without_end(sentence: &str) -> &str {
    sentence.strip_suffix(NO_REASON).unwrap_or(sentence)
}

/// The last flow a trace met: ` 60. in_port=3, priority 500`, with its bridge where that is another.
fn last_flow(answer: &str) -> Option<String> {
    let is_flow = |line: &&str| {
        let number = line.trim_start().split_once(". ").map(|(number, _)| number);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let (number, flow) = answer.lines().rfind(is_flow)?.trim().split_once(". ")?;
    Some(format!("table {number}, {}", flow.trim_end_matches('.')))
}

#[cfg(test)]
mod tests {
    use super::{Blame, Code, Question, answered, last_flow, openflow};
    use crate::{
        live::{Sighting, journey::simulation::Made, packet::Headers},
        trace::Direction,
    };

    fn unknown() -> Blame {
        Blame {
            direction: Direction::Outward,
            hop: None,
            place: "between tap1 and qr-1".to_owned(),
            code: Code::NotSeen,
            reason: None,
            guilty: None,
            rules: Vec::new(),
            sentence: "it is not seen after tap1; the kernel gives no reason".to_owned(),
            evidence: "no drop was reported".to_owned(),
            verify: None,
            fix: None,
        }
    }

    #[test]
    fn a_flow_is_blamed_only_where_it_alone_drops_the_packet() {
        let question = Question { bridge: "br-int".to_owned(), flow: "in_port=3,tcp".to_owned() };
        let told = |actions: &str, end: &str| {
            let answer = format!(" 0. in_port=3, priority 500\n    {actions}\n\nDatapath actions: {end}\n");
            answered(unknown(), &question, &answer)
        };
        let blame = told("drop", "drop");
        assert_eq!(blame.code, Code::SwitchFlow);
        assert_eq!(blame.guilty.as_deref(), Some("flow of br-int: table 0, in_port=3, priority 500"));
        assert!(!blame.sentence.contains("no reason"), "{}", blame.sentence);
        for (actions, end) in [("output:4", "4"), ("ct(table=1)", "drop"), ("resubmit", "ct(zone=1),recirc(0x1)")] {
            assert_eq!(told(actions, end), unknown(), "{actions}");
        }
    }

    #[test]
    fn the_switch_is_asked_about_a_neighbour_with_whom_it_is_about() {
        let of = |kind: u8| {
            let target = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2];
            let icmp = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target].concat();
            let ip = [&[0x60, 0, 0, 0, 0, 24, 58, 255][..], &target, &target, &icmp].concat();
            let head = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd][..], &ip].concat();
            openflow(&Headers::of(&Sighting { head, ..Made::syn(1).at(1, 0, crate::live::points::Side::Sent) }))
                .unwrap()
        };
        assert!(of(136).ends_with("icmp_type=136,icmp_code=0,nd_target=2001:db8:0:1::2"), "{}", of(136));
        assert!(of(128).ends_with("icmp_type=128,icmp_code=0"), "{}", of(128));
    }

    #[test]
    fn the_last_flow_of_a_trace_is_the_one_that_drops() {
        let answer = "Flow: tcp,in_port=3\n\nbridge(\"br-int\")\n----------------\n 0. priority 0\n    goto_table:60\n\
                      60. in_port=3, priority 500, cookie 0x1\n    drop\n\nFinal flow: unchanged\nDatapath actions: drop\n";
        assert_eq!(last_flow(answer).as_deref(), Some("table 60, in_port=3, priority 500, cookie 0x1"));
        let none = " 0. priority 0\n    goto_table:60\n60. No match.\n    drop\n\nDatapath actions: drop\n";
        assert_eq!(last_flow(none).as_deref(), Some("table 60, No match"));
        assert_eq!(last_flow("no such bridge"), None);
    }
}
