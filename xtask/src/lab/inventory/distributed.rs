//! Distributed routers (DVR): what they have on each host, and the one place for what cannot be distributed.

use serde::{Deserialize, Serialize};

use super::{Cidr, RouterPort, Uuid};

/// What a distributed router has beyond its `qr-` sides, which are the same on every host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distributed {
    /// Its part on each host with instances behind it, and on its own host.
    pub locals: Vec<LocalRouter>,
    /// Where instances without a floating IP leave.
    pub snat: CentralSnat,
}

impl Distributed {
    /// Its part on a host.
    pub fn on(&self, host: &str) -> Option<&LocalRouter> {
        self.locals.iter().find(|local| local.host == host)
    }
}

/// The part of a distributed router on one host: the namespace `qrouter-`, joined to the host's `fip-` one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalRouter {
    /// The host.
    pub host: String,
    /// The end in the router, `rfp-`.
    pub router_end: LinkEnd,
    /// The end in the `fip-` namespace, `fpr-`.
    pub fip_end: LinkEnd,
}

/// One end of the veth pair between a router and the `fip-` namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkEnd {
    /// Device: prefix and 10 characters of the router's id.
    pub device: String,
    /// MAC address.
    pub mac: String,
    /// One of the two addresses of a /31 in 169.254.64.0/18.
    pub address: Cidr,
}

/// The namespace of a distributed router that translates to its gateway's address, `snat-<router id>`, on its own host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CentralSnat {
    /// The namespace.
    pub netns: String,
    /// Its `sg-` sides, in the order of the router's interfaces.
    pub ports: Vec<RouterPort>,
}

/// The namespace that takes floating IPs from the external network to the distributed routers of its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FipNamespace {
    /// The host.
    pub host: String,
    /// The external network.
    pub network: Uuid,
    /// The namespace, `fip-<external network id>`.
    pub netns: String,
    /// Its side in the external network, `fg-`; it answers there for every floating IP of the host.
    pub gateway: RouterPort,
}
