//! Metrics for Prometheus, on a loopback address, for whoever asked for them. Flow: observe.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::SocketAddr,
    sync::Arc,
};

use axum::{
    Router,
    extract::State as Shared,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::get,
};
use netdiag_common::abi::value::Tally;
use netdiag_model::{
    fact::enforcement::EnforcementFact, floating::FloatingIp, policy::types::Direction, status::Status,
};
use tokio::net::TcpListener;

use crate::{
    api::{self, Api},
    enforce::Ways,
    reconcile::Published,
};

/// The text format of Prometheus.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Listens at an address.
pub(crate) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers whoever asks; never ends.
pub(crate) async fn serve(listener: TcpListener, api: Api) {
    let router = Router::new().route("/metrics", get(metrics)).with_state(Arc::new(api));
    api::serve(listener, router).await;
}

async fn metrics(Shared(api): Shared<Arc<Api>>) -> Response {
    let published = api.published.borrow().clone();
    match read(&api, &published).await {
        Ok((loaded, ways)) => ([(CONTENT_TYPE, TEXT)], render(&published.status, &loaded, &ways)).into_response(),
        Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, why).into_response(),
    }
}

/// What the maps say: of ports, and of the floating IPs of each.
async fn read(api: &Api, published: &Published) -> Result<(EnforcementFact, Vec<Counted>), String> {
    let mut by_slot: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for floating in published.status.floating_ips.iter().flatten() {
        if let Some(slot) = api::slot(floating, published) {
            by_slot.entry(slot).or_default().push(floating.floating_ip_address.to_string());
        }
    }
    let ways = api.ways(by_slot.keys().copied().collect()).await?;
    let named = ways.into_iter().filter_map(|(slot, ways)| Some((by_slot.get(&slot)?.join(","), ways)));
    Ok((api.loaded(false).await?, named.collect()))
}

/// Floating IPs of one port, with commas between them, and the ways their packets have taken.
type Counted = (String, Ways);

/// Everything, family by family.
fn render(status: &Status, loaded: &EnforcementFact, ways: &[Counted]) -> String {
    let mut page = Page::default();
    page.family("netdiag_build_info", "gauge", "The agent's version.");
    page.sample("netdiag_build_info", &[("version", &status.agent.version)], 1);
    ports(&mut page, loaded);
    rules(&mut page, loaded);
    floating_ips(&mut page, status, ways);
    agent(&mut page, status);
    page.0
}

fn ports(page: &mut Page, loaded: &EnforcementFact) {
    page.family("netdiag_packets_total", "counter", "Packets by port, direction and reason.");
    for port in &loaded.ports {
        for count in &port.counters {
            let labels =
                [("port", port.port_id.as_str()), ("direction", count.direction.name()), ("reason", &count.reason)];
            page.sample("netdiag_packets_total", &labels, count.packets);
        }
    }
    page.family("netdiag_bytes_total", "counter", "Bytes by port, direction and reason.");
    for port in &loaded.ports {
        for count in &port.counters {
            let labels =
                [("port", port.port_id.as_str()), ("direction", count.direction.name()), ("reason", &count.reason)];
            page.sample("netdiag_bytes_total", &labels, count.bytes);
        }
    }
    page.family("netdiag_flows", "gauge", "Flows tracked now, by port.");
    for port in &loaded.ports {
        page.sample("netdiag_flows", &[("port", &port.port_id)], port.flows);
    }
    page.family(
        "netdiag_events_suppressed_total",
        "counter",
        "Events not written because the port had used up its share.",
    );
    for port in &loaded.ports {
        page.sample("netdiag_events_suppressed_total", &[("port", &port.port_id)], port.suppressed);
    }
    page.family("netdiag_events_lost_total", "counter", "Events not written because the ring buffer was full.");
    for port in &loaded.ports {
        page.sample("netdiag_events_lost_total", &[("port", &port.port_id)], port.lost);
    }
}

fn rules(page: &mut Page, loaded: &EnforcementFact) {
    page.family("netdiag_rule_hits_total", "counter", "Flows a rule has allowed (packets, on a stateless port).");
    for rule in &loaded.rules {
        // A number tells versions of one rule apart while both are there.
        page.sample("netdiag_rule_hits_total", &[("rule", &rule.id), ("number", &rule.index.to_string())], rule.hits);
    }
}

fn floating_ips(page: &mut Page, status: &Status, counted: &[Counted]) {
    // Two sets of rules of one router may have the same.
    let shown: BTreeSet<_> = status.floating_ips.iter().flatten().map(shown).collect();
    page.family("netdiag_floating_ips", "gauge", "Floating IPs by state.");
    for wanted in ["fast", "slow", "broken"] {
        let of_it = shown.iter().filter(|[_, _, state, _]| state == wanted);
        page.sample("netdiag_floating_ips", &[("state", wanted)], count(of_it.count()));
    }
    page.family("netdiag_floating_ip_state", "gauge", "1 for each floating IP: its state, and why it is not fast.");
    for [floating, router, state, reason] in &shown {
        let labels = [("floating_ip", &**floating), ("router", router), ("state", state), ("reason", reason)];
        page.sample("netdiag_floating_ip_state", &labels, 1);
    }
    for (name, what) in [("netdiag_floating_ip_packets_total", "Packets"), ("netdiag_floating_ip_bytes_total", "Bytes")]
    {
        let of = |tally: &Tally| if what == "Packets" { tally.packets } else { tally.bytes };
        page.family(
            name,
            "counter",
            &format!("{what} of floating IPs by way; those of one port are counted together."),
        );
        for (floating, ways) in counted {
            for ((ingress, way), tally) in ways {
                let direction = if *ingress { Direction::Ingress } else { Direction::Egress };
                let labels = [("floating_ip", floating.as_str()), ("direction", direction.name()), ("way", way.name())];
                page.sample(name, &labels, of(tally));
            }
        }
    }
}

/// A floating IP, its router, its state and why it is not fast.
fn shown(one: &FloatingIp) -> [String; 4] {
    let (state, reason) = one.shown();
    [one.floating_ip_address.to_string(), one.router.clone(), state.to_owned(), reason.unwrap_or_default().to_owned()]
}

fn agent(page: &mut Page, status: &Status) {
    let numbers: [(&str, &str, &str, u64); 8] = [
        ("netdiag_passes_total", "counter", "Passes of the loop that ended well.", status.passes.done),
        ("netdiag_passes_failed_total", "counter", "Passes that failed.", status.passes.failed),
        ("netdiag_pass_duration_milliseconds", "gauge", "How long the last pass took.", status.passes.last_ms),
        ("netdiag_ports", "gauge", "Ports that are enforced.", count(status.ports.len())),
        ("netdiag_ports_refused", "gauge", "Ports that cannot be enforced.", count(status.refused.len())),
        (
            "netdiag_policy_mistakes",
            "gauge",
            "Mistakes in the policy as it is written now.",
            count(status.mistakes.len()),
        ),
        ("netdiag_problems", "gauge", "What else keeps the agent from converging.", count(status.agent.problems.len())),
        (
            "netdiag_converged_timestamp_seconds",
            "gauge",
            "When what is loaded last agreed with what is asked; 0 is never.",
            status.agent.converged.unwrap_or(0),
        ),
    ];
    for (name, kind, help, value) in numbers {
        page.family(name, kind, help);
        page.sample(name, &[], value);
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Text under construction.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        match labels.join(",") {
            none if none.is_empty() => self.line(format_args!("{name} {value}")),
            labels => self.line(format_args!("{name}{{{labels}}} {value}")),
        }
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        self.0.push_str(&line.to_string());
        self.0.push('\n');
    }
}

/// The value of a label, as the format quotes it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::{Tally, render};
    use netdiag_common::abi::floating::Way;
    use netdiag_model::{
        fact::enforcement::{EnforcementFact, LoadedRule},
        floating::{ExternalHook, FastPath, FloatingIp, Owner, State},
        id::Mac,
        status::Status,
    };

    #[test]
    fn each_floating_ip_says_its_state_and_why_it_is_not_fast_once() {
        let made = |last: u8, way: State| FloatingIp {
            floating_ip_address: [172, 24, 4, last].into(),
            fixed_ip_address: None,
            port_id: None,
            router: "qrouter-1".to_owned(),
            owner: Owner::Found,
            way,
        };
        let broken = made(7, State::Broken { why: "eth1 is down".to_owned() });
        let slow = made(6, State::Slow { why: "a rule \"x\"".to_owned() });
        let fast = made(8, State::Fast(Box::new(path(true))));
        let told = made(9, State::Fast(Box::new(path(false))));
        let floating_ips = Some(vec![slow.clone(), slow, broken, fast, told]);
        let status = Status { floating_ips, ..Status::default() };
        let text = render(&status, &EnforcementFact::default(), &[]);
        let samples: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("netdiag_floating_ip_state{")).collect();
        let expected = [
            ("172.24.4.6", "slow", "a rule \\\"x\\\""),
            ("172.24.4.7", "broken", "eth1 is down"),
            ("172.24.4.8", "fast", ""),
            ("172.24.4.9", "slow", "told to be slow; flows that began on the fast way end there"),
        ];
        let expected = expected.map(|(address, state, reason)| {
            format!("floating_ip=\"{address}\",router=\"qrouter-1\",state=\"{state}\",reason=\"{reason}\"}} 1")
        });
        assert_eq!(samples, expected);
        for sample in ["fast\"} 1", "slow\"} 2", "broken\"} 1"] {
            assert!(text.contains(&format!("netdiag_floating_ips{{state=\"{sample}\n")), "{text}");
        }
    }

    fn path(begins: bool) -> FastPath {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        FastPath {
            router: 1,
            device: "eth1".to_owned(),
            ifindex: 2,
            hook: ExternalHook::Tc,
            vlan: 0,
            outer_mac: mac,
            outer_mtu: 1500,
            inner_mac: mac,
            inner_mtu: 1500,
            mac,
            port_ifindex: 3,
            peer: false,
            hops: 1,
            random: false,
            begins,
        }
    }

    #[test]
    fn every_sample_belongs_to_a_family_and_names_from_outside_end_no_line() {
        let rule = LoadedRule { index: 7, id: "a\"b\\c\nd".to_owned(), hits: 5 };
        let ways = [((true, Way::Fast), Tally { packets: 9, bytes: 900 })].into();
        let loaded = EnforcementFact { rules: vec![rule], ..EnforcementFact::default() };
        let text = render(&Status::default(), &loaded, &[("172.24.4.6".to_owned(), ways)]);
        let sample =
            "netdiag_floating_ip_packets_total{floating_ip=\"172.24.4.6\",direction=\"ingress\",way=\"fast\"} 9\n";
        assert!(text.contains(sample), "{text}");
        assert!(text.contains("netdiag_rule_hits_total{rule=\"a\\\"b\\\\c\\nd\",number=\"7\"} 5\n"), "{text}");
        let families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(families.iter().any(|family| family.split(' ').next() == Some(name)), "{line}");
        }
    }
}
