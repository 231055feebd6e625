//! Faults of a router: rules, routes, sizes, queues, translation.

use netdiag_tests::Target;

use super::{
    OUTSIDE,
    fault::{Fault, Traffic},
};

/// A ping of the outside.
pub(crate) fn ping(target: &Target) -> Traffic<'static> {
    Traffic::Here(target.inside(&format!("ping -q -c 2 -i 0.2 -W 1 {OUTSIDE}")))
}

pub(crate) fn faults(target: &Target) -> Vec<Fault<'static>> {
    [rules(target), routes(target), limits(target), translation(target)].into_iter().flatten().collect()
}

fn rules(target: &Target) -> Vec<Fault<'static>> {
    let Target { fixed, router, inner, qr, .. } = target;
    let both = |make: &str, mend: &str| (target.in_router(make), target.in_router(mend));
    let six = (
        format!(
            "{} && {}",
            target.inside(&format!(
                "sh -c 'sysctl -qw net.ipv6.conf.{inner}.disable_ipv6=0; ip addr add fd00:10::2/64 dev {inner} nodad'"
            )),
            target.in_router(&format!(
                "sh -c 'ip addr add fd00:10::1/64 dev {qr} nodad; ip6tables -I INPUT -p icmpv6 --icmpv6-type 128 -j DROP'"
            ))
        ),
        format!(
            "{} && {}",
            target.inside(&format!("ip addr del fd00:10::2/64 dev {inner}")),
            target.in_router(&format!("sh -c 'ip6tables -D INPUT 1; ip addr del fd00:10::1/64 dev {qr}'"))
        ),
    );
    vec![
        Fault::new(
            "rule of the router",
            both(&format!("iptables -I FORWARD 1 -s {fixed} -p icmp -j DROP"), "iptables -D FORWARD 1"),
            ping(target),
            ("filter-rule", router, "rule 1 of filter FORWARD"),
        ),
        Fault::new(
            "raw rule of the router",
            both(&format!("iptables -t raw -I PREROUTING 1 -s {fixed} -j DROP"), "iptables -t raw -D PREROUTING 1"),
            ping(target),
            ("filter-rule", router, "rule 1 of raw PREROUTING"),
        ),
        Fault::new(
            "rule inside the instance",
            (target.inside("iptables -A OUTPUT -p icmp -j DROP"), target.inside("iptables -F OUTPUT")),
            ping(target),
            ("filter-rule", inner, "-A OUTPUT -p icmp -j DROP"),
        ),
        Fault::new(
            "rule for IPv6",
            six,
            Traffic::Here(target.inside("ping -q -c 2 -i 0.2 -W 1 fd00:10::1")),
            ("filter-rule", router, "rule 1 of filter INPUT"),
        ),
    ]
}

fn routes(target: &Target) -> Vec<Fault<'static>> {
    let Target { qr, qg, inner, router, .. } = target;
    let both = |make: &str, mend: &str| (target.in_router(make), target.in_router(mend));
    let route = format!("ip route replace default via 172.24.4.1 dev {qg}");
    let wrong = format!("ip neigh replace 10.0.0.1 lladdr 02:00:00:00:00:99 dev {inner} nud permanent");
    let strict = |on: u8| format!("sysctl -qw net.ipv4.conf.all.rp_filter={on} net.ipv4.conf.{qr}.rp_filter={on}");
    let elsewhere = format!("10.0.0.2/32 dev {qg}");
    vec![
        Fault::new(
            "forwarding switched off",
            both("sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1"),
            ping(target),
            ("", router, "does not forward"),
        ),
        Fault::new(
            "no route",
            both("ip route replace unreachable default", &route),
            ping(target),
            ("", router, "no way to the outside"),
        ),
        Fault::new(
            "gateway that does not answer",
            both(&format!("ip route replace default via 172.24.4.99 dev {qg}"), &route),
            ping(target),
            ("kernel-drop", qg, "does not answer ARP"),
        ),
        Fault::new(
            "inner end of the router down",
            both(&format!("ip link set {qr} down"), &format!("sh -c 'ip link set {qr} up; {route}'")),
            ping(target),
            ("", qr, "switched off"),
        ),
        Fault::new(
            "wrong neighbour",
            (target.inside(&wrong), target.inside(&format!("ip neigh del 10.0.0.1 dev {inner}"))),
            ping(target),
            ("", "", "02:00:00:00:00:99"),
        ),
        Fault::new(
            "reverse path filter",
            // The instance knows its gateway, which will not answer its questions either.
            (
                format!(
                    "{} && {}",
                    target.inside("ping -q -c 1 -W 2 10.0.0.1"),
                    target.in_router(&format!("sh -c '{}; ip route add {elsewhere}'", strict(1)))
                ),
                target.in_router(&format!("sh -c 'ip route del {elsewhere}; {}'", strict(0))),
            ),
            ping(target),
            ("kernel-drop", qr, "reverse path filter"),
        ),
    ]
}

fn limits(target: &Target) -> Vec<Fault<'static>> {
    let Target { qr, qg, router, .. } = target;
    let both = |make: &str, mend: &str| (target.in_router(make), target.in_router(mend));
    let big = || {
        let ping = format!("ping -q -c 2 -i 0.2 -W 1 -s 1410 -M do {OUTSIDE}");
        Traffic::Here(target.inside(&format!("sh -c 'ip route flush cache; {ping}'")))
    };
    let many = format!("ping -q -c 5 -i 0.05 -s 1000 -W 1 {OUTSIDE}");
    let quiet = "OUTPUT -p icmp --icmp-type fragmentation-needed -j DROP";
    let guilty = ("kernel-drop", qr.as_str(), "takes packets of 1400 bytes, and this one has 1438");
    // As many connections as the kernel has room for, none of which it may forget; those of other namespaces do not count.
    let fill = "awk -v most=$(sysctl -n net.netfilter.nf_conntrack_max) 'BEGIN { for (i = 0; i < most; i++) printf(\
                \"-I -p udp -s 127.9.0.%d -d 127.8.0.1 --sport %d --dport 9 -t 60 -u SEEN_REPLY,ASSURED\\n\", \
                i / 60000 + 1, i % 60000 + 1000) }' > /run/tracked";
    let load = format!("{}; true", target.in_router("conntrack -R /run/tracked >/dev/null 2>&1"));
    vec![
        Fault::new(
            "MTU, and the sender is told",
            both(&format!("ip link set {qg} mtu 1400"), &format!("ip link set {qg} mtu 1500")),
            big(),
            guilty,
        ),
        Fault {
            also: &["--icmp-type 3/4 -j DROP"],
            ..Fault::new(
                "MTU, and the sender is not told",
                both(
                    &format!("sh -c 'ip link set {qg} mtu 1400; iptables -I {quiet}'"),
                    &format!("sh -c 'ip link set {qg} mtu 1500; iptables -D {quiet}'"),
                ),
                big(),
                guilty,
            )
        },
        Fault::new(
            "full queue",
            both(
                &format!("tc qdisc replace dev {qg} root tbf rate 8kbit burst 1600 limit 1600"),
                &format!("tc qdisc del dev {qg} root"),
            ),
            Traffic::Here(target.inside(&many)),
            ("kernel-drop", qg, "is tbf"),
        ),
        Fault::new(
            "full table of connections",
            (format!("{fill}; {load}"), target.in_router("conntrack -F")),
            ping(target),
            ("kernel-drop", router, "is full"),
        ),
    ]
}

fn translation(target: &Target) -> Vec<Fault<'static>> {
    let Target { fixed, floating, .. } = target;
    let snat = format!("float-snat -s {fixed}/32 -j SNAT --to-source {floating} --random-fully");
    let all = ["I POSTROUTING 1 -j ACCEPT", "D POSTROUTING 1"];
    let all = all.map(|rule| target.in_router(&format!("iptables -t nat -{rule}")));
    vec![
        Fault::new(
            "no SNAT of the floating IP",
            (target.nat("D", &snat), target.nat("A", &snat)),
            ping(target),
            ("left-as-another", "eth1", "has no SNAT rule"),
        ),
        Fault::new(
            "no SNAT at all",
            (all[0].clone(), all[1].clone()),
            ping(target),
            ("left-untranslated", "eth1", &format!("as {fixed}")),
        ),
    ]
}
