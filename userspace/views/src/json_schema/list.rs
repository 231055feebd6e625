//! The answer of `netdiag list`.

use netdiag_model::list as model;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    EnforcementDocument, FloatingWay, GapDocument, InstanceDocument, Published, SCHEMA_VERSION, State, published, texts,
};
use crate::time;

/// Every instance of one host.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(title = "netdiag list")]
pub struct ListDocument {
    /// Version of this shape; a field that goes away or changes its meaning raises it.
    pub schema_version: u32,
    /// Host the look was taken on.
    pub host: String,
    /// When the look was taken, RFC 3339 in UTC; null where the clock gave no instant.
    pub taken_at: Option<String>,
    /// The instances.
    pub instances: Vec<ListedInstance>,
    /// What could not be read and would belong to this answer.
    pub gaps: Vec<GapDocument>,
}

impl Published for model::Listing {
    type Document = ListDocument;

    fn document(&self) -> ListDocument {
        ListDocument::from(self)
    }
}

impl From<&model::Listing> for ListDocument {
    fn from(listing: &model::Listing) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            host: listing.hostname.clone(),
            taken_at: time::rfc3339(listing.taken_at),
            instances: published(&listing.instances),
            gaps: published(&listing.gaps),
        }
    }
}

/// One instance.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ListedInstance {
    /// The instance, by every identity it has.
    pub instance: InstanceDocument,
    /// Its interfaces.
    pub interfaces: Vec<ListedInterface>,
    /// The worst state any hop of any of its paths is in.
    pub state: State,
}

impl From<&model::Row> for ListedInstance {
    fn from(row: &model::Row) -> Self {
        Self { instance: (&row.identity).into(), interfaces: published(&row.interfaces), state: row.worst.into() }
    }
}

/// One interface of an instance.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ListedInterface {
    /// Device of the instance's end.
    pub device: Option<String>,
    /// MAC address of the instance's end.
    pub mac: Option<String>,
    /// Addresses with the length of their prefix.
    pub addresses: Vec<String>,
    /// UUID of the Neutron port.
    pub port_id: Option<String>,
    /// Device of the host's end.
    pub host_device: Option<String>,
    /// First bridge.
    pub bridge: Option<String>,
    /// VLAN of the network on this host.
    pub vlan_tag: Option<u16>,
    /// Id of the Neutron or Docker network.
    pub network_id: Option<String>,
    /// Name of the network where something on this host says it.
    pub network_name: Option<String>,
    /// Type of the network: `vxlan`, `vlan`, `flat`, `gre`, `geneve`, `local`, or Docker's driver.
    pub network_type: Option<String>,
    /// VNI or provider VLAN.
    pub segmentation_id: Option<u32>,
    /// Floating IPs.
    pub floating_ips: Vec<String>,
    /// Which way each of them takes, where netdiag has to do with it.
    pub floating_ways: Vec<FloatingWayDocument>,
    /// How netdiag enforces security groups here; null where it does not.
    pub enforcement: Option<EnforcementDocument>,
    /// The worst state any hop of its paths is in.
    pub state: State,
}

impl From<&model::RowInterface> for ListedInterface {
    fn from(interface: &model::RowInterface) -> Self {
        Self {
            device: interface.device.clone(),
            mac: interface.mac.map(|mac| mac.to_string()),
            addresses: texts(&interface.addresses),
            port_id: interface.port_id.as_ref().map(ToString::to_string),
            host_device: interface.host_device.clone(),
            bridge: interface.bridge.clone(),
            vlan_tag: interface.vlan_tag,
            network_id: interface.network_id.clone(),
            network_name: interface.network_name.clone(),
            network_type: interface.network_type.clone(),
            segmentation_id: interface.segmentation_id,
            floating_ips: texts(&interface.floating_ips),
            floating_ways: published(&interface.floating_ways),
            enforcement: interface.enforcement.as_ref().map(EnforcementDocument::from),
            state: interface.state.into(),
        }
    }
}

/// Which way a floating IP takes.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FloatingWayDocument {
    /// The floating IP.
    pub floating_ip_address: String,
    /// Which way its packets go.
    pub way: FloatingWay,
    /// Why not past the router; null where they do, or nobody says.
    pub why: Option<String>,
}

impl From<&model::FloatingWay> for FloatingWayDocument {
    fn from(floating: &model::FloatingWay) -> Self {
        Self {
            floating_ip_address: floating.address.to_string(),
            way: floating.standing.into(),
            why: floating.why.clone(),
        }
    }
}
