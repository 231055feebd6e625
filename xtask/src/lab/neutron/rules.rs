//! The iptables rules of a `qrouter-` namespace, as Neutron's L3 agent of a legacy router writes them.
//!
//! Order and wording are those of `iptables-save`, so a lab's rules can be compared with a real host's.

use std::fmt::{self, Write as _};

use crate::lab::inventory::{FloatingIp, Router, RouterPort};

/// With as many floating IPs as asked for.
pub(crate) mod sized;

/// Port of the metadata proxy in the namespace.
pub(crate) const METADATA_PORT: u16 = 9697;

/// Prefix of the agent's chains: its process name, cut to 16 characters.
const P: &str = "neutron-l3-agent";
/// The address scope of networks that have none: the first of the agent's scope ids, shifted into the upper half.
const NO_SCOPE: &str = "0x4000000/0xffff0000";
/// The upper half of a mark carries the address scope.
const SCOPE_MASK: &str = "--nfmask 0xffff0000 --ctmask 0xffff0000";

/// What differs between the two families.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Translates addresses.
    V4,
    /// Routes them as they are; only the metadata service is redirected.
    V6,
}

impl Family {
    /// What a request for metadata matches.
    fn metadata(self) -> String {
        let address = match self {
            Self::V4 => "169.254.169.254/32",
            Self::V6 => "fe80::a9fe:a9fe/128",
        };
        format!("-d {address} -i qr-+ -p tcp -m tcp --dport 80")
    }
}

/// Input for `iptables-restore`: every table of the namespace.
pub(crate) fn ipv4(router: &Router) -> Result<String, fmt::Error> {
    tables(router, Family::V4)
}

/// Input for `ip6tables-restore`.
pub(crate) fn ipv6(router: &Router) -> Result<String, fmt::Error> {
    tables(router, Family::V6)
}

fn tables(router: &Router, family: Family) -> Result<String, fmt::Error> {
    let mut text = String::new();
    raw(&mut text)?;
    mangle(&mut text, router, family)?;
    match family {
        Family::V4 => nat(&mut text, router)?,
        Family::V6 => nat_v6(&mut text)?,
    }
    filter(&mut text, router, family)?;
    Ok(text)
}

/// Opens a table: its built-in chains, the agent's chains, and the jumps from one to the other.
fn open(text: &mut String, table: &str, built_in: &[&str], own: &[&str]) -> fmt::Result {
    writeln!(text, "*{table}")?;
    for chain in built_in {
        writeln!(text, ":{chain} ACCEPT [0:0]")?;
    }
    for chain in built_in.iter().chain(own) {
        writeln!(text, ":{P}-{chain} - [0:0]")?;
    }
    Ok(())
}

fn jumps(text: &mut String, built_in: &[&str]) -> fmt::Result {
    built_in.iter().try_for_each(|chain| writeln!(text, "-A {chain} -j {P}-{chain}"))
}

fn raw(text: &mut String) -> fmt::Result {
    let built_in = ["PREROUTING", "OUTPUT"];
    open(text, "raw", &built_in, &[])?;
    jumps(text, &built_in)?;
    text.write_str("COMMIT\n")
}

fn mangle(text: &mut String, router: &Router, family: Family) -> fmt::Result {
    let built_in = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    open(text, "mangle", &built_in, &["float-snat", "floatingip", "mark", "scope"])?;
    jumps(text, &built_in)?;
    let gateway = &router.gateway.device;
    let unscoped = "-m connmark --mark 0x0/0xffff0000";
    writeln!(text, "-A {P}-POSTROUTING -o {gateway} {unscoped} -j CONNMARK --save-mark {SCOPE_MASK}")?;
    writeln!(text, "-A {P}-PREROUTING -j {P}-mark")?;
    writeln!(text, "-A {P}-PREROUTING -j {P}-scope")?;
    writeln!(text, "-A {P}-PREROUTING -m connmark ! --mark 0x0/0xffff0000 -j CONNMARK --restore-mark {SCOPE_MASK}")?;
    writeln!(text, "-A {P}-PREROUTING -j {P}-floatingip")?;
    writeln!(text, "-A {P}-PREROUTING {} -j MARK --set-xmark 0x1/0xffff", family.metadata())?;
    writeln!(text, "-A {P}-float-snat {unscoped} -j CONNMARK --save-mark {SCOPE_MASK}")?;
    writeln!(text, "-A {P}-mark -i {gateway} -j MARK --set-xmark 0x2/0xffff")?;
    for RouterPort { device, .. } in router.interfaces.iter().chain([&router.gateway]) {
        writeln!(text, "-A {P}-scope -i {device} -j MARK --set-xmark {NO_SCOPE}")?;
    }
    text.write_str("COMMIT\n")
}

fn nat(text: &mut String, router: &Router) -> fmt::Result {
    let built_in = ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"];
    writeln!(text, "*nat")?;
    for chain in built_in {
        writeln!(text, ":{chain} ACCEPT [0:0]")?;
    }
    for chain in ["OUTPUT", "POSTROUTING", "PREROUTING", "float-snat", "snat"] {
        writeln!(text, ":{P}-{chain} - [0:0]")?;
    }
    writeln!(text, ":neutron-postrouting-bottom - [0:0]")?;
    jumps(text, &["PREROUTING", "OUTPUT", "POSTROUTING"])?;
    writeln!(text, "-A POSTROUTING -j neutron-postrouting-bottom")?;
    for FloatingIp { address, fixed, .. } in &router.floating_ips {
        writeln!(text, "-A {P}-OUTPUT -d {address}/32 -j DNAT --to-destination {fixed}")?;
    }
    let gateway = &router.gateway;
    writeln!(text, "-A {P}-POSTROUTING ! -o {} -m conntrack ! --ctstate DNAT -j ACCEPT", gateway.device)?;
    redirect_metadata(text, Family::V4)?;
    for FloatingIp { address, fixed, .. } in &router.floating_ips {
        writeln!(text, "-A {P}-PREROUTING -d {address}/32 -j DNAT --to-destination {fixed}")?;
    }
    for FloatingIp { address, fixed, .. } in &router.floating_ips {
        writeln!(text, "-A {P}-float-snat -s {fixed}/32 -j SNAT --to-source {address} --random-fully")?;
    }
    source_nat(text, gateway)?;
    text.write_str("COMMIT\n")
}

fn nat_v6(text: &mut String) -> fmt::Result {
    let built_in = ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"];
    open(text, "nat", &built_in, &[])?;
    jumps(text, &built_in)?;
    redirect_metadata(text, Family::V6)?;
    text.write_str("COMMIT\n")
}

fn redirect_metadata(text: &mut String, family: Family) -> fmt::Result {
    writeln!(text, "-A {P}-PREROUTING {} -j REDIRECT --to-ports {METADATA_PORT}", family.metadata())
}

/// What leaves without a floating IP leaves as the router; so does what was sent to a floating IP from inside.
fn source_nat(text: &mut String, gateway: &RouterPort) -> fmt::Result {
    let to = format!("-j SNAT --to-source {} --random-fully", gateway.address.address);
    writeln!(text, "-A {P}-snat -j {P}-float-snat")?;
    writeln!(text, "-A {P}-snat -o {} {to}", gateway.device)?;
    writeln!(text, "-A {P}-snat -m mark ! --mark 0x2/0xffff -m conntrack --ctstate DNAT {to}")?;
    writeln!(
        text,
        "-A neutron-postrouting-bottom -m comment --comment \"Perform source NAT on outgoing traffic.\" -j {P}-snat"
    )
}

fn filter(text: &mut String, router: &Router, family: Family) -> fmt::Result {
    let built_in = ["INPUT", "FORWARD", "OUTPUT"];
    open(text, "filter", &built_in, &["local", "scope"])?;
    writeln!(text, ":neutron-filter-top - [0:0]")?;
    writeln!(text, "-A INPUT -j {P}-INPUT")?;
    for chain in ["FORWARD", "OUTPUT"] {
        writeln!(text, "-A {chain} -j neutron-filter-top\n-A {chain} -j {P}-{chain}")?;
    }
    writeln!(text, "-A {P}-FORWARD -j {P}-scope")?;
    writeln!(text, "-A {P}-INPUT -m mark --mark 0x1/0xffff -j ACCEPT")?;
    writeln!(text, "-A {P}-INPUT -p tcp -m tcp --dport {METADATA_PORT} -j DROP")?;
    // With source NAT on, what leaves by the gateway has no scope of its own any more.
    let gateway = (family == Family::V6).then_some(&router.gateway);
    for RouterPort { device, .. } in router.interfaces.iter().chain(gateway) {
        writeln!(text, "-A {P}-scope -o {device} -m mark ! --mark {NO_SCOPE} -j DROP")?;
    }
    writeln!(text, "-A neutron-filter-top -j {P}-local")?;
    text.write_str("COMMIT\n")
}

#[cfg(test)]
mod tests {
    use super::{ipv4, ipv6};
    use crate::lab::{
        inventory::{Profile, Router},
        profile,
        spec::Spec,
    };

    fn example() -> Router {
        let spec = Spec { name: "lab".into(), profile: Profile::NeutronOvs, instances: 0, no_docker: false };
        profile::plan(&spec).routers.swap_remove(0)
    }

    /// The line numbers of the rules that hold each text, in this order.
    fn places(rules: &str, texts: &[&str]) -> Vec<usize> {
        let place = |text: &&str| rules.lines().position(|line| line.contains(text));
        texts.iter().map(|text| place(text).unwrap_or_else(|| panic!("no rule with {text:?} in\n{rules}"))).collect()
    }

    #[test]
    fn floating_ip_translates_both_ways_and_before_the_gateway_address() {
        let rules = ipv4(&example()).unwrap();
        let order = places(
            &rules,
            &[
                "neutron-l3-agent-OUTPUT -d 172.24.4.6/32 -j DNAT --to-destination 10.0.0.2",
                "neutron-l3-agent-PREROUTING -d 172.24.4.6/32 -j DNAT --to-destination 10.0.0.2",
                "neutron-l3-agent-snat -j neutron-l3-agent-float-snat",
                "-j SNAT --to-source 172.24.4.2 --random-fully",
            ],
        );
        assert!(order.is_sorted(), "{order:?}");
        places(&rules, &["-s 10.0.0.2/32 -j SNAT --to-source 172.24.4.6 --random-fully"]);
    }

    #[test]
    fn traffic_between_the_networks_of_a_router_is_not_translated() {
        let router = example();
        let guard = format!("! -o {} -m conntrack ! --ctstate DNAT -j ACCEPT", router.gateway.device);
        places(&ipv4(&router).unwrap(), &[&guard]);
    }

    #[test]
    fn ipv6_is_routed_without_translation() {
        let rules = ipv6(&example()).unwrap();
        assert!(!rules.contains("NAT --to") && !rules.contains("172.24.4."), "{rules}");
        places(&rules, &["-d fe80::a9fe:a9fe/128 -i qr-+ -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 9697"]);
    }

    #[test]
    fn every_chain_that_is_jumped_to_is_declared() {
        for rules in [ipv4(&example()).unwrap(), ipv6(&example()).unwrap()] {
            for table in rules.split("COMMIT\n") {
                for target in table.lines().filter_map(|line| line.split(" -j neutron-").nth(1)) {
                    assert!(table.contains(&format!(":neutron-{target} - [0:0]")), "{target} in\n{table}");
                }
            }
        }
    }
}
