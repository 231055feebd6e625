//! What targets change in a packet, and how an undecided test is put in words. Flow: explain.

use super::{Effect, Place, World, redirect_to};
use crate::netfilter::{Address, Bits, ConnmarkOp, CtState, Known, NatTo, Target, Test, matching::Truth};

/// Applies a target after which the packet is still there.
pub(super) fn apply(target: &Target, place: Place<'_>, world: &mut World) -> Effect {
    match target {
        Target::Mark { value, mask } => {
            world.packet.mark = world.packet.mark.xmark(Bits::is(*value), *mask);
            Effect::Mark
        }
        Target::Connmark(operation) => {
            connmark(*operation, world);
            Effect::Mark
        }
        Target::Track { notrack: true, .. } => {
            world.packet.state = Known::Is(CtState::Untracked);
            Effect::NoTrack
        }
        Target::Track { zone: Some(zone), .. } => {
            world.packet.zone = Known::Is(*zone);
            Effect::Zone(*zone)
        }
        Target::Dnat(to) => dnat(to, None, world),
        Target::Redirect(to) => {
            let own = redirect_to(place.hook, world.packet.ipv6);
            dnat(to, Some(own), world)
        }
        Target::Snat(to) => snat(to, None, world),
        Target::Masquerade(to) => snat(to, Some(Address::Local), world),
        Target::Track { notrack: false, zone: None }
        | Target::None
        | Target::Passes(_)
        | Target::Accept
        | Target::Drop
        | Target::Reject(_)
        | Target::Return
        | Target::Jump(_)
        | Target::Goto(_)
        | Target::Queue
        | Target::Other(_) => Effect::Pass,
    }
}

fn connmark(operation: ConnmarkOp, world: &mut World) {
    let packet = &mut world.packet;
    match operation {
        ConnmarkOp::Set { value, mask } => packet.connmark = packet.connmark.xmark(Bits::is(value), mask),
        ConnmarkOp::Save { nfmask, ctmask } => {
            packet.connmark = packet.connmark.xmark(packet.mark.masked(nfmask), ctmask);
        }
        ConnmarkOp::Restore { nfmask, ctmask } => {
            packet.mark = packet.mark.xmark(packet.connmark.masked(ctmask), nfmask);
        }
    }
}

fn dnat(to: &NatTo, own: Option<Address>, world: &mut World) -> Effect {
    let packet = &mut world.packet;
    let address = own.unwrap_or_else(|| address(to, packet.destination));
    let port = port(to, packet.destination_port);
    let same = packet.destination == address && packet.destination_port == port;
    if !(same && matches!(address, Address::Is(_))) {
        packet.dnatted = Known::Is(true);
        packet.to_local = if address == Address::Local { Known::Is(true) } else { Known::Unknown };
    }
    packet.destination = address;
    packet.destination_port = port;
    (world.bound, world.translated) = (Truth::Yes, true);
    Effect::Dnat(address, port)
}

fn snat(to: &NatTo, own: Option<Address>, world: &mut World) -> Effect {
    let packet = &mut world.packet;
    let address = own.unwrap_or_else(|| address(to, packet.source));
    // The kernel keeps the port where it is free; with --random it never does.
    let port =
        if to.random && packet.source_port != Known::Absent { Known::Unknown } else { port(to, packet.source_port) };
    packet.snatted = Known::Is(true);
    packet.source = address;
    packet.source_port = port;
    (world.bound, world.translated) = (Truth::Yes, true);
    Effect::Snat(address, port)
}

fn address(to: &NatTo, now: Address) -> Address {
    match (to.addresses, to.address()) {
        (None, _) => now,
        (Some(_), Some(address)) => Address::Is(address),
        (Some(_), None) => Address::Unknown,
    }
}

fn port(to: &NatTo, now: Known<u16>) -> Known<u16> {
    let Some(ports) = to.ports else { return now };
    let (first, last) = (ports.range.first, ports.range.last);
    match (now, ports.base) {
        _ if first == last => Known::Is(first),
        (Known::Is(port), Some(base)) if first < last => {
            // As the kernel counts: around and around, and below the base from the top of 16 bits.
            let width = u32::from(last - first) + 1;
            let offset = u32::from(port.wrapping_sub(base)) % width;
            u16::try_from(u32::from(first) + offset).map_or(Known::Unknown, Known::Is)
        }
        _ => Known::Unknown,
    }
}

/// What is not known where a test could not be decided.
pub(super) fn unknown_test(test: &Test) -> String {
    let what = match test {
        Test::Source(_) => "the source address",
        Test::Destination(_) => "the destination address",
        Test::InDevice(_) => "the device it comes by",
        Test::OutDevice(_) => "the device it leaves by",
        Test::Protocol(_) => "the protocol",
        Test::Ports { .. } => "the port",
        Test::Icmp { .. } => "the ICMP type",
        Test::States(_) => "the state of its flow",
        Test::Mark { .. } => "its mark",
        Test::Connmark { .. } => "the mark of its flow",
        Test::PhysdevIn(_) | Test::PhysdevIsIn => "the bridge port it comes by",
        Test::PhysdevOut(_) | Test::PhysdevIsOut => "the bridge port it leaves by",
        Test::PhysdevIsBridged => "whether it is bridged or routed",
        Test::SourceMac(_) => "the source MAC address",
        Test::AddressKind { .. } => "whether the address is one of the namespace's own",
        Test::Fragment => "whether it is a fragment",
        Test::TcpFlags { .. } => "its TCP flags",
        Test::Ipv6(_) | Test::EtherType(_) => "its protocol",
        Test::Set { name, members: None, .. } => return format!("the members of the set {name} are not known"),
        Test::Set { name, .. } => return format!("whether it is in the set {name} is not known"),
        Test::Other(raw) => return format!("not understood: {raw}"),
    };
    format!("{what} is not known")
}
