//! Distributed routers: floating IPs through `fip-`, everything else through `snat-`, here or on another host.

use super::{PORT, ROUTER, Verdict, plugged};
use crate::{
    fact::PolicyRuleFact,
    id::{LinkKey, NetnsId},
    testing::{Host, codes, lookup, neutron},
    trace::{Direction, HopKind, Trace, Translation},
};

const EXTERNAL: &str = "57f61279-6f0f-4860-b1f3-a17094029b79";
const FLOATING: &str = "198.51.100.6";
/// Table of the router's routes by floating IP, and that of its `fip-` end.
const FIP_TABLE: u32 = 16;
const END_TABLE: u32 = 2_852_012_033;
/// The subnet's table, by the gateway's address.
const SNAT_TABLE: u32 = 167_772_161;

/// A host with an instance behind its part of a distributed router, on a public external network.
struct Distributed {
    host: Host,
    router: NetnsId,
    qr: LinkKey,
    fip: NetnsId,
    fpr: LinkKey,
}

impl Distributed {
    fn new() -> Self {
        let mut host = Host::new();
        plugged(&mut host, "vxlan");
        let router = host.netns(&[&format!("qrouter-{ROUTER}")]);
        let fip = host.netns(&[&format!("fip-{EXTERNAL}")]);
        let qr = port(&mut host, router, ("qr-1", "02", 1));
        let fg = port(&mut host, fip, ("fg-1", "03", 2));
        let (rfp, fpr) = host.veth((router, "rfp-1"), (fip, "fpr-1"));
        for (key, address) in
            [(qr, "10.0.0.1/24"), (rfp, "169.254.64.0/31"), (fpr, "169.254.64.1/31"), (fg, "198.51.100.4/24")]
        {
            host.address(key, address);
        }
        default_by(&mut host, rfp, "169.254.64.1", FIP_TABLE);
        default_by(&mut host, fg, "198.51.100.1", END_TABLE);
        host.network(fip).rules.push(PolicyRuleFact { iif: Some("fpr-1".to_owned()), ..lookup(END_TABLE, END_TABLE) });
        host.rules(fip, &nat_free("-A neutron-l3-agent-PREROUTING -j CT --notrack", ""));
        host.patch(("br-int", "int-br-ex"), ("br-ex", "phy-br-ex"));
        host.link(host.id, "eth1", None);
        host.ovs("br-ex", "eth1", "");
        Self { host, router, qr, fip, fpr }
    }

    /// With a floating IP, as the agent leaves it.
    fn with_floating_ip() -> Self {
        let mut this = Self::new();
        this.host.route(this.fpr, &format!("{FLOATING}/32"), Some("169.254.64.0"));
        let source = "10.0.0.2/32".parse().ok();
        this.host.network(this.router).rules.push(PolicyRuleFact { source, ..lookup(33_674, FIP_TABLE) });
        this.host.rules(this.router, &translation());
        this
    }

    /// Sends what has no floating IP to this address of source NAT.
    fn lead_to_source_nat(&mut self, address: &str) {
        default_by(&mut self.host, self.qr, address, SNAT_TABLE);
        let source = "10.0.0.1/24".parse().ok();
        self.host.network(self.router).rules.push(PolicyRuleFact { source, ..lookup(SNAT_TABLE, SNAT_TABLE) });
    }
}

fn port(host: &mut Host, netns: NetnsId, (name, last, tag): (&str, &str, u16)) -> LinkKey {
    let key = host.link(netns, name, Some("tun"));
    let mac = format!("fa:16:3e:00:00:{last}");
    host.mac(key, &mac);
    let port = host.ovs("br-int", name, "internal");
    neutron(port, &format!("{}{last}", &PORT[..PORT.len() - 2]), &mac, tag);
    let carried = if tag == 2 { "flat" } else { "vxlan" };
    port.other_config = [("network_type".to_owned(), carried.to_owned())].into();
    key
}

fn default_by(host: &mut Host, key: LinkKey, gateway: &str, table: u32) {
    host.route(key, "0.0.0.0/0", Some(gateway));
    host.network(key.netns).routes.last_mut().unwrap().table = table;
}

/// The tables of a namespace that does not translate, with a rule of each kind.
fn nat_free(raw: &str, filter: &str) -> String {
    format!(
        "*raw\n:PREROUTING ACCEPT [0:0]\n:neutron-l3-agent-PREROUTING - [0:0]\n\
         -A PREROUTING -j neutron-l3-agent-PREROUTING\n{raw}\nCOMMIT\n*filter\n:FORWARD ACCEPT [0:0]\n{filter}\nCOMMIT\n"
    )
}

/// A floating IP's rules, as a distributed router has them.
fn translation() -> String {
    format!(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:neutron-l3-agent-PREROUTING - [0:0]\n\
         :neutron-l3-agent-POSTROUTING - [0:0]\n:neutron-l3-agent-float-snat - [0:0]\n\
         -A PREROUTING -j neutron-l3-agent-PREROUTING\n-A POSTROUTING -j neutron-l3-agent-POSTROUTING\n\
         -A POSTROUTING -j neutron-l3-agent-float-snat\n\
         -A neutron-l3-agent-POSTROUTING ! -o rfp-1 -m conntrack ! --ctstate DNAT -j ACCEPT\n\
         -A neutron-l3-agent-PREROUTING -d {FLOATING}/32 -i rfp-1 -j DNAT --to-destination 10.0.0.2\n\
         -A neutron-l3-agent-float-snat -s 10.0.0.2/32 -j SNAT --to-source {FLOATING}\nCOMMIT\n"
    )
}

/// The names of the hops of a kind, in order.
fn names(trace: &Trace, direction: Direction, kind: HopKind) -> Vec<&str> {
    let hops = trace.interfaces[0].hops.iter().filter(|hop| hop.direction == direction && hop.kind == kind);
    hops.map(|hop| hop.name.as_str()).collect()
}

fn sources(trace: &Trace) -> Vec<&str> {
    let hops = trace.interfaces[0].hops.iter();
    hops.filter_map(|hop| if let Some(Translation::Source(to)) = &hop.translation { Some(to.as_str()) } else { None })
        .collect()
}

#[test]
fn a_floating_ip_goes_by_the_router_and_the_namespace_of_the_external_network() {
    let trace = Distributed::with_floating_ip().host.trace("web-1");
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Works, vec![]));
    let (router, fip) = (format!("qrouter-{ROUTER}"), format!("fip-{EXTERNAL}"));
    assert_eq!(names(&trace, Direction::Outward, HopKind::Router), [&router, &fip]);
    assert_eq!(names(&trace, Direction::Inward, HopKind::Router), [&fip, &router]);
    assert_eq!(sources(&trace), [FLOATING]);
    assert_eq!(names(&trace, Direction::Outward, HopKind::NextHop), ["198.51.100.1"]);
    let interface = &trace.interfaces[0];
    assert_eq!(interface.router.as_ref().unwrap().external_device.as_deref(), Some("rfp-1"));
    assert_eq!(interface.floating_ips[0].device.as_deref(), Some("fg-1"));
}

#[test]
fn a_floating_ip_that_is_not_routed_in_enters_nowhere() {
    let mut this = Distributed::with_floating_ip();
    this.host.network(this.fip).routes.retain(|route| route.destination.prefix_len() < 32);
    let trace = this.host.trace("web-1");
    assert_eq!(trace.verdict, Verdict::Broken);
    assert!(codes(&trace).contains(&"floating-ip-address"), "{:?}", codes(&trace));
}

#[test]
fn an_instance_that_no_policy_rule_leads_to_its_floating_ip_leaves_as_another() {
    let mut this = Distributed::with_floating_ip();
    this.host.network(this.router).rules.retain(|rule| rule.table != FIP_TABLE);
    let trace = this.host.trace("web-1");
    let found = trace.findings.iter().find(|finding| finding.code == "floating-ip-rule");
    assert!(found.is_some_and(|found| found.message.contains("leads 10.0.0.2 to rfp-1")), "{:#?}", trace.findings);
}

#[test]
fn a_floating_ip_for_which_nobody_answers_arp_enters_nowhere() {
    for (own, all, mute) in [("0", "0", true), ("1", "0", false), ("0", "1", false)] {
        let mut this = Distributed::with_floating_ip();
        this.host.sysctl(this.fip, "net.ipv4.conf.fg-1.proxy_arp", own);
        this.host.sysctl(this.fip, "net.ipv4.conf.all.proxy_arp", all);
        let trace = this.host.trace("web-1");
        let found = trace.findings.iter().find(|finding| finding.code == "floating-ip-arp");
        assert_eq!((found.is_some(), trace.verdict == Verdict::Broken), (mute, mute), "{own} {all}");
        assert!(found.is_none_or(|found| found.object == FLOATING && found.message.contains("proxy_arp of fg-1")));
    }
}

#[test]
fn rules_behind_the_translation_are_asked_about_the_floating_ip() {
    for (source, dies) in [(FLOATING, true), ("10.0.0.2", false)] {
        let mut this = Distributed::with_floating_ip();
        let drop = format!("-A FORWARD -s {source}/32 -i fpr-1 -j DROP");
        this.host.facts.rulesets.retain(|rules| rules.netns != this.fip);
        this.host.rules(this.fip, &nat_free("-A neutron-l3-agent-PREROUTING -j CT --notrack", &drop));
        let trace = this.host.trace("web-1");
        assert_eq!(codes(&trace).contains(&"filter-drop"), dies, "{source}: {:?}", codes(&trace));
    }
}

#[test]
fn an_untracked_flow_in_the_router_itself_is_still_a_fault() {
    let mut this = Distributed::with_floating_ip();
    this.host.rules(this.router, &nat_free("-A neutron-l3-agent-PREROUTING -j CT --notrack", ""));
    let trace = this.host.trace("web-1");
    assert!(codes(&trace).contains(&"untracked"), "{:?}", codes(&trace));
}

#[test]
fn source_nat_on_this_host_is_one_more_router_on_the_network() {
    let mut this = Distributed::new();
    this.lead_to_source_nat("10.0.0.253");
    let snat = this.host.netns(&[&format!("snat-{ROUTER}")]);
    let sg = port(&mut this.host, snat, ("sg-1", "04", 1));
    let qg = port(&mut this.host, snat, ("qg-1", "05", 2));
    this.host.address(sg, "10.0.0.253/24");
    this.host.address(qg, "198.51.100.2/24");
    this.host.route(qg, "0.0.0.0/0", Some("198.51.100.1"));
    this.host.rules(
        snat,
        "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o qg-1 -j SNAT --to-source 198.51.100.2\nCOMMIT\n",
    );
    let trace = this.host.trace("web-1");
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Works, vec![]));
    let routers = [format!("qrouter-{ROUTER}"), format!("snat-{ROUTER}")];
    assert_eq!(names(&trace, Direction::Outward, HopKind::Router), routers);
    assert_eq!(sources(&trace), ["198.51.100.2"]);
    assert_eq!(trace.interfaces[0].router.as_ref().unwrap().external_device.as_deref(), Some("qg-1"));
}

#[test]
fn source_nat_on_another_host_is_the_next_hop_behind_a_tunnel() {
    let mut this = Distributed::new();
    this.lead_to_source_nat("10.0.0.253");
    this.host.patch(("br-int", "patch-tun"), ("br-tun", "patch-int"));
    this.host.ovs("br-tun", "vxlan-c0a8320b", "vxlan");
    let trace = this.host.trace("web-1");
    assert_eq!((trace.verdict, codes(&trace)), (Verdict::Works, vec![]));
    assert_eq!(names(&trace, Direction::Outward, HopKind::NextHop), ["10.0.0.253"]);
    assert_eq!(trace.interfaces[0].router.as_ref().unwrap().external_device, None);
    assert!(trace.sentence.contains("for source NAT; nothing outside"), "{}", trace.sentence);
}
