//! A router as Neutron's L3 agent leaves it: namespace, addresses, routes, sysctls, iptables rules, metadata service.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context as _, Result};

use super::rules;
use crate::lab::{
    command, image,
    inventory::{Inventory, Router},
    netns,
};

/// Sysctls the agent sets in the namespaces of legacy routers.
const SYSCTLS: [&str; 5] = [
    "net.ipv4.ip_forward=1",
    "net.ipv4.conf.all.arp_ignore=1",
    "net.ipv4.conf.all.arp_announce=2",
    "net.netfilter.nf_conntrack_tcp_be_liberal=1",
    "net.ipv6.conf.all.forwarding=1",
];

/// Where the web pages of the metadata service lie.
const METADATA_ROOT: &str = "/var/lib/neutron/metadata";

/// Makes the namespace; its devices are moved there next.
pub(crate) fn add_namespace(router: &Router) -> Result<()> {
    netns::add(&router.netns)?;
    netns::feed(&router.netns, &["iptables-restore"], &rules::ipv4(router)?)?;
    netns::feed(&router.netns, &["ip6tables-restore"], &rules::ipv6(router)?)?;
    // The conntrack sysctls appear with the first rule that needs connection tracking.
    let mut words = vec!["sysctl", "-q", "-w"];
    words.extend(SYSCTLS);
    netns::run(&router.netns, &words).map(drop)
}

/// Configures the devices that were moved into the namespace, and starts the metadata service.
pub(crate) fn configure(lab: &Inventory, router: &Router) -> Result<()> {
    let mut batch = String::new();
    for port in router.interfaces.iter().chain([&router.gateway]) {
        let network = lab.network(&port.network).context("a router on no network")?;
        let device = &port.device;
        writeln!(batch, "link set {device} address {} mtu {}", port.mac, network.mtu)?;
        writeln!(batch, "link set {device} up")?;
        writeln!(batch, "address add {} broadcast + dev {device}", port.address)?;
    }
    let gateway = &router.gateway.device;
    for floating in &router.floating_ips {
        writeln!(batch, "address add {0}/32 broadcast {0} dev {gateway}", floating.address)?;
    }
    let next_hop = lab.network(&router.gateway.network).context("a router without external network")?.gateway;
    writeln!(batch, "route add default via {next_hop} dev {gateway} proto static")?;
    netns::batch(&router.netns, &batch)?;
    // Neutron runs haproxy here. Any listener shows where the request goes, and haproxy would be one more package.
    image::write_web_root(Path::new(METADATA_ROOT))?;
    let port = rules::METADATA_PORT.to_string();
    let words = ["netns", "exec", &router.netns, "busybox", "httpd", "-p", &port, "-h", METADATA_ROOT];
    command::run("ip", words).map(drop)
}
