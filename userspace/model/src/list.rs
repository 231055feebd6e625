//! Every instance of a host on one page: the answer of `netdiag list`. Flow: discover.
//!
//! Plain data for views: the inventory fills it, nothing here looks anything up.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::{
    fact::Gap,
    floating::show::Standing,
    groups::Summary,
    id::{Mac, Uuid},
    trace::{HopState, Identity},
};

/// The instances of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// Host the look was taken on.
    pub hostname: String,
    /// When, in seconds since 1970-01-01 UTC.
    pub taken_at: u64,
    /// One row per instance.
    pub instances: Vec<Row>,
    /// What could not be read and would belong to this answer.
    pub gaps: Vec<Gap>,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The instance, by every identity it has.
    pub identity: Identity,
    /// Its interfaces; an instance without any is listed all the same.
    pub interfaces: Vec<RowInterface>,
    /// The worst state any hop of any of its paths is in.
    pub worst: HopState,
    /// The worst that was found on its paths, in one sentence; none where nothing is to be said.
    pub why: Option<String>,
}

/// One interface of a listed instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RowInterface {
    /// The instance's end.
    pub device: Option<String>,
    /// MAC address of the instance's end.
    pub mac: Option<Mac>,
    /// Addresses: those configured inside, for a VM those the host knows of.
    pub addresses: Vec<IpNet>,
    /// Neutron port.
    pub port_id: Option<Uuid>,
    /// The host's end.
    pub host_device: Option<String>,
    /// First bridge.
    pub bridge: Option<String>,
    /// VLAN of the network on this host.
    pub vlan_tag: Option<u16>,
    /// Neutron or Docker network.
    pub network_id: Option<String>,
    /// Name of the network.
    pub network_name: Option<String>,
    /// `vxlan`, `vlan`, `flat`, `gre`, `geneve`, `local`, Docker's driver.
    pub network_type: Option<String>,
    /// VNI or provider VLAN.
    pub segmentation_id: Option<u32>,
    /// Floating IPs.
    pub floating_ips: Vec<IpAddr>,
    /// Which way each of them takes, where netdiag has to do with it.
    pub floating_ways: Vec<FloatingWay>,
    /// How netdiag enforces security groups here; none where it does not.
    pub enforcement: Option<Summary>,
    /// The worst state any hop of its paths is in.
    pub state: HopState,
}

/// Which way a floating IP takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FloatingWay {
    /// The floating IP.
    pub address: IpAddr,
    /// Which way its packets go.
    pub standing: Standing,
    /// Why not past the router.
    pub why: Option<String>,
}
