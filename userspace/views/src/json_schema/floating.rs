//! The answer of `netdiag fip`.

use netdiag_model::{
    fact::enforcement::WayCount,
    floating::{self, ExternalHook, FastPath, show as model},
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{GapDocument, Published, RuleDirection, SCHEMA_VERSION, published};
use crate::time;

/// Floating IPs of a host and the ways they take.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(title = "netdiag fip")]
pub struct FloatingIpsDocument {
    /// Version of this shape; a field that goes away or changes its meaning raises it.
    pub schema_version: u32,
    /// Host the look was taken on.
    pub host: String,
    /// When the look was taken, RFC 3339 in UTC; null where the clock gave no instant.
    pub taken_at: Option<String>,
    /// What was asked for; null for all.
    pub asked: Option<String>,
    /// An agent says which ways there are.
    pub agent: bool,
    /// The floating IPs.
    pub floating_ips: Vec<FloatingIpDocument>,
    /// What could not be read and would belong to this answer.
    pub gaps: Vec<GapDocument>,
}

impl Published for model::Listed {
    type Document = FloatingIpsDocument;

    fn document(&self) -> FloatingIpsDocument {
        FloatingIpsDocument {
            schema_version: SCHEMA_VERSION,
            host: self.hostname.clone(),
            taken_at: time::rfc3339(self.taken_at),
            asked: self.asked.clone(),
            agent: self.agent,
            floating_ips: published(&self.rows),
            gaps: published(&self.gaps),
        }
    }
}

/// A floating IP.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FloatingIpDocument {
    /// The address the outside knows.
    pub floating_ip_address: String,
    /// The address it stands for; null while it is associated with no port.
    pub fixed_ip_address: Option<String>,
    /// Its port, where netdiag enforces one.
    pub port_id: Option<String>,
    /// The instance.
    pub instance: Option<String>,
    /// Device of the host's end.
    pub host_device: Option<String>,
    /// The router: name of its namespace, or `host`; null where only the maps know of it.
    pub router: Option<String>,
    /// Who made it; null where only the maps know of it.
    pub owner: Option<FloatingOwner>,
    /// Which way its packets go.
    pub way: FloatingWay,
    /// Why not past the router, or what the agent says else; null where nothing is to be said.
    pub why: Option<String>,
    /// The external device.
    pub external_device: Option<String>,
    /// VLAN of the external network there; null is untagged.
    pub vlan: Option<u16>,
    /// Packets of its port's floating IPs by direction and way.
    pub ways: Vec<WayDocument>,
    /// All of its way past the router, as the agent found it; null where there is none.
    pub path: Option<FastPathDocument>,
}

impl From<&model::Row> for FloatingIpDocument {
    fn from(row: &model::Row) -> Self {
        Self {
            floating_ip_address: row.floating_ip_address.to_string(),
            fixed_ip_address: row.fixed_ip_address.map(|address| address.to_string()),
            port_id: row.port_id.clone(),
            instance: row.instance.clone(),
            host_device: row.host_device.clone(),
            router: row.router.clone(),
            owner: row.owner.map(Into::into),
            way: row.standing.into(),
            why: row.why.clone(),
            external_device: row.external_device.clone(),
            vlan: row.vlan,
            ways: published(&row.ways),
            path: row.path.as_ref().map(Into::into),
        }
    }
}

/// Which way the packets of a floating IP go.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FloatingWay {
    /// Past the router.
    Fast,
    /// New flows through the router, those that began past it past it.
    Draining,
    /// Through the router.
    Slow,
    /// Asked of netdiag, and not served.
    Held,
    /// Nowhere.
    Broken,
    /// Through the router, or past it: what is loaded could not be read.
    Unknown,
}

impl From<model::Standing> for FloatingWay {
    fn from(standing: model::Standing) -> Self {
        match standing {
            model::Standing::Fast => Self::Fast,
            model::Standing::Draining => Self::Draining,
            model::Standing::Slow => Self::Slow,
            model::Standing::Held => Self::Held,
            model::Standing::Broken => Self::Broken,
            model::Standing::Unknown => Self::Unknown,
        }
    }
}

/// Who made a floating IP.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FloatingOwner {
    /// Somebody else, as Neutron's L3 agent: found in a router namespace.
    Found,
    /// netdiag, from its policy.
    Netdiag,
}

impl From<floating::Owner> for FloatingOwner {
    fn from(owner: floating::Owner) -> Self {
        match owner {
            floating::Owner::Found => Self::Found,
            floating::Owner::Netdiag => Self::Netdiag,
        }
    }
}

/// How many packets took a way.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct WayDocument {
    /// Direction, as the instance sees it.
    pub direction: RuleDirection,
    /// The way: `fast`, or why it was the slow one.
    pub way: String,
    /// Packets.
    pub packets: u64,
    /// Bytes, link-layer headers included.
    pub bytes: u64,
}

impl From<&WayCount> for WayDocument {
    fn from(count: &WayCount) -> Self {
        let WayCount { direction, way, packets, bytes } = count.clone();
        Self { direction: direction.into(), way, packets, bytes }
    }
}

/// A way past the router.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FastPathDocument {
    /// The external device.
    pub device: String,
    /// Where its frames are met: `tc`, `internal` or `xdp`.
    pub hook: &'static str,
    /// MAC address of the router on the external network.
    pub outer_mac: String,
    /// Bytes an IP packet may have there.
    pub outer_mtu: u32,
    /// MAC address of the router on the instance's network.
    pub inner_mac: String,
    /// Bytes an IP packet may have there.
    pub inner_mtu: u32,
    /// MAC address of the instance.
    pub mac: String,
    /// Packets are put into the instance's own device.
    pub peer: bool,
    /// How much smaller the TTL becomes.
    pub hops: u16,
    /// New flows may begin so.
    pub begins: bool,
}

impl From<&FastPath> for FastPathDocument {
    fn from(path: &FastPath) -> Self {
        Self {
            device: path.device.clone(),
            hook: match path.hook {
                ExternalHook::Tc => "tc",
                ExternalHook::Internal => "internal",
                ExternalHook::Xdp => "xdp",
            },
            outer_mac: path.outer_mac.to_string(),
            outer_mtu: path.outer_mtu,
            inner_mac: path.inner_mac.to_string(),
            inner_mtu: path.inner_mtu,
            mac: path.mac.to_string(),
            peer: path.peer,
            hops: path.hops,
            begins: path.begins,
        }
    }
}
