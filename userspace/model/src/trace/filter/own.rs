//! Rules inside the instance itself: what its owner filters, where its namespace can be read.

use super::{Place, answers, device, push_filter};
use crate::{
    id::LinkKey,
    inventory::Inventory,
    netfilter::{Address, Hook, Known, Outcome, Packet, Walk},
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
    let walked = own(inventory, inner, &[Hook::Output, Hook::Postrouting], packet);
    let Some(walked) = walked else { return };
    let at = |what| (inner, what);
    show(inventory, &mut way.path, at("packets from the instance to the outside"), &walked);
    if matches!(walked.outcome, Outcome::Drop { .. }) {
        return;
    }
    let back = Packet { out_device: Known::Absent, to_local: Known::Is(true), ..answers::answer(&walked.packet) };
    let Some(walked) = own(inventory, inner, &[Hook::Prerouting, Hook::Input], back) else { return };
    if matches!(walked.outcome, Outcome::Drop { .. }) {
        show(inventory, &mut way.path, at("answers to the instance"), &walked);
    }
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
    if let Some(walked) = own(way.inventory, inner, &[Hook::Prerouting, Hook::Input], packet) {
        show(way.inventory, path, (inner, "packets to the instance"), &walked);
    }
}

/// None where the instance filters nothing.
fn own(inventory: &Inventory<'_>, inner: LinkKey, hooks: &[Hook], packet: Packet) -> Option<Walk> {
    let filters = !inventory.rulesets(inner.netns).is_empty();
    filters.then(|| answers::through(inventory, inner.netns, hooks, packet))
}

fn show(inventory: &Inventory<'_>, path: &mut Path, (inner, what): (LinkKey, &str), walked: &Walk) {
    let label = inventory.netns(inner.netns);
    let place = Place { netns: inner.netns, label: &label, name: "its own filter".to_owned(), what };
    push_filter(path, inventory, &place, walked);
}
