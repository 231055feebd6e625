use super::{
    Owner, PortClass, RuleAt, address_scopes, direct_access_drops, floating_ips, gateway_snat, guard, hybrid_ports,
    masquerades, meaning, metadata_redirects, owner, port_forwardings, prefixes, publications,
};
use crate::netfilter::{
    PortRange, Table, parse,
    parse::tests::{DOCKER, HYBRID, ROUTER},
};

fn tables(text: &str) -> Vec<Table> {
    parse(text).0
}

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

fn raw(tables: &[Table], at: Option<&RuleAt>) -> String {
    at.unwrap().rule(tables).unwrap().raw.clone()
}

/// A nat table of a router with these rules, whose agent is called `prefix`.
fn router(prefix: &str, rules: &str) -> Vec<Table> {
    let chains = ["PREROUTING", "OUTPUT", "POSTROUTING", "snat", "float-snat"];
    let declared = chains.map(|chain| format!(":P-{chain} - [0:0]\n")).concat();
    let text = format!(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n{declared}\
         -A PREROUTING -j P-PREROUTING\n{rules}COMMIT\n"
    );
    tables(
        &text.replace("P-", &format!("{prefix}-")).replace(&format!("{prefix}-PREROUTING ACCEPT"), "PREROUTING ACCEPT"),
    )
}

#[test]
fn the_agents_prefix_is_found_and_not_assumed() {
    assert_eq!(prefixes(&tables(ROUTER)), ["neutron-l3-agent"]);
    assert_eq!(prefixes(&tables(HYBRID)), ["neutron-openvswi"]);
    assert_eq!(prefixes(&router("vpn-agent", "")), ["vpn-agent"]);
    let kubernetes = "*filter\n:FORWARD ACCEPT [0:0]\n:KUBE-FORWARD - [0:0]\n-A FORWARD -j KUBE-FORWARD\nCOMMIT\n";
    assert_eq!(prefixes(&tables(kubernetes)), [""; 0]);
}

#[test]
fn a_centralised_floating_ip_has_three_rules() {
    let tables = tables(ROUTER);
    let [one, other] = floating_ips(&tables).try_into().unwrap();
    assert_eq!((one.floating, one.fixed, one.device.clone()), (ip("172.24.4.6"), ip("10.0.0.2"), None));
    assert_eq!((other.floating, other.fixed), (ip("172.24.4.7"), ip("10.0.0.7")));
    let dnat = "-A neutron-l3-agent-PREROUTING -d 172.24.4.6/32 -j DNAT --to-destination 10.0.0.2";
    assert_eq!(raw(&tables, one.dnat.as_ref()), dnat);
    assert_eq!(raw(&tables, one.output.as_ref()), dnat.replace("PREROUTING", "OUTPUT"));
    let snat = "-A neutron-l3-agent-float-snat -s 10.0.0.2/32 -j SNAT --to-source 172.24.4.6 --random-fully";
    assert_eq!(raw(&tables, one.snat.as_ref()), snat);
    assert_eq!(one.missing(), [""; 0]);
}

#[test]
fn a_distributed_floating_ip_is_bound_to_its_device_and_has_no_output_rule() {
    let tables = router(
        "neutron-l3-agent",
        "-A P-PREROUTING -d 172.24.4.6/32 -i rfp-0a1b2c3d-4 -j DNAT --to-destination 10.0.0.2\n\
         -A P-float-snat -s 10.0.0.2/32 -j SNAT --to-source 172.24.4.6\n",
    );
    let [one] = floating_ips(&tables).try_into().unwrap();
    assert_eq!(one.device.as_deref(), Some("rfp-0a1b2c3d-4"));
    assert_eq!((one.distributed(), one.missing()), (true, Vec::new()));
}

#[test]
fn half_a_floating_ip_is_found_with_what_it_lacks() {
    let tables = router("neutron-l3-agent", "-A P-float-snat -s 10.0.0.2/32 -j SNAT --to-source 172.24.4.6\n");
    let [one] = floating_ips(&tables).try_into().unwrap();
    assert_eq!(one.missing(), ["PREROUTING", "OUTPUT"]);
}

#[test]
fn a_floating_ip_whose_rules_disagree_is_two_halves() {
    let tables = router(
        "neutron-l3-agent",
        "-A P-PREROUTING -d 172.24.4.6/32 -j DNAT --to-destination 10.0.0.2\n\
         -A P-float-snat -s 10.0.0.3/32 -j SNAT --to-source 172.24.4.6\n",
    );
    let fixed: Vec<_> = floating_ips(&tables).into_iter().map(|one| one.fixed).collect();
    assert_eq!(fixed, [ip("10.0.0.2"), ip("10.0.0.3")]);
}

#[test]
fn the_gateways_source_nat_comes_with_its_hairpin_and_guard() {
    let tables = tables(ROUTER);
    let [snat] = gateway_snat(&tables).try_into().unwrap();
    assert_eq!((snat.device.as_str(), snat.address), ("qg-3f1d2c4b-5a", ip("172.24.4.2")));
    assert_eq!(snat.hairpin.map(|at| at.number), Some(3));
    assert_eq!(guard(&tables)[0].device, "qg-3f1d2c4b-5a");
    let old =
        router("neutron-l3-agent", "-A P-POSTROUTING ! -i qg-1 ! -o qg-1 -m conntrack ! --ctstate DNAT -j ACCEPT\n");
    assert_eq!(guard(&old)[0].device, "qg-1");
}

#[test]
fn metadata_scopes_and_port_forwardings_are_read() {
    let tables = tables(ROUTER);
    let [redirect] = metadata_redirects(&tables).try_into().unwrap();
    assert_eq!((redirect.port, redirect.devices.as_deref()), (9697, Some("qr-+")));
    let scopes = address_scopes(&tables);
    let drops: Vec<_> = scopes.iter().map(|scope| (scope.device.as_str(), scope.value, scope.drops)).collect();
    let expected = [
        ("qg-3f1d2c4b-5a", 0x0401_0000, false),
        ("qr-9b8a7c6d-5e", 0x0401_0000, false),
        ("qr-9b8a7c6d-5e", 0x0401_0000, true),
    ];
    assert_eq!(drops, expected);
    let [single, range] = port_forwardings(&tables).try_into().unwrap();
    assert_eq!((single.floating, single.fixed, single.protocol), (ip("172.24.4.9"), ip("10.0.0.9"), 6));
    assert_eq!((single.ports.first, single.to.map(|to| to.first)), (2222, Some(22)));
    assert_eq!(range.ports, PortRange { first: 40, last: 50 });
}

#[test]
fn hybrid_ports_have_their_chains_device_zone_and_sets() {
    let tables = tables(HYBRID);
    let [filtered, open, stateless] = hybrid_ports(&tables).try_into().unwrap();
    assert_eq!((filtered.key.as_str(), filtered.class), ("1a2b3c4d-5", PortClass::Filtered));
    assert_eq!(filtered.id.as_deref(), Some("1a2b3c4d-5e6f-4a5b-8c7d-0123456789ab"));
    assert_eq!(filtered.device.as_deref(), Some("tap1a2b3c4d-5e"));
    assert_eq!(filtered.ingress.as_deref(), Some("neutron-openvswi-i1a2b3c4d-5"));
    assert_eq!(filtered.egress.as_deref(), Some("neutron-openvswi-o1a2b3c4d-5"));
    assert_eq!(filtered.spoof.as_deref(), Some("neutron-openvswi-s1a2b3c4d-5"));
    assert_eq!((filtered.zone, filtered.stateless, filtered.entries.len()), (Some(4097), false, 5));
    assert!(filtered.sets.contains("NIPv45f0a1b2c-3d4e-4f5a-8b9c-0"));
    assert_eq!(filtered.missing(), [""; 0]);
    assert_eq!((open.device.as_deref(), open.class), (Some("tap77777777-77"), PortClass::Open));
    assert!(stateless.stateless && stateless.missing().contains(&"the rules that lead into its chains"));
}

#[test]
fn dockers_rules_are_read() {
    let tables = tables(DOCKER);
    let [open, local] = publications(&tables).try_into().unwrap();
    assert_eq!((open.address, open.protocol, open.ports.first), (None, 6, 8080));
    assert_eq!((open.to, open.to_ports.map(|to| to.first)), (ip("172.17.0.2"), Some(80)));
    assert_eq!(open.bridge.as_deref(), Some("docker0"));
    assert_eq!(local.address, Some(ip("127.0.0.1")));
    let [masquerade] = masquerades(&tables).try_into().unwrap();
    assert_eq!(masquerade.source, Some("172.17.0.0/16".parse().unwrap()));
    let [closed, _] = direct_access_drops(&tables).try_into().unwrap();
    assert_eq!((closed.device.as_str(), closed.destination), ("docker0", "172.17.0.2/32".parse().unwrap()));
}

#[test]
fn chains_belong_to_who_made_them() {
    let of = |text: &str, name: &str, chain: &str| {
        owner(tables(text).iter().find(|table| table.name == name).unwrap(), chain)
    };
    assert_eq!(of(ROUTER, "nat", "neutron-l3-agent-float-snat"), Owner::Neutron);
    assert_eq!(of(ROUTER, "nat", "neutron-postrouting-bottom"), Owner::Neutron);
    assert_eq!(of(ROUTER, "nat", "POSTROUTING"), Owner::Builtin);
    assert_eq!(of(DOCKER, "filter", "DOCKER-USER"), Owner::DockerUser);
    assert_eq!(of(DOCKER, "filter", "DOCKER-ISOLATION-STAGE-1"), Owner::Docker);
    assert_eq!(of(DOCKER, "filter", "KUBE-SERVICES"), Owner::Kubernetes);
    assert_eq!(of(DOCKER, "filter", "mine"), Owner::Unknown);
    assert_eq!(owner(&router("vpn-agent", "")[0], "vpn-agent-snat"), Owner::Neutron);
}

#[test]
fn rules_are_put_in_words() {
    let mut words = Vec::new();
    for text in [ROUTER, HYBRID, DOCKER] {
        for table in tables(text) {
            for chain in table.chains() {
                words.extend(chain.rules.iter().filter_map(|rule| meaning(rule, &chain.name)));
            }
        }
    }
    insta::assert_snapshot!(words.join("\n"));
}
