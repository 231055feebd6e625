//! A host whose external network is a VLAN, as the database of an Open vSwitch in the kernel describes it.
//!
//! The database server is real and nobody switches by it, so that it works on any kernel: two Linux bridges and this process
//! do what the flows of Neutron's agent do. Frames of the network have a tag at `ext0` and beyond; the router's device has
//! none.
//!
//! ```text
//! eth0 of outside =(tag)= ext0 - brex - exqg =(no tag)= qg of the router qr = inqr - br0 - tap0
//! ```

use std::{
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use netdiag_agent::netns::Namespace;

use super::{FIXED, FLOATING, FloatingHost, INNER, OUTER, QG, QR, ROUTER, ends::within};
use crate::{
    agent::run,
    behaviour::wire::{Relay, tap},
    switch::Switch,
};

/// The external network's VLAN.
pub const VLAN: u16 = 107;
/// A customer's tag (IEEE 802.1Q) of the network, of high priority: what others send may have any.
pub const TAG: u32 = 0x8100_0000 | 0xa000 | VLAN as u32;
/// Bytes of the header before a frame: whether its checksum is to be made, how long its headers are, and where that begins.
const HEADER: usize = 10;
/// Where a tag is: behind both MAC addresses.
const PLACE: usize = HEADER + 12;
/// What sits between the devices, and must live as long as they are used.
#[derive(Debug)]
pub struct Wiring {
    /// The tag of what comes from outside: ethertype and contents.
    pub tag: Arc<AtomicU32>,
    _relays: [Relay; 3],
    _taps: [File; 6],
    _switch: Switch,
}

/// Makes the external network of a host such a one, with a router.
///
/// # Panics
/// It cannot be made.
#[must_use]
pub fn wire(site: &mut FloatingHost) -> Wiring {
    // With it the one to the outside goes.
    run("ip link del ext0");
    site.open_router();
    let within_router = |name: &'static str| tap_in(&site.namespace(ROUTER), name);
    let made = [
        tap_in(&site.namespace("outside"), "eth0"),
        tap("ext0").expect("a tap"),
        tap("exqg").expect("a tap"),
        within_router(QG),
        within_router(QR),
        tap("inqr").expect("a tap"),
    ];
    let tag = Arc::new(AtomicU32::new(TAG));
    let [outside, ext0, exqg, qg, qr, inqr] = &made;
    let of_outside = Arc::clone(&tag);
    let tags: [Change; 2] = [Box::new(move |frame| push(frame, of_outside.load(Ordering::Relaxed))), Box::new(pop)];
    let takes: [Change; 2] = [Box::new(pop), Box::new(|frame| push(frame, TAG))];
    let relays = [Relay::changing(outside, ext0, tags), Relay::changing(exqg, qg, takes), Relay::start(qr, inqr)];
    for line in [
        "ip link add brex type bridge stp_state 0 forward_delay 0",
        "ip link set brex up",
        "ip link set ext0 master brex up",
        "ip link set exqg master brex up",
        "ip link set inqr master br0 up",
    ] {
        run(line);
    }
    for (device, mac) in [(QR, INNER), (QG, OUTER)] {
        site.router(&format!("ip link set {device} address {mac} up"));
    }
    site.from_outside("ip addr add 203.0.113.1/24 dev eth0");
    site.from_outside("ip link set eth0 up");
    site.equip_router(&[(FLOATING, FIXED)]);
    let switch = database(site);
    Wiring { tag, _relays: relays, _taps: made, _switch: switch }
}

fn tap_in(netns: &Namespace, name: &'static str) -> File {
    within(netns, move || tap(name)).expect("a tap")
}

/// What Neutron's agent has told the switch.
fn database(site: &mut FloatingHost) -> Switch {
    let switch = Switch::database(&site.host);
    for bridge in ["br-int", "br-ex"] {
        switch.vsctl(&format!("--no-wait add-br {bridge} -- set bridge {bridge} datapath_type=system"));
    }
    for (bridge, port, peer) in [("br-int", "int-br-ex", "phy-br-ex"), ("br-ex", "phy-br-ex", "int-br-ex")] {
        let set = format!("set interface {port} type=patch options:peer={peer}");
        switch.vsctl(&format!("--no-wait add-port {bridge} {port} -- {set}"));
    }
    for (port, tag, kind) in [("tap0", 1, "\"\""), (QR, 1, "internal"), (QG, 2, "internal")] {
        let set = format!("set interface {port} type={kind} external_ids:iface-id={port}");
        switch.vsctl(&format!("--no-wait add-port br-int {port} tag={tag} -- {set}"));
    }
    let network = format!("other_config:network_type=vlan other_config:segmentation_id={VLAN}");
    switch.vsctl(&format!("--no-wait set port {QG} {network} other_config:net_uuid=external"));
    switch.vsctl("--no-wait add-port br-ex ext0");
    site.host.ovsdb.clone_from(&switch.socket);
    switch
}

/// What becomes of a frame on its way; false where it is lost.
type Change = Box<dyn Fn(&mut Vec<u8>) -> bool + Send>;

/// Puts a tag into a frame.
fn push(frame: &mut Vec<u8>, tag: u32) -> bool {
    if frame.len() < PLACE {
        return false;
    }
    frame.splice(PLACE..PLACE, tag.to_be_bytes());
    moved(frame, 4);
    true
}

/// Takes the network's tag out of a frame; others are of other networks.
fn pop(frame: &mut Vec<u8>) -> bool {
    let tag = frame.get(PLACE..).and_then(|rest| rest.first_chunk()).map(|tag| u32::from_be_bytes(*tag));
    let of_network = tag.is_some_and(|tag| tag & 0xffff_0fff == TAG & 0xffff_0fff);
    if of_network {
        frame.drain(PLACE..PLACE + 4);
        moved(frame, -4);
    }
    of_network
}

/// The header says where things are: they are elsewhere now.
fn moved(frame: &mut [u8], by: i16) {
    for at in [2, 6] {
        let place = u16::from_ne_bytes([frame[at], frame[at + 1]]);
        if place != 0 {
            frame[at..at + 2].copy_from_slice(&place.wrapping_add_signed(by).to_ne_bytes());
        }
    }
}
