//! Floating IPs: those netdiag found and those it serves, with the ways they take. Flow: policy.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use axum::{
    Json,
    body::Body,
    extract::{Path, State as Shared},
    http::StatusCode,
    response::Response,
};
use netdiag_model::{
    floating::{FloatingIp, Owner},
    policy::{convert::to_wire, types::Policy, wire},
};
use serde_json::{Value, json};

use super::{Api, body, error::ApiError, read::published, write};
use crate::{
    enforce::Ways,
    policy_source::state::Kind,
    reconcile::{Change, Published, floating::ways::Target},
};

/// Stands for the id where an order is for all floating IPs.
const ALL: &str = "all";

/// All of them.
pub(super) async fn list(Shared(api): Shared<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ Kind::Floatingips.name(): objects(&api).await? })))
}

/// One of them, by its id or its address.
pub(super) async fn one(Shared(api): Shared<Arc<Api>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let mut objects = objects(&api).await?.into_iter();
    let object = objects.find(|object| object["id"] == id || object["floating_ip_address"] == id);
    let not_found = || ApiError::not_found(Kind::Floatingips.words(), &id);
    object.map(|object| Json(json!({ Kind::Floatingips.one(): object }))).ok_or_else(not_found)
}

async fn objects(api: &Api) -> Result<Vec<Value>, ApiError> {
    let published = published(api);
    let slots: BTreeSet<u32> =
        published.status.floating_ips.iter().flatten().filter_map(|one| slot(one, &published)).collect();
    let refuse = |why| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, why);
    let ways = api.ways(slots).await.map_err(refuse)?;
    let asked = published.policy.as_deref().map(|policy| to_wire(policy).floatingips).unwrap_or_default();
    let planned = published.status.floating_ips.iter().flatten();
    let mut objects: Vec<_> = planned.clone().map(|one| object(one, &asked, &published, &ways)).collect();
    let is_planned = |asked: &wire::FloatingIp| {
        let mut planned = planned.clone().filter(|one| one.owner == Owner::Netdiag);
        planned.any(|one| one.floating_ip_address.to_string() == asked.floating_ip_address)
    };
    objects.extend(asked.iter().filter(|asked| !is_planned(asked)).map(unplanned));
    Ok(objects)
}

/// Place of the port of a fast one.
pub(crate) fn slot(one: &FloatingIp, published: &Published) -> Option<u32> {
    published.places.get(&one.fast()?.port_ifindex).map(|(slot, _)| *slot)
}

fn object(one: &FloatingIp, asked: &[wire::FloatingIp], published: &Published, ways: &BTreeMap<u32, Ways>) -> Value {
    let address = one.floating_ip_address.to_string();
    let of_policy = asked.iter().find(|asked| one.owner == Owner::Netdiag && asked.floating_ip_address == address);
    let mut object = of_policy.map_or_else(|| json!({ "id": address }), |asked| json!(asked));
    object["floating_ip_address"] = json!(address);
    object["fixed_ip_address"] = json!(one.fixed_ip_address);
    object["port_id"] = json!(one.port_id);
    object["router"] = json!(one.router);
    object["owner"] = json!(one.owner);
    let (state, reason) = one.shown();
    object["state"] = json!(state);
    if let Some(reason) = reason {
        object["reason"] = json!(reason);
    }
    if let Some(path) = one.fast() {
        object["device"] = json!(path.device);
        object["vlan"] = json!(path.vlan);
    }
    if let Some(ways) = slot(one, published).and_then(|slot| ways.get(&slot)) {
        object["packets"] = packets(ways);
    }
    object
}

/// Packets by direction and way.
fn packets(ways: &Ways) -> Value {
    let mut packets = json!({ "ingress": {}, "egress": {} });
    for ((ingress, way), tally) in ways {
        packets[if *ingress { "ingress" } else { "egress" }][way.name()] = json!(tally.packets);
    }
    packets
}

/// One that is asked for and that nobody has looked for yet.
fn unplanned(asked: &wire::FloatingIp) -> Value {
    let mut object = json!(asked);
    object["state"] = json!("broken");
    object["reason"] = json!("the routers of this host have not been looked at since it was asked for");
    object
}

// === ways ===

/// Whether new flows were told to begin the slow way.
pub(super) async fn way(Shared(api): Shared<Arc<Api>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let published = published(&api);
    let (all, told) = (published.slow.0, &published.slow.1);
    Ok(Json(match target(&id, &published)? {
        Target::All => json!({ "slow": all, "addresses": told }),
        Target::One(address) => json!({ "slow": all || told.contains(&address) }),
    }))
}

/// Tells new flows to begin the slow way, or not any longer.
pub(super) async fn put_way(
    Shared(api): Shared<Arc<Api>>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, ApiError> {
    let target = target(&id, &published(&api))?;
    let body = body::json(body).await?;
    let Some(slow) = body["slow"].as_bool() else {
        return Err(ApiError::bad("slow", "is neither true nor false"));
    };
    write::order(&api, Change::Way(target, slow), json!({ "slow": slow })).await
}

/// Whom an id or an address means. An address may be one that is not there yet.
fn target(id: &str, published: &Published) -> Result<Target, ApiError> {
    if id == ALL {
        return Ok(Target::All);
    }
    let by_id = |policy: &Policy| {
        let mut asked = policy.floating_ips.iter();
        asked.find(|(known, _)| known.0 == id).map(|(_, asked)| asked.floating_ip_address)
    };
    let address = id.parse::<Ipv4Addr>().ok().or_else(|| by_id(published.policy.as_deref()?));
    address.map(Target::One).ok_or_else(|| ApiError::not_found(Kind::Floatingips.words(), id))
}

#[cfg(test)]
mod tests {
    use super::packets;
    use netdiag_common::abi::{floating::Way, value::Tally};

    #[test]
    fn packets_are_told_by_direction_and_way() {
        let tally = |packets| Tally { packets, bytes: 0 };
        let ways = [((true, Way::Fast), tally(5)), ((false, Way::SlowFlow), tally(2))].into();
        let expected = serde_json::json!({ "ingress": { "fast": 5 }, "egress": { "slow-flow": 2 } });
        assert_eq!(packets(&ways), expected);
    }
}
