//! DHCP service of a network as Neutron's DHCP agent leaves it: dnsmasq in a `qdhcp-` namespace, told by files.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::lab::{
    inventory::{Dhcp, Inventory, Network},
    netns,
};

const DOMAIN: &str = "openstacklocal";

/// Configures the device that was put into the namespace, and starts dnsmasq on it.
pub(crate) fn serve(lab: &Inventory, network: &Network, dhcp: &Dhcp) -> Result<()> {
    let (device, mac) = (&dhcp.device, &dhcp.mac);
    let prefix = network.cidr.prefix;
    let mut batch = format!("link set {device} address {mac} mtu {}\nlink set {device} up\n", network.mtu);
    writeln!(batch, "address add {}/{prefix} broadcast + dev {device}", dhcp.address)?;
    writeln!(batch, "route add default via {} dev {device} proto static", network.gateway)?;
    netns::batch(&dhcp.netns, &batch)?;
    let directory = PathBuf::from("/var/lib/neutron/dhcp").join(&network.id.0);
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    for (name, text) in files(lab, network, dhcp)? {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    let words = command_line(network, dhcp, &directory.to_string_lossy());
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    netns::run(&dhcp.netns, &words).map(drop)
}

/// The files the agent writes: who gets which address, which names they have, and which options the subnet has.
fn files(lab: &Inventory, network: &Network, dhcp: &Dhcp) -> Result<[(&'static str, String); 4]> {
    let (mut hosts, mut names) = (String::new(), String::new());
    let ports = lab.instances.iter().flat_map(|instance| &instance.ports).filter(|port| port.network == network.id);
    let own = [(dhcp.mac.as_str(), dhcp.address)];
    for (mac, address) in own.into_iter().chain(ports.map(|port| (port.mac.as_str(), port.address.address))) {
        let name = format!("host-{}", address.to_string().replace('.', "-"));
        writeln!(hosts, "{mac},{name}.{DOMAIN},{address}")?;
        writeln!(names, "{address}\t{name}.{DOMAIN} {name}")?;
    }
    let tag = format!("tag:subnet-{}", network.subnet);
    let mut options = String::new();
    for option in [
        format!("option:dns-server,{}", dhcp.address),
        format!(
            "option:classless-static-route,169.254.169.254/32,{gateway},0.0.0.0/0,{gateway}",
            gateway = network.gateway
        ),
        format!("249,169.254.169.254/32,{gateway},0.0.0.0/0,{gateway}", gateway = network.gateway),
        format!("option:router,{}", network.gateway),
    ] {
        writeln!(options, "{tag},{option}")?;
    }
    Ok([("host", hosts), ("addn_hosts", names), ("opts", options), ("leases", String::new())])
}

fn command_line(network: &Network, dhcp: &Dhcp, directory: &str) -> Vec<String> {
    let (first, mask) = (network.cidr.address, network.cidr.netmask());
    let mut words: Vec<_> =
        ["dnsmasq", "--no-hosts", "--no-resolv", "--bind-dynamic", "--local-service"].map(str::to_owned).into();
    words.extend([
        format!("--pid-file={directory}/pid"),
        format!("--dhcp-hostsfile={directory}/host"),
        format!("--addn-hosts={directory}/addn_hosts"),
        format!("--dhcp-optsfile={directory}/opts"),
        format!("--dhcp-leasefile={directory}/leases"),
        "--dhcp-match=set:ipxe,175".into(),
        "--dhcp-userclass=set:ipxe6,iPXE".into(),
        format!("--interface={}", dhcp.device),
        format!("--dhcp-range=set:subnet-{},{first},static,{mask},86400s", network.subnet),
        format!("--dhcp-option-force=option:mtu,{}", network.mtu),
        "--dhcp-lease-max=256".into(),
        "--conf-file=/dev/null".into(),
        format!("--domain={DOMAIN}"),
    ]);
    words
}
