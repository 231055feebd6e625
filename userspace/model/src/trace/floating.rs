//! Floating IPs that go past bridge and router: where they leave the path that packets else take, and where they come back.
//!
//! What is loaded is shown, not what was asked for. The hops of the way through the router stay on the path: what is not for
//! the fast way takes them.

use super::{
    Finding, FloatingIp, Hop, HopKind, HopState, Severity,
    command::quote,
    outward::Way,
    path::{Path, finding},
};
use crate::{
    floating::show::{self, Row, Standing},
    policy::types::Direction,
};

/// Where what the instance sends goes past bridge and router.
pub(super) fn outward(way: &mut Way<'_, '_>) {
    let rows = show::of_nic(way.inventory, way.nic);
    for row in rows.iter().filter(|row| is_fast(row)) {
        let by = row.external_device.as_deref().unwrap_or("the external device");
        let note = format!("leaves by {by} past bridge and router; {}", counted(row, Direction::Egress));
        way.path.push(hop(way, row, (Direction::Egress, note)));
    }
    let held: Vec<Finding> = rows.iter().filter(|row| row.standing == Standing::Held).map(held).collect();
    way.path.findings.extend(held);
}

/// Where what comes to the instance goes past bridge and router: at the external device, on the way in.
pub(super) fn inward(way: &Way<'_, '_>, path: &mut Path, device: &str) {
    for row in show::of_nic(way.inventory, way.nic) {
        if is_fast(&row) && row.external_device.as_deref() == Some(device) {
            let to = row.host_device.as_deref().unwrap_or("the instance");
            let note = format!("goes to {to} past router and bridge; {}", counted(&row, Direction::Ingress));
            path.push(hop(way, &row, (Direction::Ingress, note)));
        }
    }
}

/// Which way each floating IP takes, and what breaks it that its rules do not show.
pub(super) fn ways(way: &mut Way<'_, '_>, floating_ips: &mut [FloatingIp]) {
    let rows = show::of_nic(way.inventory, way.nic);
    for floating in floating_ips {
        let is_it = |row: &&Row| std::net::IpAddr::V4(row.floating_ip_address) == floating.address;
        floating.way = rows.iter().find(is_it).cloned();
        let broken = floating.way.as_ref().filter(|row| row.standing == Standing::Broken);
        if let Some(row) = broken.filter(|_| floating.state <= HopState::Warning) {
            floating.state = HopState::Broken;
            way.path.findings.push(broken_by(row));
        }
    }
}

fn is_fast(row: &Row) -> bool {
    matches!(row.standing, Standing::Fast | Standing::Draining)
}

fn hop(way: &Way<'_, '_>, row: &Row, (direction, note): (Direction, String)) -> Hop {
    let address = row.floating_ip_address.to_string();
    let counts = row.ways.iter().filter(|count| count.direction == direction);
    let counts = counts.map(|count| (count.way.clone(), format!("{} pkts", count.packets)));
    let mut detail: Vec<(String, String)> = vec![];
    detail.extend(row.router.as_ref().map(|router| ("router".to_owned(), router.clone())));
    detail.extend(row.vlan.map(|vlan| ("VLAN".to_owned(), vlan.to_string())));
    detail.extend(row.why.as_ref().map(|why| ("agent".to_owned(), why.clone())));
    detail.extend(counts);
    Hop {
        kind: HopKind::FastPath,
        verify: vec![format!("netdiag fip {}", quote(&address))],
        name: address,
        netns: way.inventory.host.map(|host| way.inventory.netns(host)),
        state: HopState::Ok,
        status: row.standing.name().to_owned(),
        note,
        detail,
        ..Hop::default()
    }
}

fn counted(row: &Row, direction: Direction) -> String {
    let ((fast, slow), refused) = (row.packets(direction), row.refused(direction));
    let refused = if refused > 0 { format!(", {refused} refused by its groups") } else { String::new() };
    format!("{fast} packets so, {slow} by the hops below{refused}")
}

fn held(row: &Row) -> Finding {
    let address = row.floating_ip_address.to_string();
    let message = format!("floating IP {address} is asked of netdiag and not served");
    finding(Severity::Warning, "floating-ip-held", &address, message)
        .seen(row.why.clone().unwrap_or_default())
        .verify(format!("netdiag fip {}", quote(&address)))
        .fix("give the agent another: its policy, or what the reason names")
}

fn broken_by(row: &Row) -> Finding {
    let address = row.floating_ip_address.to_string();
    let why = row.why.clone().unwrap_or_default();
    finding(Severity::Error, "floating-ip-broken", &address, format!("floating IP {address} reaches nobody: {why}"))
        .seen("the agent found no way that its packets could take")
        .verify(format!("netdiag fip {}", quote(&address)))
        .fix("see what the reason names")
}
