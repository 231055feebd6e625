//! Frames of an instance whose VLAN tag its kernel keeps beside the frame, where generic XDP does not see it.

use std::time::Duration;

use super::{Family, Way, World, frame::tagged, policy::rules, wire::Wire};
use crate::agent::run;

/// How long is waited for a frame that must not come.
const SHORT: Duration = Duration::from_millis(200);
/// How often a frame is sent that has to come, or to be counted, sooner or later.
const TRIES: u32 = 300;
/// How often one is sent of which nothing must be seen.
const FEW: u32 = 20;

/// What became of such frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// They came to the peer.
    pub heard: bool,
    /// The datapath counted them as tagged.
    pub counted: bool,
    /// What the switch did, where there is one at the port.
    pub switch: Option<SwitchFate>,
}

/// What Open vSwitch did with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchFate {
    /// It forwarded them from an access port.
    pub from_access: bool,
    /// It forwarded them from a port of every VLAN, where the rules allow what is in them.
    pub from_trunk: bool,
    /// It forwarded them from there where no rule allows what is in them.
    pub against_rules: bool,
}

impl World {
    /// Sends such frames.
    #[must_use]
    pub fn sends_tags_beside(&self) -> Fate {
        let card = self.tagging_card();
        let frame = self.packet(Way::Out, Family::V4).udp(900, 901).frame();
        let everything = self.behind_xdp.then(|| {
            self.sh("ip link add trunk0 type veth peer name trunk1 && ip link set trunk0 up && ip link set trunk1 up \
                     && ovs-vsctl add-port br-int trunk0");
            self.wire_of_host("trunk1")
        });
        let before = self.count(Way::Out, "vlan-tagged");
        self.peer.wire.drain();
        // The devices take their time to come up. Where the program sees no tag, nothing is counted however long one waits.
        let mut heard = false;
        let tries = if self.behind_xdp { FEW } else { TRIES };
        let counted = (0..tries).any(|_| {
            card.send(&tagged(&frame, 5));
            heard |= seen(&self.peer.wire, &frame);
            self.count(Way::Out, "vlan-tagged") > before
        });
        let switch = everything.map(|everything| self.switched(&card, &everything, &frame));
        self.instance.inside(|| {
            run("ip link del switch");
            run("ip link del inner");
        });
        Fate { heard, counted, switch }
    }

    /// A device of the instance: what is sent there with a tag goes out with the tag beside the frame, because a bridge took it
    /// off the frame on its way.
    fn tagging_card(&self) -> Wire {
        let device = self.instance.device.clone();
        self.instance.inside(move || {
            run("ip link add inner type veth peer name outer");
            run("ip link add switch type bridge");
            for port in ["outer", device.as_str()] {
                run(&format!("ip link set {port} master switch"));
            }
            for device in ["inner", "outer", "switch"] {
                run(&format!("ip link set {device} up"));
            }
            Wire::open("inner").expect("a packet socket")
        })
    }

    fn switched(&self, card: &Wire, everything: &Wire, frame: &[u8]) -> SwitchFate {
        let send = |frame: &[u8]| {
            card.send(&tagged(frame, 5));
            seen(everything, frame)
        };
        let from_access = send(frame);
        let tag = self.sh(&format!("ovs-vsctl get Port {} tag", self.tap));
        self.sh(&format!("ovs-vsctl clear Port {} tag", self.tap));
        // The switch takes its time to notice.
        let from_trunk = (0..TRIES).any(|_| send(frame));
        self.policy(&rules(&[]));
        // Another one: of those before some may still be on their way.
        let late = self.packet(Way::Out, Family::V4).udp(900, 901).padded(64).frame();
        let before = self.counters();
        let mut against_rules = send(&late);
        self.counts("what no rule allows", &before, (Way::Out, "revoked"), 1);
        against_rules |= seen(everything, &late);
        self.sh(&format!("ovs-vsctl set Port {} tag={} && ovs-vsctl del-port trunk0", self.tap, tag.trim()));
        SwitchFate { from_access, from_trunk, against_rules }
    }
}

/// Whether what is in a frame comes, whatever is around it.
fn seen(wire: &Wire, frame: &[u8]) -> bool {
    wire.find(SHORT, |seen| seen.ends_with(&frame[14..])).is_some()
}
