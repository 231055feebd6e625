//! How one port is enforced, in a few words: for a row of a list and for a hop of a path.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{asked::GroupRef, difference::differences, show::groups};

use crate::{
    fact::enforcement::{EnforcedPort, LoadedTables},
    inventory::{Enforcement, Inventory, Nic},
    policy::types::{Direction, Mode},
};

/// How netdiag enforces security groups at an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The port's id in the policy.
    pub port_id: String,
    /// What becomes of its packets; none where no hook can hold, so that everything passes.
    pub mode: Option<Mode>,
    /// Its groups.
    pub groups: Vec<GroupRef>,
    /// What decides about packets from the instance.
    pub egress: Side,
    /// What decides about packets to the instance.
    pub ingress: Side,
    /// Why it cannot be enforced.
    pub refused: Option<String>,
    /// Where what is loaded differs from what is asked.
    pub differences: Vec<String>,
}

/// One direction of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Side {
    /// The hook: `tcx`, `clsact`, `xdp`; none where nothing is attached.
    pub hook: Option<String>,
    /// A program of somebody else that comes before it.
    pub behind: Option<String>,
    /// Rules in force; none where the maps could not be read.
    pub rules: Option<usize>,
    /// Packets it has dropped.
    pub dropped: u64,
}

impl Summary {
    /// The summary of a card; none where netdiag has nothing to do with it.
    pub(crate) fn of(inventory: &Inventory<'_>, nic: &Nic<'_>) -> Option<Self> {
        match inventory.enforcement(nic) {
            Enforcement::Absent | Enforcement::Unknown | Enforcement::Unmanaged => None,
            Enforcement::Refused(port) => Some(Self {
                port_id: port.port_id.clone(),
                mode: None,
                groups: Vec::new(),
                egress: Side::default(),
                ingress: Side::default(),
                refused: Some(port.why.clone()),
                differences: Vec::new(),
            }),
            Enforcement::Port(port) => {
                let tables = inventory.snapshot.facts.enforcement.as_ref().and_then(|loaded| loaded.tables.as_ref());
                let groups = groups(port, inventory.asked());
                let differences = differences(inventory, port);
                Some(Self { groups, differences, ..Self::of_port(port, tables) })
            }
        }
    }

    /// The summary of a port.
    fn of_port(port: &EnforcedPort, tables: Option<&LoadedTables>) -> Self {
        let side = |direction| {
            let hook = port.hook(direction);
            Side {
                hook: hook.map(|hook| hook.hook.clone()),
                behind: hook.and_then(|hook| hook.behind.clone()),
                rules: tables.and_then(|tables| tables.rules(port.slot, direction)).map(|rules| rules.len()),
                dropped: port.dropped(direction).iter().map(|count| count.packets).sum(),
            }
        };
        Self {
            port_id: port.port_id.clone(),
            mode: Some(port.mode),
            groups: Vec::new(),
            egress: side(Direction::Egress),
            ingress: side(Direction::Ingress),
            refused: None,
            differences: Vec::new(),
        }
    }

    /// One direction.
    pub const fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }

    /// The hooks in a few words: `tcx`, or `xdp out, tcx in` where the directions differ.
    pub fn hooks(&self) -> String {
        let word = |side: &Side| side.hook.clone().unwrap_or_else(|| "NONE".to_owned());
        let (egress, ingress) = (word(&self.egress), word(&self.ingress));
        if egress == ingress { egress } else { format!("{egress} out, {ingress} in") }
    }

    /// What becomes of its packets, in one word.
    pub const fn mode_name(&self) -> &'static str {
        match self.mode {
            Some(mode) => mode.name(),
            None => "refused",
        }
    }
}

impl LoadedTables {
    /// Numbers of the rules in force in one direction of a port, of both families; none where the port has no policy.
    pub fn rules(&self, slot: u32, direction: Direction) -> Option<BTreeSet<u32>> {
        let active = self.active.get(&self.ports.get(&slot)?.policy)?;
        let view = self.views.get(&active.view)?;
        let ingress = direction == Direction::Ingress;
        let grants: BTreeSet<u32> =
            [false, true].map(|ipv6| view.sides[netdiag_common::abi::policy::side(ingress, ipv6)].1).into();
        // Number 0 of either half stands for nothing.
        let of_side = |grant: &&(u32, u32, u32, u32)| grants.contains(&grant.0) && grant.3 != 0;
        Some(self.grants.iter().filter(of_side).map(|(_, _, _, rule)| *rule).collect())
    }
}
