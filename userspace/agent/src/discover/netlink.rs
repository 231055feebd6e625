//! Links, addresses, neighbours, routes, rules, forwarding databases and VLANs of every namespace by rtnetlink.
//! Flow: discover.
//!
//! All namespaces are read at once, each over one socket. A request that fails is a gap for what it asked, and the rest
//! goes on. Types of netlink never leave this module: `attachments` hands plain data to the source of programs.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel has more attributes than are read, and new ones must not be errors"
)]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use futures_util::{StreamExt as _, stream};
use netdiag_model::{
    fact::{AddressFact, Facts, Gap, LinkDetail, LinkFact, NetworkFact, SourceKind},
    id::{IfIndex, NetnsId},
};
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::time::timeout_at;

pub(crate) use self::{connection::Answer, links::link};
use self::{
    connection::{ConnectError, Connection},
    nsid::{Ends, Numbers},
};
use super::{Scope, chain, report};
use crate::{
    enforce::netlink::exchange,
    netns::{AT_ONCE, Namespace, in_each},
};

/// Addresses.
mod addresses;
/// Programs and filters on links.
pub(crate) mod attachments;
/// The socket.
mod connection;
/// Forwarding databases and VLANs.
mod fdb;
/// Links.
mod links;
/// Neighbours.
mod neighbours;
/// Numbers of namespaces.
mod nsid;
/// Routes.
mod routes;
/// Policy rules.
mod rules;

/// How much is read of a namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Everything.
    Whole,
    /// Links and their addresses.
    Links,
}

/// Reads every namespace.
pub(super) async fn read(scope: &Scope) -> Facts {
    read_as_far_as(scope, |_| Extent::Whole).await
}

/// Reads links and addresses of every namespace, and nothing else.
pub(super) async fn read_links(scope: &Scope) -> Facts {
    read_as_far_as(scope, |_| Extent::Links).await
}

/// Reads everything of some namespaces, and links and addresses of the others.
pub(super) async fn read_routers(scope: &Scope, routers: &Scope) -> Facts {
    let whole: BTreeSet<NetnsId> = routers.namespaces.iter().map(|namespace| namespace.id).collect();
    read_as_far_as(scope, |id| if whole.contains(&id) { Extent::Whole } else { Extent::Links }).await
}

async fn read_as_far_as(scope: &Scope, extent: impl Fn(NetnsId) -> Extent) -> Facts {
    let host = scope.namespaces.iter().find(|namespace| namespace.host).cloned().map(Arc::new);
    let read = |namespace: Namespace| {
        let extent = extent(namespace.id);
        read_one(namespace, host.clone(), extent)
    };
    let results = in_each(&scope.namespaces, scope.deadline, read).await;
    let (mut readings, mut gaps) = (Vec::new(), Vec::new());
    for (namespace, result) in scope.namespaces.iter().zip(results) {
        match result {
            Ok(reading) => readings.push(reading),
            Err(error) => gaps.push(gap(namespace.id, "links, addresses and routes", chain(&error))),
        }
    }
    let how = format!("rtnetlink in {} namespaces", readings.len());
    if timeout_at(scope.deadline, explain_numbers(&mut readings, &scope.namespaces)).await.is_err() {
        gaps.push(late_numbers());
    }
    let mut networks = Vec::new();
    for reading in readings {
        gaps.extend(reading.gaps);
        networks.push(reading.fact);
    }
    Facts { networks, ..report(SourceKind::Netlink, how, gaps) }
}

/// What was read of one namespace.
struct Reading {
    fact: NetworkFact,
    gaps: Vec<Gap>,
    /// Numbers of other namespaces that are not explained yet, and the socket to ask over.
    unexplained: Option<(Numbers, Connection)>,
}

async fn read_one(namespace: Namespace, host: Option<Arc<Namespace>>, extent: Extent) -> Result<Reading, ConnectError> {
    let connection = Connection::open(&namespace).await?;
    let mut reader = Reader { netns: namespace.id, connection, gaps: Vec::new() };
    let mut fact = reader.network(extent).await;
    let mut numbers = Numbers::wanted_by(&fact.links);
    let host = host.as_deref().filter(|host| host.id != namespace.id);
    if let Err(error) = numbers.ask(&reader.connection, host).await {
        reader.gaps.push(gap(namespace.id, "ids of other namespaces", chain(&error)));
    }
    fact.nsids = std::mem::take(&mut numbers.known);
    let Reader { connection, gaps, .. } = reader;
    let unexplained = (!numbers.are_known()).then_some((numbers, connection));
    Ok(Reading { fact, gaps, unexplained })
}

/// Explains the numbers of other namespaces that the host's does not explain, now that all links are known.
async fn explain_numbers(readings: &mut [Reading], namespaces: &[Namespace]) {
    let ends = Ends::of(readings.iter().map(|reading| (reading.fact.netns, reading.fact.links.as_slice())));
    let by_id: HashMap<NetnsId, &Namespace> = namespaces.iter().map(|namespace| (namespace.id, namespace)).collect();
    let (ends, by_id) = (&ends, &by_id);
    let unexplained = readings.iter_mut().filter_map(|reading| {
        let (numbers, connection) = reading.unexplained.take()?;
        Some(async move {
            let mut numbers = numbers;
            let candidates = ends.candidates(&reading.fact.links, &numbers);
            let candidates = candidates.iter().filter_map(|id| by_id.get(id).copied());
            if let Err(error) = numbers.ask(&connection, candidates).await {
                reading.gaps.push(gap(reading.fact.netns, "ids of other namespaces", chain(&error)));
            }
            reading.fact.nsids.append(&mut numbers.known);
        })
    });
    stream::iter(unexplained).buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// Reads one namespace object by object.
struct Reader {
    netns: NetnsId,
    connection: Connection,
    gaps: Vec<Gap>,
}

impl Reader {
    async fn network(&mut self, extent: Extent) -> NetworkFact {
        let mut links = self.all("links", &links::request(), link).await;
        let addresses = self.all("addresses", &addresses::request(), addresses::address).await;
        assign(&mut links, addresses);
        let mut network = NetworkFact {
            netns: self.netns,
            nsids: BTreeMap::new(),
            links,
            neighbours: Vec::new(),
            routes: Vec::new(),
            rules: Vec::new(),
            fdb: Vec::new(),
            vlans: Vec::new(),
        };
        if extent == Extent::Whole {
            self.routing(&mut network).await;
            self.bridging(&mut network).await;
        }
        network
    }

    /// Adds what decides where packets go.
    async fn routing(&mut self, network: &mut NetworkFact) {
        let mut neighbours = self.all("neighbours", &neighbours::request(), neighbours::neighbour).await;
        neighbours.extend(self.all("proxy neighbours", &neighbours::proxy_request(), neighbours::neighbour).await);
        let (mut routes, mut rules) = (Vec::new(), Vec::new());
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            routes.extend(self.all("routes", &routes::request(family), |answer| routes::route(answer, family)).await);
            rules.extend(self.all("rules", &rules::request(family), |answer| rules::rule(answer, family)).await);
        }
        (network.neighbours, network.routes, network.rules) = (neighbours, routes, rules);
    }

    /// Adds what only namespaces with a bridge or a VXLAN device have.
    async fn bridging(&mut self, network: &mut NetworkFact) {
        let links_with = |matches: fn(&LinkDetail) -> bool| -> BTreeSet<IfIndex> {
            network.links.iter().filter(|link| matches(&link.detail)).map(|link| link.ifindex).collect()
        };
        let bridges = links_with(|detail| matches!(detail, LinkDetail::Bridge { .. }));
        let vxlans = links_with(|detail| matches!(detail, LinkDetail::Vxlan { .. }));
        if !bridges.is_empty() || !vxlans.is_empty() {
            let is_vxlan = |ifindex| vxlans.contains(&ifindex);
            network.fdb = self.all("FDB", &fdb::request(), |answer| fdb::entry(answer, is_vxlan)).await;
        }
        if !bridges.is_empty() {
            let of_ports = self.all("VLANs", &fdb::vlan_request(), |answer| Some(fdb::vlans(answer))).await;
            network.vlans = of_ports.into_iter().flatten().collect();
        }
    }

    /// All objects of a kind; those that cannot be had are a gap.
    async fn all<T>(
        &mut self,
        object: &str,
        request: &RouteNetlinkMessage,
        convert: impl FnMut(&Answer) -> Option<T>,
    ) -> Vec<T> {
        match self.connection.dump(request).await {
            Ok(dump) => {
                if !dump.consistent {
                    let why = "the kernel's table changed each time it was read, so some may be missing".to_owned();
                    self.gaps.push(gap(self.netns, object, why));
                }
                dump.answers.iter().filter_map(convert).collect()
            }
            Err(error) => {
                self.gaps.push(gap(self.netns, object, chain(&error)));
                Vec::new()
            }
        }
    }
}

/// Links in the namespace of the calling thread, without their addresses.
pub(crate) fn links_here() -> std::io::Result<Vec<LinkFact>> {
    let answers = exchange(links::request(), NLM_F_DUMP)?;
    Ok(answers.iter().filter_map(link).collect())
}

fn assign(links: &mut [LinkFact], addresses: Vec<(IfIndex, AddressFact)>) {
    let mut by_index: HashMap<IfIndex, &mut LinkFact> = links.iter_mut().map(|link| (link.ifindex, link)).collect();
    for (ifindex, address) in addresses {
        // A link that came between the two dumps will be seen next time, with its addresses.
        if let Some(link) = by_index.get_mut(&ifindex) {
            link.addresses.push(address);
        }
    }
}

fn late_numbers() -> Gap {
    Gap {
        source: SourceKind::Netlink,
        netns: None,
        object: "ids of other namespaces".to_owned(),
        why: "not done in time".to_owned(),
        fix: "give it longer with --timeout".to_owned(),
        absent: false,
    }
}

fn gap(netns: NetnsId, object: &str, why: String) -> Gap {
    Gap {
        source: SourceKind::Netlink,
        netns: Some(netns),
        object: format!("{object} of {netns}"),
        why,
        fix: "run as root, or with CAP_SYS_ADMIN and CAP_NET_ADMIN".to_owned(),
        absent: false,
    }
}
