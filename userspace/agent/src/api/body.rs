//! Bodies of requests: bounded in size and in time. Flow: policy.

use std::time::Duration;

use axum::{body::Body, http::StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;
use tokio::time::timeout;

use super::error::ApiError;

/// The largest body taken, in bytes: a policy of 10 000 ports has some 5 MiB.
pub(crate) const LIMIT: usize = 8 << 20;
/// How long a client may take to send it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The whole body as JSON.
///
/// # Errors
/// Too large (413), too slow (408), broken off or no JSON (400).
pub(crate) async fn json(body: Body) -> Result<Value, ApiError> {
    let read = timeout(PATIENCE, Limited::new(body, LIMIT).collect()).await;
    let slow = || ApiError::new(StatusCode::REQUEST_TIMEOUT, format!("no body within {} s", PATIENCE.as_secs()));
    let bytes = read.map_err(|_| slow())?.map_err(|error| {
        if error.is::<LengthLimitError>() {
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {LIMIT} bytes"))
        } else {
            ApiError::bad("", format!("the body ends before its end: {error}"))
        }
    })?;
    serde_json::from_slice(&bytes.to_bytes())
        .map_err(|error| ApiError::bad("", format!("the body is no JSON: {error}")))
}
