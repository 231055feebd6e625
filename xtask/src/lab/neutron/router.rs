//! Routers as Neutron's L3 agent leaves them: namespaces, addresses, routes, sysctls, iptables rules, metadata service.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context as _, Result};

use super::{
    dvr,
    rules::{self, Subject},
};
use crate::lab::{
    command, image,
    inventory::{Inventory, Router, RouterPort},
    netns,
};

/// Sysctls the agent sets in every namespace that routes. The one of connection tracking appears with the first rule that
/// needs it.
pub(super) const SYSCTLS: [&str; 4] = [
    "net.ipv4.ip_forward=1",
    "net.ipv4.conf.all.arp_ignore=1",
    "net.ipv4.conf.all.arp_announce=2",
    "net.ipv6.conf.all.forwarding=1",
];

/// What it sets besides where addresses are translated.
const LIBERAL: &str = "net.netfilter.nf_conntrack_tcp_be_liberal=1";

/// Where the web pages of the metadata service lie.
const METADATA_ROOT: &str = "/var/lib/neutron/metadata";

/// A namespace of the agent's, and the ports of br-int it shall have.
pub(super) struct Namespace<'a> {
    pub(super) netns: &'a str,
    pub(super) ports: Vec<&'a RouterPort>,
}

/// Makes the namespaces of a host; their devices are moved there next.
pub(super) fn add_namespaces<'a>(lab: &'a Inventory, here: &str) -> Result<Vec<Namespace<'a>>> {
    let mut namespaces = dvr::add_namespaces(lab, here)?;
    for router in legacy(lab, here) {
        add(&router.netns, &Subject::legacy(router), &[])?;
        namespaces.push(Namespace {
            netns: &router.netns,
            ports: router.interfaces.iter().chain([&router.gateway]).collect(),
        });
    }
    Ok(namespaces)
}

/// Configures the devices that were moved into the namespaces of a host, and starts the metadata services.
pub(super) fn configure(lab: &Inventory, here: &str) -> Result<()> {
    dvr::configure(lab, here)?;
    legacy(lab, here).try_for_each(|router| configure_legacy(lab, router))
}

fn legacy<'a>(lab: &'a Inventory, here: &str) -> impl Iterator<Item = &'a Router> {
    let here = here.to_owned();
    lab.routers.iter().filter(move |router| router.host == here && router.distributed.is_none())
}

/// Makes one namespace that translates, with its rules and sysctls.
pub(super) fn add(name: &str, subject: &Subject<'_>, sysctls: &[&str]) -> Result<()> {
    netns::add(name)?;
    netns::feed(name, &["iptables-restore"], &rules::ipv4(subject)?)?;
    netns::feed(name, &["ip6tables-restore"], &rules::ipv6(subject)?)?;
    let words = [&["sysctl", "-q", "-w", LIBERAL], &SYSCTLS[..], sysctls].concat();
    netns::run(name, &words).map(drop)
}

fn configure_legacy(lab: &Inventory, router: &Router) -> Result<()> {
    let mut batch = String::new();
    for port in router.interfaces.iter().chain([&router.gateway]) {
        bring_up(&mut batch, lab, port)?;
    }
    let gateway = &router.gateway.device;
    for floating in &router.floating_ips {
        writeln!(batch, "address add {0}/32 broadcast {0} dev {gateway}", floating.address)?;
    }
    default_route(&mut batch, lab, &router.gateway)?;
    netns::batch(&router.netns, &batch)?;
    start_metadata(&router.netns)
}

/// Gives a port its MAC address, MTU and address.
pub(super) fn bring_up(batch: &mut String, lab: &Inventory, port: &RouterPort) -> Result<()> {
    let network = lab.network(&port.network).context("a router on no network")?;
    let device = &port.device;
    writeln!(batch, "link set {device} address {} mtu {}", port.mac, network.mtu)?;
    writeln!(batch, "link set {device} up")?;
    writeln!(batch, "address add {} broadcast + dev {device}", port.address)?;
    Ok(())
}

/// The way to the outside, by a port in the external network.
pub(super) fn default_route(batch: &mut String, lab: &Inventory, port: &RouterPort) -> Result<()> {
    let next_hop = lab.network(&port.network).context("a router without external network")?.gateway;
    writeln!(batch, "route add default via {next_hop} dev {} proto static", port.device)?;
    Ok(())
}

/// Starts what answers for metadata. Neutron runs haproxy here. Any listener shows where the request goes, and haproxy
/// would be one more package.
pub(super) fn start_metadata(namespace: &str) -> Result<()> {
    image::write_web_root(Path::new(METADATA_ROOT))?;
    let port = rules::METADATA_PORT.to_string();
    let words = ["netns", "exec", namespace, "busybox", "httpd", "-p", &port, "-h", METADATA_ROOT];
    command::run("ip", words).map(drop)
}
