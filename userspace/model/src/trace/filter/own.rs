//! Rules inside the instance itself: what its owner filters, where its namespace can be read.

use super::{Place, ask, device, push_filter};
use crate::{
    id::LinkKey,
    inventory::Inventory,
    netfilter::{Address, Hook, Known, Packet},
    trace::{outward::Way, path::Path},
};

/// What the instance does not let out. Nothing is shown where it filters nothing.
pub(in crate::trace) fn lets_out(way: &mut Way<'_, '_>) {
    let inventory = way.inventory;
    let (Some(inner), Some(source)) = (way.nic.inner, way.source) else { return };
    let packet = Packet {
        in_device: Known::Absent,
        out_device: device(inventory, inner),
        to_local: Known::Is(false),
        ..Packet::between(Address::Is(source), Address::Outside)
    };
    own(inventory, &mut way.path, inner, (Hook::Output, packet), "packets from the instance to the outside");
}

/// What the instance does not let in.
pub(in crate::trace) fn lets_in(way: &Way<'_, '_>, path: &mut Path) {
    let (Some(inner), Some(source)) = (way.nic.inner, way.source) else { return };
    let packet = Packet {
        in_device: device(way.inventory, inner),
        out_device: Known::Absent,
        to_local: Known::Is(true),
        ..Packet::between(Address::Outside, Address::Is(source))
    };
    own(way.inventory, path, inner, (Hook::Input, packet), "packets to the instance");
}

fn own(inventory: &Inventory<'_>, path: &mut Path, inner: LinkKey, (hook, packet): (Hook, Packet), what: &str) {
    if inventory.rulesets(inner.netns).is_empty() {
        return;
    }
    let walked = ask(inventory, inner.netns, hook, packet);
    let label = inventory.netns(inner.netns);
    let place = Place { netns: inner.netns, label: &label, name: "its own filter".to_owned(), what };
    push_filter(path, inventory, &place, &walked);
}
