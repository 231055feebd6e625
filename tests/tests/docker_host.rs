//! Every container of the `docker` lab, traced and compared with what was built and with what `ip` and `iptables-save`
//! say.

use netdiag_tests::Lab;
use serde_json::{Value, json};

#[track_caller]
fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("no text in {field}: {value:#}"))
}

fn list(value: &Value) -> Vec<&Value> {
    value.as_array().map(|all| all.iter().collect()).unwrap_or_default()
}

fn hops<'v>(interface: &'v Value, direction: &str) -> Vec<&'v Value> {
    list(&interface["hops"]).into_iter().filter(|hop| hop["direction"] == direction).collect()
}

#[test]
fn every_container_is_traced_as_it_was_built() {
    let Some(lab) = Lab::up("docker") else { return };
    let containers = list(&lab.built["containers"]);
    assert!(containers.len() >= 9);
    for container in &containers {
        let host = text(container, "host");
        let trace = lab.trace(host, text(container, "name"));
        assert_eq!(trace["verdict"], "works", "{trace:#}");
        assert_eq!(trace["gaps"], json!([]));
        for (ours, theirs) in
            [("container_id", "id"), ("name", "name"), ("pid", "pid"), ("labels", "labels"), ("hostname", "hostname")]
        {
            assert_eq!(trace["instance"][ours], container[theirs], "{ours}");
        }
        let wrong = |finding: &&Value| finding["severity"] != "info";
        assert!(!list(&trace["findings"]).iter().any(wrong), "{:#}", trace["findings"]);
        let nics = cards(&containers, container);
        assert_eq!(list(&trace["interfaces"]).len(), nics.len(), "{trace:#}");
        for nic in nics {
            let interfaces = list(&trace["interfaces"]);
            let interface = interfaces.iter().find(|interface| interface["mac"] == nic["mac"]).expect("its card");
            as_built(&lab, host, nic, interface);
        }
        published(container, &trace);
    }
}

/// Cards of a container: its own, or those of the container whose network it shares.
fn cards<'v>(containers: &[&'v Value], container: &'v Value) -> Vec<&'v Value> {
    let mode = &container["mode"];
    let shared = mode["container"].as_str().and_then(|name| containers.iter().find(|other| other["name"] == name));
    list(&shared.map_or(container, |other| *other)["nics"])
}

fn as_built(lab: &Lab, host: &str, nic: &Value, interface: &Value) {
    for field in ["device", "bridge", "host_device", "mac"] {
        assert_eq!(interface[field], nic[field], "{field}");
    }
    let address = format!("{}/{}", text(&nic["address"], "address"), nic["address"]["prefix"]);
    assert_eq!(interface["addresses"], json!([address]));
    assert_eq!(interface["network_name"], nic["network"]);
    let outward = hops(interface, "outward");
    let last = outward.last().expect("hops");
    let Some(network) = nic["network"].as_str() else {
        // Plugged by hand: nothing but its own segment.
        assert_eq!(last["status"], "this segment", "{last:#}");
        assert_eq!(interface["router"], Value::Null);
        return;
    };
    let networks = list(&lab.built["docker_networks"]);
    let built = networks.iter().find(|built| built["name"] == network).expect("its network");
    assert_eq!(interface["network_id"], built["id"]);
    assert_eq!(interface["router"]["internal_device"], built["bridge"]);
    assert_eq!(interface["router"]["gateway"], built["gateway"]);
    assert_eq!(interface["router"]["external_device"], "eth0");
    assert_eq!(last["name"], "192.0.2.1");
    let nat = outward.iter().find(|hop| hop["kind"] == "nat").expect("MASQUERADE");
    assert_eq!(nat["name"], "SNAT to 192.0.2.10");
    let saved = lab.on(host, &["iptables-save", "-t", "nat"]).ok();
    assert!(saved.lines().any(|line| line == text(&nat["rules"][0], "rule")), "{nat:#} is not in\n{saved}");
}

fn published(container: &Value, trace: &Value) {
    let interfaces = list(&trace["interfaces"]);
    let found: Vec<&Value> = interfaces.iter().flat_map(|interface| list(&interface["published_ports"])).collect();
    for port in list(&container["published"]) {
        let same = |one: &&&Value| one["host_port"] == port["host_port"] && one["protocol"] == port["protocol"];
        let mine: Vec<_> = found.iter().filter(same).collect();
        assert!(!mine.is_empty(), "{port} is not in {found:#?}");
        assert!(mine.iter().all(|one| one["state"] == "ok"), "{mine:#?}");
        assert!(mine.iter().any(|one| !list(&one["rules"]).is_empty()), "no rule for {port}: {mine:#?}");
        let inward = interfaces.iter().map(|interface| hops(interface, "inward")).find(|hops| !hops.is_empty());
        let inward = inward.expect("a way in");
        assert_eq!((&inward[0]["kind"], &inward[inward.len() - 1]["kind"]), (&json!("outside"), &json!("instance")));
        assert!(inward.iter().any(|hop| hop["kind"] == "nat"), "{inward:#?}");
    }
}

#[test]
fn a_rule_that_drops_what_docker_published_is_named() {
    let Some(lab) = Lab::up("docker") else { return };
    let host = "docker-1";
    // As Docker 28 and later do for ports published on loopback, and as firewalls put in front of Docker do.
    for (make, mend) in [
        (
            "iptables -t raw -A PREROUTING -p tcp --dport 8080 -j DROP",
            "iptables -t raw -D PREROUTING -p tcp --dport 8080 -j DROP",
        ),
        ("iptables -I DOCKER-USER -o docker0 -j DROP", "iptables -D DOCKER-USER -o docker0 -j DROP"),
    ] {
        lab.sh(host, make).ok();
        let said = lab.netdiag(host, &["trace", "web-1", "-o", "json"]);
        lab.sh(host, mend).ok();
        let trace = said.json();
        let findings = list(&trace["findings"]);
        let named = findings
            .iter()
            .find(|finding| finding["code"] == "filter-drop")
            .unwrap_or_else(|| panic!("{make}: {trace:#}"));
        assert!(text(named, "evidence").ends_with("-j DROP"), "{named:#}");
        assert_eq!(said.code, Some(3), "{make}");
    }
    assert_eq!(lab.trace(host, "web-1")["verdict"], "works");
    // One port without its rule and its process: those of the other ports do not stand for it.
    let proxy = "pgrep --full --runstates D,R,S,T '[d]ocker-proxy .*-host-port 8080 '";
    lab.sh(
        host,
        "iptables -t nat -D DOCKER $(iptables -t nat -S DOCKER | grep -m1 -e '--dport 8080 ' | cut -d' ' -f3-)",
    )
    .ok();
    lab.sh(host, &format!("kill $({proxy})")).ok();
    lab.sh(host, &format!("timeout 60 sh -c \"while {proxy}; do sleep 0.05; done\"")).ok();
    lab.sh(host, "pgrep docker-proxy").ok();
    let trace = lab.trace(host, "web-1");
    let missing = list(&trace["findings"]).into_iter().filter(|finding| finding["code"] == "published-port");
    let whats: Vec<_> = missing.map(|finding| text(finding, "message")).collect();
    assert!(matches!(whats[..], [only] if only.contains("port 8080/tcp")), "{trace:#}");
    assert_eq!(lab.trace(host, "shop-1")["verdict"], "works");
    // Rules that were flushed, as firewalld does when it reloads.
    lab.sh(host, "iptables -t nat -F DOCKER && kill $(pidof docker-proxy)").ok();
    // `kill` only sends the signal: as long as a proxy lives it serves its port, on a busy machine for a while. What has
    // no namespaces any more is gone to netdiag; it may stay a zombie (Z) until dockerd looks after it.
    lab.sh(host, "timeout 60 sh -c 'while pgrep --exact --runstates D,R,S,T docker-proxy; do sleep 0.05; done'").ok();
    let trace = lab.trace(host, "web-1");
    assert!(list(&trace["findings"]).iter().any(|finding| finding["code"] == "published-port"), "{trace:#}");
}
