//! Tracked flows. Flow: observe.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use axum::{
    Json,
    extract::{Query, State as Shared, rejection::QueryRejection},
    http::StatusCode,
};
use ipnet::IpNet;
use netdiag_model::{
    fact::enforcement::{EnforcementFact, FlowFact},
    policy::types::Direction,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, error::ApiError};

/// Flows in one answer, where nothing else is asked for.
const MOST: usize = 10_000;

/// Which flows; all of it must fit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Id of the port.
    port: Option<String>,
    /// Address or prefix at the instance.
    local: Option<String>,
    /// Address or prefix of the other end.
    remote: Option<String>,
    /// IP protocol, by number.
    protocol: Option<u8>,
    /// Which way its first packet went.
    direction: Option<Direction>,
    /// State, in the tracker's word.
    state: Option<String>,
    /// Id of the rule that allows it.
    rule: Option<String>,
    /// How many at most.
    limit: Option<usize>,
}

/// Flows that fit, how many fit in all, and how many there are.
pub(super) async fn list(
    Shared(api): Shared<Arc<Api>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(wanted) = wanted.map_err(|rejection| {
        let valid = ["port", "local", "remote", "protocol", "direction", "state", "rule", "limit"];
        ApiError::bad("", rejection.body_text()).valid(valid)
    })?;
    let (local, remote) = (prefix("local", wanted.local.as_ref())?, prefix("remote", wanted.remote.as_ref())?);
    let loaded = api.loaded(true).await;
    let loaded = loaded.map_err(|why| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, why))?;
    let names = Names::of(&loaded);
    let all = loaded.tracked.as_deref().unwrap_or_default();
    let fits = |flow: &&FlowFact| wanted.fits(flow, &names) && holds(local, flow.local) && holds(remote, flow.remote);
    let found: Vec<_> = all.iter().filter(fits).collect();
    let listed: Vec<_> = found.iter().take(wanted.limit.unwrap_or(MOST)).map(|flow| names.name(flow)).collect();
    Ok(Json(json!({ "flows": listed, "matching": found.len(), "tracked": all.len() })))
}

impl Wanted {
    fn fits(&self, flow: &FlowFact, names: &Names<'_>) -> bool {
        self.port.as_deref().is_none_or(|port| names.port(flow) == Some(port))
            && self.protocol.is_none_or(|protocol| flow.protocol == protocol)
            && self.direction.is_none_or(|direction| flow.direction == direction)
            && self.state.as_deref().is_none_or(|state| flow.state == state)
            && self.rule.as_deref().is_none_or(|rule| names.rule(flow) == Some(rule))
    }
}

/// An address or a prefix of a query.
fn prefix(field: &str, text: Option<&String>) -> Result<Option<IpNet>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    parsed.map(Some).map_err(|_| ApiError::bad(field, format!("{text} is no address and no prefix")))
}

fn holds(prefix: Option<IpNet>, address: IpAddr) -> bool {
    prefix.is_none_or(|prefix| prefix.contains(&address))
}

/// Names of ports and rules by their numbers.
struct Names<'a> {
    ports: BTreeMap<u32, &'a str>,
    rules: BTreeMap<u32, &'a str>,
}

impl<'a> Names<'a> {
    fn of(loaded: &'a EnforcementFact) -> Self {
        let ports = loaded.ports.iter().map(|port| (port.slot, port.port_id.as_str())).collect();
        let rules = loaded.rules.iter().map(|rule| (rule.index, rule.id.as_str())).collect();
        Self { ports, rules }
    }

    fn port(&self, flow: &FlowFact) -> Option<&'a str> {
        self.ports.get(&flow.slot).copied()
    }

    fn rule(&self, flow: &FlowFact) -> Option<&'a str> {
        self.rules.get(&flow.rule).copied()
    }

    /// A flow with names instead of numbers.
    fn name(&self, flow: &FlowFact) -> Value {
        json!({
            "port_id": self.port(flow),
            "direction": flow.direction,
            "protocol": flow.protocol,
            "local": flow.local,
            "local_port": flow.local_port,
            "remote": flow.remote,
            "remote_port": flow.remote_port,
            "state": flow.state,
            "rule": self.rule(flow),
            "age": flow.age,
            "idle": flow.idle,
            "dead": flow.dead,
            "expired": flow.expired,
        })
    }
}
