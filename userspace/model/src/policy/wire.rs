//! Policy as files and the API write it: Neutron's field names, in YAML or JSON. Flow: policy.
//!
//! What comes in is read into a tree that knows its lines (`tree`) and looked at object by object (`object`), so that a
//! mistake has a line and a field. What goes out is the shapes here, which come in again as the same policy.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::types::{Direction, Ethertype};

/// Which fields an object may have.
pub(super) mod field;
/// JSON into a tree.
mod json;
/// One object of a document, and its fields as what they should be.
pub(super) mod object;
/// A document as a tree that knows its lines.
pub(super) mod tree;
/// YAML into a tree.
mod yaml;

/// A text that holds policy: a file, or the body of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Name of the file, or what a reader may call it.
    pub name: String,
    /// YAML or JSON.
    pub text: String,
}

/// What is wrong with one field of one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mistake {
    /// Name of the document.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Object, as `security group web, rule 2`; empty where the document as a whole is meant.
    pub object: String,
    /// Field; empty where the object as a whole is meant.
    pub field: String,
    /// Why it is one.
    pub why: String,
    /// What would be right, where that can be listed.
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    pub valid: Box<[String]>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, object, field, why, valid } = self;
        write!(f, "{file}:{line}: ")?;
        for part in [object, field] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(why)?;
        if valid.is_empty() { Ok(()) } else { write!(f, "; valid: {}", valid.join(", ")) }
    }
}

impl std::error::Error for Mistake {}

/// A whole desired state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Security groups.
    pub security_groups: Vec<SecurityGroup>,
    /// Address groups.
    pub address_groups: Vec<AddressGroup>,
    /// Ports.
    pub ports: Vec<Port>,
    /// Floating IPs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub floatingips: Vec<FloatingIp>,
    /// Members of groups beyond the ports, by group.
    pub members: BTreeMap<String, Vec<String>>,
    /// Ethertypes that pass unfiltered, as `0x88cc`.
    pub permitted_ethertypes: Vec<String>,
    /// Close Neutron ports of this host that are not among the ports.
    pub close_unknown_ports: bool,
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// False: replies need rules of their own.
    pub stateful: bool,
    /// Rules.
    pub security_group_rules: Vec<Rule>,
}

/// A security group rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Id.
    pub id: String,
    /// Direction.
    pub direction: Direction,
    /// Family.
    pub ethertype: Ethertype,
    /// Name or number of the protocol; none is any.
    pub protocol: Option<String>,
    /// First port, or ICMP type.
    pub port_range_min: Option<u16>,
    /// Last port, or ICMP code.
    pub port_range_max: Option<u16>,
    /// Remote prefix.
    pub remote_ip_prefix: Option<String>,
    /// Remote security group.
    pub remote_group_id: Option<String>,
    /// Remote address group.
    pub remote_address_group_id: Option<String>,
    /// What its author says about it.
    pub description: String,
}

/// An address group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressGroup {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Prefixes.
    pub addresses: Vec<String>,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// MAC address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    /// Fixed addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_ips: Option<Vec<FixedIp>>,
    /// Allowed address pairs.
    pub allowed_address_pairs: Vec<AddressPair>,
    /// Groups.
    pub security_groups: Vec<String>,
    /// False: everything passes.
    pub port_security_enabled: bool,
    /// `network:` for a port of the network itself, which passes everything whatever its groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_owner: Option<String>,
    /// Host the port is bound to.
    #[serde(rename = "binding:host_id", skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// How it is found on this host.
    pub binding: Binding,
    /// Say of every new flow that is allowed, too.
    pub log_allowed: bool,
}

/// A floating IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIp {
    /// Id.
    pub id: String,
    /// The address the outside knows.
    pub floating_ip_address: String,
    /// The address it stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_ip_address: Option<String>,
    /// The port that has that address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_id: Option<String>,
    /// The external network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floating_network_id: Option<String>,
    /// The host's device that leads to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Its `QoS` policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos_policy_id: Option<String>,
}

/// A fixed address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedIp {
    /// The address.
    pub ip_address: String,
}

/// An allowed address pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPair {
    /// MAC address; none is the port's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    /// Address or prefix.
    pub ip_address: String,
}

/// How a port is found on this host; nothing at all for a port of another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Name of the host's device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Container name or id, or Nova UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// By the port's id.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub port_id: bool,
}
