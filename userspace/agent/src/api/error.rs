//! What a client is told that asked for something that cannot be. Flow: policy.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use netdiag_model::policy::wire::Mistake;
use serde::Serialize;

/// An answer of 4xx or 5xx.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: Body,
}

#[derive(Debug, Serialize)]
struct Body {
    error: Wrong,
    /// All that is wrong, where it is the policy that is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mistakes: Vec<Mistake>,
}

#[derive(Debug, Serialize)]
struct Wrong {
    /// Which field or parameter; empty where the request as a whole is meant.
    field: String,
    reason: String,
    /// What would be right, where that can be listed.
    valid: Vec<String>,
}

impl ApiError {
    /// An answer about the request as a whole.
    pub(crate) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        let error = Wrong { field: String::new(), reason: reason.into(), valid: Vec::new() };
        Self { status, body: Body { error, mistakes: Vec::new() } }
    }

    /// A request that makes no sense.
    pub(crate) fn bad(field: &str, reason: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, reason);
        field.clone_into(&mut error.body.error.field);
        error
    }

    /// With what would have been right.
    #[must_use]
    pub(crate) fn valid<I: Into<String>>(mut self, valid: impl IntoIterator<Item = I>) -> Self {
        self.body.error.valid = valid.into_iter().map(Into::into).collect();
        self
    }

    /// Nothing of this kind has this id.
    pub(crate) fn not_found(kind: &str, id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no {kind} {id}"))
    }

    /// A policy with mistakes; the first is the reason.
    pub(crate) fn mistakes(status: StatusCode, mistakes: Vec<Mistake>) -> Self {
        let first = mistakes.first();
        let error = Wrong {
            field: first.map_or_else(String::new, |first| first.field.clone()),
            reason: first.map_or_else(String::new, |first| match first.object.as_str() {
                "" => first.why.clone(),
                object => format!("{object}: {}", first.why),
            }),
            valid: first.map_or_else(Vec::new, |first| first.valid.to_vec()),
        };
        Self { status, body: Body { error, mistakes } }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}
