//! Objects of the policy, written. Flow: policy.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State as Shared},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Api, body, error::ApiError};
use crate::{
    policy_source::{
        Refused,
        state::{Kind, State, object},
    },
    reconcile::{Change, Order, Outcome},
};

/// Replaces everything the API was told.
pub(super) async fn policy(Shared(api): Shared<Arc<Api>>, body: Body) -> Result<Response, ApiError> {
    let state = State::from_document(body::json(body).await?).map_err(|(field, why)| ApiError::bad(&field, why))?;
    let answer = json!({ "policy": state.document() });
    order(&api, Change::Replace(state), answer).await
}

/// Sets an object.
pub(super) async fn put(
    kind: Kind,
    Shared(api): Shared<Arc<Api>>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, ApiError> {
    let object = object(kind, &id, body::json(body).await?).map_err(|(field, why)| ApiError::bad(&field, why))?;
    let answer = json!({ kind.one(): object });
    order(&api, Change::Put(kind, id, object), answer).await
}

/// Removes an object.
pub(super) async fn delete(
    kind: Kind,
    Shared(api): Shared<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    order(&api, Change::Remove(kind, id), Value::Null).await
}

/// Sets the members of a group beyond its ports: a list, or a list in `members`.
pub(super) async fn put_members(
    Shared(api): Shared<Arc<Api>>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, ApiError> {
    let list = match body::json(body).await? {
        Value::Object(mut fields) => fields.remove(Kind::Members.name()).unwrap_or_default(),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => other,
    };
    if !list.is_array() {
        return Err(ApiError::bad("members", "is no list of addresses and prefixes"));
    }
    let answer = json!({ "members": list });
    order(&api, Change::Put(Kind::Members, id, list), answer).await
}

/// Removes the members of a group beyond its ports.
pub(super) async fn delete_members(
    Shared(api): Shared<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    order(&api, Change::Remove(Kind::Members, id), Value::Null).await
}

/// Has the loop carry out a change, and waits until it is in force or known not to be.
pub(super) async fn order(api: &Api, change: Change, object: Value) -> Result<Response, ApiError> {
    let words = change.to_string();
    let (answer, outcome) = oneshot::channel();
    let stopping = || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping");
    api.orders.send(Order { change, answer }).await.map_err(|_| stopping())?;
    match outcome.await.map_err(|_| stopping())? {
        Outcome::InForce if object.is_null() => Ok(StatusCode::NO_CONTENT.into_response()),
        Outcome::InForce => Ok(Json(object).into_response()),
        Outcome::Held(why) => Ok((StatusCode::ACCEPTED, Json(held(object, &why))).into_response()),
        Outcome::NotThere => Err(ApiError::new(StatusCode::NOT_FOUND, format!("{words}: there is none"))),
        Outcome::OfFiles => Err(ApiError::new(
            StatusCode::CONFLICT,
            format!("{words}: it is in a policy file, and only there it can be changed"),
        )),
        Outcome::Contradicts(why) => Err(ApiError::new(StatusCode::CONFLICT, format!("{words}: {why}"))),
        Outcome::OfLabel => Err(ApiError::new(
            StatusCode::CONFLICT,
            format!("{words}: it is there because of a container's label, and goes with the container"),
        )),
        Outcome::Refused(Refused::Mistakes(mistakes)) => Err(ApiError::mistakes(StatusCode::BAD_REQUEST, mistakes)),
        Outcome::Refused(Refused::NotKept(error)) => Err(ApiError::new(
            StatusCode::INSUFFICIENT_STORAGE,
            format!("{words}: it cannot be kept for the next start: {error}; nothing has changed"),
        )),
    }
}

/// An answer that says what is not in force, and why.
fn held(object: Value, why: &str) -> Value {
    let mut answer = if object.is_null() { json!({}) } else { object };
    answer["state"] = json!("held");
    answer["reason"] = json!(why);
    answer
}
