//! What Neutron leaves on a compute host, shared by the profiles that have Neutron: the example deployment (`plan`), the
//! Open vSwitch agent (`agent`, `flows`, `controller`), its hybrid firewall (`firewall`, `security`), and the L3 agent
//! (`router`, `rules`; of distributed routers also `distributed`, `dvr`).
//!
//! Names, columns, flow tables, chains and marks are those of Neutron with ML2/Open vSwitch and a legacy or distributed
//! router, as its agents write them with default options. `iptables-save`, `ovs-vsctl show` and `ovs-ofctl dump-flows` of a lab host are
//! meant to look like those of a real one.

pub(crate) mod agent;
pub(crate) mod controller;
pub(crate) mod distributed;
mod dvr;
pub(crate) mod firewall;
mod flows;
pub(crate) mod plan;
mod router;
mod rules;
pub(crate) mod security;

pub(crate) use rules::sized::sized as router_rules;
