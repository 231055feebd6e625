//! Who tells a bridge of Open vSwitch what to do with frames. Flow: discover.

use std::net::IpAddr;

use crate::fact::{ControllerFact, OvsBridgeFact, SwitchFact};

/// The bridge that instances are plugged into, where no other was configured.
const INTEGRATION: &str = "br-int";

/// Where Neutron's agent listens for the bridges it runs (`of_listen_address`, `of_listen_port`).
const AGENT: &str = "tcp:127.0.0.1:6633";

/// Who runs a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlPlane {
    /// `neutron-openvswitch-agent`: every network has a VLAN of this host.
    NeutronAgent,
    /// `ovn-controller`.
    Ovn,
    /// OpenDaylight, which manages the database and the flows from elsewhere.
    OpenDaylight,
}

impl ControlPlane {
    /// Who runs a bridge, by the marks each leaves in the database. None where nobody left one, which says nothing.
    pub fn of(switch: &SwitchFact, bridge: &OvsBridgeFact) -> Option<Self> {
        let configured = |key: &str| switch.external_ids.get(key).map(String::as_str);
        let ovn = configured("ovn-remote").and(configured("ovn-bridge").or(Some(INTEGRATION)));
        let odl = switch.external_ids.keys().any(|key| key.starts_with("odl_os_hostconfig_"));
        let wired = bridge.ports.iter().any(|port| port.other_config.contains_key("net_uuid"));
        if ovn == Some(&bridge.name) {
            Some(Self::Ovn)
        } else if (odl && bridge.name == INTEGRATION) || managed_from_elsewhere(switch, bridge) {
            Some(Self::OpenDaylight)
        } else if wired || bridge.controllers.iter().any(|controller| controller.target == AGENT) {
            Some(Self::NeutronAgent)
        } else {
            None
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NeutronAgent => "Neutron's agent",
            Self::Ovn => "OVN",
            Self::OpenDaylight => "OpenDaylight",
        }
    }

    /// True where networks are told apart by nothing but flows: a port has no VLAN then, and is well.
    pub const fn by_flows_alone(self) -> bool {
        match self {
            Self::NeutronAgent => false,
            Self::Ovn | Self::OpenDaylight => true,
        }
    }
}

/// True where one and the same machine, and not this one, manages the database and the bridge's flows.
fn managed_from_elsewhere(switch: &SwitchFact, bridge: &OvsBridgeFact) -> bool {
    let managers: Vec<_> = switch.managers.iter().filter_map(called).collect();
    bridge.controllers.iter().filter_map(called).any(|host| managers.contains(&host))
}

/// The other machine that a connection is opened to: none for those that wait for somebody (`ptcp:`) and for this one.
fn called(controller: &ControllerFact) -> Option<&str> {
    let target = controller.target.strip_prefix("tcp:").or_else(|| controller.target.strip_prefix("ssl:"))?;
    let host = match target.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next()?,
        None => target.split(':').next()?,
    };
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    (!here).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::called;
    use crate::fact::ControllerFact;

    #[test]
    fn only_another_machine_is_called() {
        for (target, host) in [
            ("tcp:192.0.2.9:6640", Some("192.0.2.9")),
            ("ssl:192.0.2.9", Some("192.0.2.9")),
            ("tcp:[2001:db8::9]:6653", Some("2001:db8::9")),
            ("ssl:odl.example:6640", Some("odl.example")),
            ("tcp:127.0.0.1:6633", None),
            ("tcp:[::1]:6633", None),
            ("tcp:localhost:6633", None),
            ("ptcp:6640:127.0.0.1", None),
            ("punix:/run/openvswitch/br-int.mgmt", None),
            ("", None),
        ] {
            assert_eq!(called(&ControllerFact { target: target.to_owned(), connected: true }), host, "{target}");
        }
    }
}
