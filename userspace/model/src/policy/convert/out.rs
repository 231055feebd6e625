//! The checked policy as the wire has it. Flow: policy.

use super::{port::NETWORK, protocol::protocol_name};
use crate::policy::{
    types::{AddressGroup, AddressPair, FloatingIp, Policy, Port, Remote, Rule, SecurityGroup, Service},
    wire,
};

/// A policy in the shapes it came in, which read again is the same policy.
pub fn to_wire(policy: &Policy) -> wire::State {
    let members = policy.members.iter();
    wire::State {
        security_groups: policy.groups.values().map(Into::into).collect(),
        address_groups: policy.address_groups.values().map(Into::into).collect(),
        ports: policy.ports.values().map(Into::into).collect(),
        floatingips: policy.floating_ips.values().map(Into::into).collect(),
        members: members
            .map(|(group, own)| (group.to_string(), own.iter().map(ToString::to_string).collect()))
            .collect(),
        permitted_ethertypes: policy.permitted_ethertypes.iter().map(|number| format!("{number:#06x}")).collect(),
        close_unknown_ports: policy.close_unknown_ports,
    }
}

impl From<&SecurityGroup> for wire::SecurityGroup {
    fn from(group: &SecurityGroup) -> Self {
        Self {
            id: group.id.to_string(),
            name: group.name.clone(),
            stateful: group.stateful,
            security_group_rules: group.rules.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Rule> for wire::Rule {
    fn from(rule: &Rule) -> Self {
        let (protocol, min, max) = match rule.service {
            Service::Any => (None, None, None),
            Service::Protocol(protocol) => (Some(protocol), None, None),
            Service::Ports { protocol, first, last } => (Some(protocol), Some(first), Some(last)),
            Service::Icmp { protocol, kind, code } => (Some(protocol), Some(kind.into()), code.map(Into::into)),
        };
        let (mut prefix, mut group, mut address_group) = (None, None, None);
        match &rule.remote {
            Remote::Any => {}
            Remote::Prefix(net) => prefix = Some(net.to_string()),
            Remote::Group(id) => group = Some(id.to_string()),
            Remote::AddressGroup(id) => address_group = Some(id.to_string()),
        }
        Self {
            id: rule.id.to_string(),
            direction: rule.direction,
            ethertype: rule.ethertype,
            protocol: protocol.map(protocol_name),
            port_range_min: min,
            port_range_max: max,
            remote_ip_prefix: prefix,
            remote_group_id: group,
            remote_address_group_id: address_group,
            description: rule.description.clone(),
        }
    }
}

impl From<&AddressGroup> for wire::AddressGroup {
    fn from(group: &AddressGroup) -> Self {
        Self {
            id: group.id.to_string(),
            name: group.name.clone(),
            addresses: group.addresses.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<&Port> for wire::Port {
    fn from(port: &Port) -> Self {
        let fixed = |own: &std::collections::BTreeSet<std::net::IpAddr>| {
            own.iter().map(|address| wire::FixedIp { ip_address: address.to_string() }).collect()
        };
        // Port security off and groups exclude each other, so an unfiltered port with groups is one of the network itself.
        let network = !port.filtered && !port.groups.is_empty();
        Self {
            id: port.id.to_string(),
            name: port.name.clone(),
            mac_address: port.mac.map(|mac| mac.to_string()),
            fixed_ips: port.fixed_ips.as_ref().map(fixed),
            allowed_address_pairs: port.allowed_address_pairs.iter().map(Into::into).collect(),
            security_groups: port.groups.iter().map(ToString::to_string).collect(),
            port_security_enabled: port.filtered || network,
            device_owner: network.then(|| NETWORK.to_owned()),
            host: port.binding.host.clone(),
            binding: wire::Binding {
                device: port.binding.device.clone(),
                instance: port.binding.instance.clone(),
                port_id: port.binding.port_id,
            },
            log_allowed: port.log_allowed,
        }
    }
}

impl From<&FloatingIp> for wire::FloatingIp {
    fn from(floating: &FloatingIp) -> Self {
        Self {
            id: floating.id.to_string(),
            floating_ip_address: floating.floating_ip_address.to_string(),
            fixed_ip_address: floating.fixed_ip_address.map(|address| address.to_string()),
            port_id: floating.port_id.as_ref().map(ToString::to_string),
            floating_network_id: floating.network.clone(),
            device: floating.device.clone(),
            qos_policy_id: floating.qos_policy.clone(),
        }
    }
}

impl From<&AddressPair> for wire::AddressPair {
    fn from(pair: &AddressPair) -> Self {
        Self { mac_address: pair.mac.map(|mac| mac.to_string()), ip_address: pair.address.to_string() }
    }
}
