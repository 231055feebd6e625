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
    use super::last_flow;

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
