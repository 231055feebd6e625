//! The iptables rules of a router's namespaces, as Neutron's L3 agent writes them: of a legacy router in `qrouter-`, of a
//! distributed one in `qrouter-`, `snat-` and `fip-`.
//!
//! Order and wording are those of `iptables-save`, so a lab's rules can be compared with a real host's.

use std::{
    fmt::{self, Write as _},
    net::Ipv4Addr,
};

use crate::lab::inventory::{
    FloatingIp, Router, RouterPort,
    distributed::{CentralSnat, LocalRouter},
};

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

/// Which namespace of a router.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The only one of a legacy router.
    Legacy,
    /// `qrouter-` of a distributed router on one host: floating IPs, and no source NAT besides.
    Local,
    /// `snat-` of a distributed router: source NAT, and nothing besides.
    Central,
}

/// What the rules of a namespace are about.
pub(crate) struct Subject<'a> {
    part: Part,
    /// Its sides towards the instances.
    inside: &'a [RouterPort],
    /// Its device towards the external network.
    outside: &'a str,
    /// Where the gateway's address is.
    gateway: Ipv4Addr,
    floating: Vec<&'a FloatingIp>,
}

impl<'a> Subject<'a> {
    /// The namespace of a legacy router.
    pub(crate) fn legacy(router: &'a Router) -> Self {
        Self {
            part: Part::Legacy,
            inside: &router.interfaces,
            outside: &router.gateway.device,
            gateway: router.gateway.address.address,
            floating: router.floating_ips.iter().collect(),
        }
    }

    /// A distributed router on one host, which has some of its floating IPs.
    pub(crate) fn local(router: &'a Router, local: &'a LocalRouter, floating: Vec<&'a FloatingIp>) -> Self {
        Self { part: Part::Local, outside: &local.router_end.device, floating, ..Self::legacy(router) }
    }

    /// The source NAT of a distributed router.
    pub(crate) fn central(router: &'a Router, snat: &'a CentralSnat) -> Self {
        Self { part: Part::Central, inside: &snat.ports, floating: Vec::new(), ..Self::legacy(router) }
    }

    /// Whether the namespace has the router's gateway, with its marks and its source NAT.
    fn has_gateway(&self) -> bool {
        self.part != Part::Local
    }

    fn has_metadata(&self) -> bool {
        self.part != Part::Central
    }
}

/// Input for `iptables-restore`: every table of the namespace.
pub(crate) fn ipv4(subject: &Subject<'_>) -> Result<String, fmt::Error> {
    tables(subject, Family::V4)
}

/// Input for `ip6tables-restore`.
pub(crate) fn ipv6(subject: &Subject<'_>) -> Result<String, fmt::Error> {
    tables(subject, Family::V6)
}

/// Input for `iptables-restore` of a `fip-` namespace, which only routes and tracks nothing.
pub(crate) fn untracked() -> Result<String, fmt::Error> {
    let mut text = String::new();
    let built_in = ["PREROUTING", "OUTPUT"];
    open(&mut text, "raw", &built_in, &[])?;
    jumps(&mut text, &built_in)?;
    writeln!(text, "-A {P}-PREROUTING -j CT --notrack\nCOMMIT")?;
    Ok(text)
}

fn tables(subject: &Subject<'_>, family: Family) -> Result<String, fmt::Error> {
    let mut text = String::new();
    raw(&mut text)?;
    mangle(&mut text, subject, family)?;
    match family {
        Family::V4 => nat(&mut text, subject)?,
        Family::V6 => nat_v6(&mut text, subject)?,
    }
    filter(&mut text, subject, family)?;
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

fn mangle(text: &mut String, subject: &Subject<'_>, family: Family) -> fmt::Result {
    let built_in = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    open(text, "mangle", &built_in, &["float-snat", "floatingip", "mark", "scope"])?;
    jumps(text, &built_in)?;
    let gateway = subject.outside;
    let unscoped = "-m connmark --mark 0x0/0xffff0000";
    if subject.has_gateway() {
        writeln!(text, "-A {P}-POSTROUTING -o {gateway} {unscoped} -j CONNMARK --save-mark {SCOPE_MASK}")?;
    }
    writeln!(text, "-A {P}-PREROUTING -j {P}-mark")?;
    writeln!(text, "-A {P}-PREROUTING -j {P}-scope")?;
    writeln!(text, "-A {P}-PREROUTING -m connmark ! --mark 0x0/0xffff0000 -j CONNMARK --restore-mark {SCOPE_MASK}")?;
    writeln!(text, "-A {P}-PREROUTING -j {P}-floatingip")?;
    if subject.has_metadata() {
        writeln!(text, "-A {P}-PREROUTING {} -j MARK --set-xmark 0x1/0xffff", family.metadata())?;
    }
    writeln!(text, "-A {P}-float-snat {unscoped} -j CONNMARK --save-mark {SCOPE_MASK}")?;
    if subject.has_gateway() {
        writeln!(text, "-A {P}-mark -i {gateway} -j MARK --set-xmark 0x2/0xffff")?;
    }
    // The pair to the `fip-` namespace has no address of IPv6.
    let outside = (subject.has_gateway() || family == Family::V4).then_some(gateway);
    for device in subject.inside.iter().map(|port| port.device.as_str()).chain(outside) {
        writeln!(text, "-A {P}-scope -i {device} -j MARK --set-xmark {NO_SCOPE}")?;
    }
    text.write_str("COMMIT\n")
}

fn nat(text: &mut String, subject: &Subject<'_>) -> fmt::Result {
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
    let device = subject.outside;
    if subject.part == Part::Legacy {
        for FloatingIp { address, fixed, .. } in &subject.floating {
            writeln!(text, "-A {P}-OUTPUT -d {address}/32 -j DNAT --to-destination {fixed}")?;
        }
    }
    // Without a floating IP, nothing of a distributed router is translated on this host.
    if subject.has_gateway() || !subject.floating.is_empty() {
        writeln!(text, "-A {P}-POSTROUTING ! -o {device} -m conntrack ! --ctstate DNAT -j ACCEPT")?;
    }
    redirect_metadata(text, subject, Family::V4)?;
    let comes_by = if subject.part == Part::Local { format!(" -i {device}") } else { String::new() };
    for FloatingIp { address, fixed, .. } in &subject.floating {
        writeln!(text, "-A {P}-PREROUTING -d {address}/32{comes_by} -j DNAT --to-destination {fixed}")?;
    }
    for FloatingIp { address, fixed, .. } in &subject.floating {
        writeln!(text, "-A {P}-float-snat -s {fixed}/32 -j SNAT --to-source {address} --random-fully")?;
    }
    source_nat(text, subject)?;
    text.write_str("COMMIT\n")
}

fn nat_v6(text: &mut String, subject: &Subject<'_>) -> fmt::Result {
    let built_in = ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"];
    open(text, "nat", &built_in, &[])?;
    jumps(text, &built_in)?;
    redirect_metadata(text, subject, Family::V6)?;
    text.write_str("COMMIT\n")
}

fn redirect_metadata(text: &mut String, subject: &Subject<'_>, family: Family) -> fmt::Result {
    if !subject.has_metadata() {
        return Ok(());
    }
    writeln!(text, "-A {P}-PREROUTING {} -j REDIRECT --to-ports {METADATA_PORT}", family.metadata())
}

/// What leaves without a floating IP leaves as the router; so does what was sent to a floating IP from inside.
fn source_nat(text: &mut String, subject: &Subject<'_>) -> fmt::Result {
    let to = format!("-j SNAT --to-source {} --random-fully", subject.gateway);
    if subject.part == Part::Legacy || !subject.floating.is_empty() {
        writeln!(text, "-A {P}-snat -j {P}-float-snat")?;
    }
    if subject.has_gateway() {
        writeln!(text, "-A {P}-snat -o {} {to}", subject.outside)?;
        writeln!(text, "-A {P}-snat -m mark ! --mark 0x2/0xffff -m conntrack --ctstate DNAT {to}")?;
    }
    writeln!(
        text,
        "-A neutron-postrouting-bottom -m comment --comment \"Perform source NAT on outgoing traffic.\" -j {P}-snat"
    )
}

fn filter(text: &mut String, subject: &Subject<'_>, family: Family) -> fmt::Result {
    let built_in = ["INPUT", "FORWARD", "OUTPUT"];
    open(text, "filter", &built_in, &["local", "scope"])?;
    writeln!(text, ":neutron-filter-top - [0:0]")?;
    writeln!(text, "-A INPUT -j {P}-INPUT")?;
    for chain in ["FORWARD", "OUTPUT"] {
        writeln!(text, "-A {chain} -j neutron-filter-top\n-A {chain} -j {P}-{chain}")?;
    }
    writeln!(text, "-A {P}-FORWARD -j {P}-scope")?;
    if subject.has_metadata() {
        writeln!(text, "-A {P}-INPUT -m mark --mark 0x1/0xffff -j ACCEPT")?;
        writeln!(text, "-A {P}-INPUT -p tcp -m tcp --dport {METADATA_PORT} -j DROP")?;
    }
    // With source NAT on, what leaves by the gateway has no scope of its own any more.
    let outside = (family == Family::V6 && subject.has_gateway()).then_some(subject.outside);
    for device in subject.inside.iter().map(|port| port.device.as_str()).chain(outside) {
        writeln!(text, "-A {P}-scope -o {device} -m mark ! --mark {NO_SCOPE} -j DROP")?;
    }
    writeln!(text, "-A neutron-filter-top -j {P}-local")?;
    text.write_str("COMMIT\n")
}

#[cfg(test)]
mod tests {
    use super::{Subject, ipv4, ipv6, untracked};
    use crate::lab::{
        inventory::{Profile, Router},
        profile,
        spec::Spec,
    };

    fn of(profile: Profile) -> Router {
        let spec = Spec { name: "lab".into(), profile, instances: 0, no_docker: false };
        profile::plan(&spec).routers.swap_remove(0)
    }

    fn example() -> Router {
        of(Profile::NeutronOvs)
    }

    /// Rules of both families of a legacy router, and of each namespace of a distributed one.
    fn every_rule_set() -> Vec<String> {
        let (legacy, router) = (example(), of(Profile::Dvr));
        let distributed = router.distributed.as_ref().unwrap();
        let floating = router.floating_ips.iter().collect();
        let subjects = [
            Subject::legacy(&legacy),
            Subject::local(&router, &distributed.locals[0], floating),
            Subject::local(&router, &distributed.locals[1], Vec::new()),
            Subject::central(&router, &distributed.snat),
        ];
        let mut sets: Vec<_> = subjects.iter().flat_map(|one| [ipv4(one).unwrap(), ipv6(one).unwrap()]).collect();
        sets.push(untracked().unwrap());
        sets
    }

    /// The line numbers of the rules that hold each text, in this order.
    fn places(rules: &str, texts: &[&str]) -> Vec<usize> {
        let place = |text: &&str| rules.lines().position(|line| line.contains(text));
        texts.iter().map(|text| place(text).unwrap_or_else(|| panic!("no rule with {text:?} in\n{rules}"))).collect()
    }

    #[test]
    fn floating_ip_translates_both_ways_and_before_the_gateway_address() {
        let rules = ipv4(&Subject::legacy(&example())).unwrap();
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
        places(&ipv4(&Subject::legacy(&router)).unwrap(), &[&guard]);
    }

    #[test]
    fn ipv6_is_routed_without_translation() {
        let rules = ipv6(&Subject::legacy(&example())).unwrap();
        assert!(!rules.contains("NAT --to") && !rules.contains("172.24.4."), "{rules}");
        places(&rules, &["-d fe80::a9fe:a9fe/128 -i qr-+ -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 9697"]);
    }

    #[test]
    fn every_chain_that_is_jumped_to_is_declared() {
        for rules in every_rule_set() {
            for table in rules.split("COMMIT\n") {
                for target in table.lines().filter_map(|line| line.split(" -j neutron-").nth(1)) {
                    assert!(table.contains(&format!(":neutron-{target} - [0:0]")), "{target} in\n{table}");
                }
            }
        }
    }

    #[test]
    fn distributed_floating_ip_is_only_for_what_comes_from_the_external_network() {
        let router = of(Profile::Dvr);
        let local = &router.distributed.as_ref().unwrap().locals[0];
        let rules = ipv4(&Subject::local(&router, local, router.floating_ips.iter().collect())).unwrap();
        let device = &local.router_end.device;
        places(
            &rules,
            &[
                &format!(
                    "-A neutron-l3-agent-PREROUTING -d 172.24.4.6/32 -i {device} -j DNAT --to-destination 10.0.0.2"
                ),
                &format!("-A neutron-l3-agent-POSTROUTING ! -o {device} -m conntrack ! --ctstate DNAT -j ACCEPT"),
                "-A neutron-l3-agent-float-snat -s 10.0.0.2/32 -j SNAT --to-source 172.24.4.6 --random-fully",
            ],
        );
        assert!(!rules.contains("-A neutron-l3-agent-OUTPUT") && !rules.contains("172.24.4.2"), "{rules}");
    }

    #[test]
    fn distributed_router_translates_nothing_where_it_has_no_floating_ip() {
        let router = of(Profile::Dvr);
        let local = &router.distributed.as_ref().unwrap().locals[0];
        let rules = ipv4(&Subject::local(&router, local, Vec::new())).unwrap();
        assert!(!rules.contains("NAT --to-") && !rules.contains("--ctstate DNAT"), "{rules}");
    }

    #[test]
    fn central_part_translates_to_the_gateway_and_knows_no_floating_ip() {
        let router = of(Profile::Dvr);
        let rules = ipv4(&Subject::central(&router, &router.distributed.as_ref().unwrap().snat)).unwrap();
        places(
            &rules,
            &[&format!("-A neutron-l3-agent-snat -o {} -j SNAT --to-source 172.24.4.2", router.gateway.device)],
        );
        assert!(!rules.contains("-j DNAT") && !rules.contains("169.254.169.254"), "{rules}");
    }
}
