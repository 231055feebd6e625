//! Objects of the policy, read. Flow: policy.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State as Shared},
    http::StatusCode,
};
use netdiag_model::{
    policy::{
        convert::to_wire,
        types::{GroupId, Policy},
        wire::{Port, State as Wire},
    },
    status::Status,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Api, error::ApiError};
use crate::{policy_source::state::Kind, reconcile::Published};

/// How the agent is.
pub(super) async fn status(Shared(api): Shared<Arc<Api>>) -> Json<Status> {
    Json(published(&api).status.clone())
}

/// The policy that is asked for, files and API together.
pub(super) async fn policy(Shared(api): Shared<Arc<Api>>) -> Result<Json<Wire>, ApiError> {
    known(&published(&api)).map(|policy| Json(to_wire(policy)))
}

/// Every object of a kind.
pub(super) fn all(kind: Kind, api: &Api) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ kind.name(): objects(kind, &published(api))? })))
}

/// One object.
pub(super) fn one(kind: Kind, api: &Api, id: &str) -> Result<Json<Value>, ApiError> {
    let objects = objects(kind, &published(api))?;
    let object = objects.into_iter().find(|object| object["id"] == id);
    object.map(|object| Json(json!({ kind.one(): object }))).ok_or_else(|| ApiError::not_found(kind.words(), id))
}

/// Members of every group: those named as such, and those there are in all.
pub(super) async fn members(Shared(api): Shared<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let published = published(&api);
    let policy = known(&published)?;
    let members: Map<_, _> =
        policy.groups.keys().map(|group| (group.0.clone(), addresses(policy, group, &published))).collect();
    Ok(Json(json!({ "members": members })))
}

/// Members of one group.
pub(super) async fn members_of(Shared(api): Shared<Arc<Api>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let published = published(&api);
    let policy = known(&published)?;
    let group = GroupId(id);
    if !policy.groups.contains_key(&group) {
        return Err(ApiError::not_found("security group", &group.0));
    }
    Ok(Json(json!({ "members": addresses(policy, &group, &published) })))
}

fn addresses(policy: &Policy, group: &GroupId, published: &Published) -> Value {
    let mut members = policy.members_of(group, &published.found);
    let made = Policy { ports: published.made.as_ref().clone(), ..Policy::default() };
    members.extend(made.members_of(group, &published.found));
    members.into_iter().map(|member| Value::String(member.to_string())).collect()
}

/// What the loop published last.
pub(super) fn published(api: &Api) -> Arc<Published> {
    api.published.borrow().clone()
}

fn known(published: &Published) -> Result<&Policy, ApiError> {
    published
        .policy
        .as_deref()
        .ok_or_else(|| ApiError::mistakes(StatusCode::SERVICE_UNAVAILABLE, published.status.mistakes.clone()))
}

fn objects(kind: Kind, published: &Published) -> Result<Vec<Value>, ApiError> {
    let wire = to_wire(known(published)?);
    match kind {
        Kind::SecurityGroups => values(wire.security_groups),
        Kind::AddressGroups => values(wire.address_groups),
        Kind::Ports => ports(wire.ports, published),
        Kind::Members | Kind::Floatingips => Ok(Vec::new()),
    }
}

/// Ports, with where they come from and what became of them: those that were asked for, and those of labelled containers.
fn ports(asked: Vec<Port>, published: &Published) -> Result<Vec<Value>, ApiError> {
    let made = Policy { ports: published.made.as_ref().clone(), ..Policy::default() };
    let asked = values(asked)?.into_iter().map(|port| {
        let told = port["id"].as_str().is_some_and(|id| published.api.get(Kind::Ports, id).is_some());
        (port, if told { "api" } else { "file" })
    });
    let made = values(to_wire(&made).ports)?.into_iter().map(|port| (port, "label"));
    let origin = |(mut port, origin): (Value, &str)| {
        port["origin"] = json!(origin);
        with_enforcement(port, published)
    };
    Ok(asked.chain(made).map(origin).collect())
}

fn values<T: Serialize>(objects: Vec<T>) -> Result<Vec<Value>, ApiError> {
    let values = objects.into_iter().map(serde_json::to_value).collect::<Result<_, _>>();
    values.map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// A port, and what became of it on this host.
fn with_enforcement(mut port: Value, published: &Published) -> Value {
    let id = port["id"].as_str().unwrap_or_default();
    let enforced = published.status.ports.iter().find(|enforced| enforced.id == id);
    let refused = published.status.refused.iter().find(|refused| refused.port_id == id);
    port["enforcement"] = match (enforced, refused) {
        (Some(enforced), _) => {
            json!({
                "state": "enforced",
                "instance": enforced.instance,
                "device": enforced.device,
                "hooks": enforced.hooks,
                "mode": enforced.mode,
            })
        }
        (None, Some(refused)) => json!({ "state": "refused", "reason": refused.why }),
        (None, None) => json!({ "state": "absent" }),
    };
    port
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use netdiag_model::policy::{
        convert,
        types::{GroupId, Policy},
        wire::Document,
    };

    use super::{Kind, Published, addresses, objects};
    use crate::policy_source::state::State;

    /// A policy with one group, and with what else is given.
    fn policy(more: &str) -> Policy {
        let text = format!("security_groups: [{{id: web}}]\n{more}");
        convert::policy(&[Document { name: "a".to_owned(), text }]).unwrap()
    }

    #[test]
    fn ports_say_where_they_come_from_those_of_labels_too() {
        let port = |id: &str| policy(&format!("ports: [{{id: {id}, security_groups: [web], fixed_ips: [10.0.0.1]}}]"));
        let mut known = port("filed");
        known.ports.extend(port("told").ports);
        let mut api = State::default();
        api.put(Kind::Ports, "told".to_owned(), serde_json::json!({"security_groups": ["web"]}));
        let published = Published {
            policy: Some(Arc::new(known)),
            api: Arc::new(api),
            made: Arc::new(port("shop/eth0").ports),
            ..Published::default()
        };
        let ports = objects(Kind::Ports, &published).unwrap();
        let origins: Vec<_> = ports.iter().map(|port| (port["id"].as_str(), port["origin"].as_str())).collect();
        let expected = [("filed", "file"), ("told", "api"), ("shop/eth0", "label")];
        assert_eq!(origins, expected.map(|(id, origin)| (Some(id), Some(origin))));
    }

    #[test]
    fn members_of_a_group_are_those_of_documents_and_labelled_containers() {
        let port = |id: &str, address: &str| {
            policy(&format!("ports: [{{id: {id}, security_groups: [web], fixed_ips: [{address}]}}]"))
        };
        let made = Arc::new(port("labelled", "10.0.0.2").ports);
        let published = Published { made, ..Published::default() };
        let members = addresses(&port("written", "10.0.0.1"), &GroupId("web".to_owned()), &published);
        assert_eq!(members, serde_json::json!(["10.0.0.1/32", "10.0.0.2/32"]));
    }
}
