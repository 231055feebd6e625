//! HTTP and JSON over a unix socket, in Neutron's words. Flow: policy.
//!
//! Reading answers from what the reconcile loop published last, or from the pinned maps. Writing is an order to the loop, and is
//! answered when the maps hold it, so that the next packet meets the new policy.
//!
//! | path | methods |
//! |---|---|
//! | `/v1/status` | GET |
//! | `/v1/policy` | GET, PUT: the whole of what the API was told, as one transaction |
//! | `/v1/security-groups`, `/v1/address-groups`, `/v1/ports`, `/v1/floatingips` | GET |
//! | `/v1/security-groups/{id}` and so on | GET, PUT, DELETE |
//! | `/v1/floatingips/{id}/way` | GET, PUT `{"slow": true}`: whether new flows begin the slow way; `all` for all of them |
//! | `/v1/members`, `/v1/security-groups/{id}/members` | GET; PUT, DELETE |
//! | `/v1/flows` | GET, filtered |
//! | `/v1/events` | GET: `?since=N&timeout=S` waits and answers once, `?stream=true` goes on |

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use axum::{
    Router,
    extract::{Path, State as Shared},
    http::{StatusCode, Uri},
    routing::{MethodRouter, get},
};
use netdiag_model::fact::enforcement::EnforcementFact;
use tokio::sync::{mpsc, watch};

use self::error::ApiError;
use crate::{
    discover::{self, enforcement},
    enforce::{self, Ways},
    events::EventLog,
    policy_source::state::Kind,
    reconcile::{Order, Published},
};

/// Bodies of requests.
mod body;
/// Connections of clients.
mod connection;
/// What a client is told that asked for something that cannot be.
mod error;
/// Events: once, or on and on.
mod events;
/// Floating IPs and their ways.
mod floating;
/// Tracked flows.
mod flows;
/// Objects of the policy, read.
mod read;
/// The socket itself.
pub(crate) mod socket;
/// Objects of the policy, written.
mod write;

pub(crate) use connection::serve;
pub(crate) use floating::slot;

/// What handlers need.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    /// To the reconcile loop.
    pub(crate) orders: mpsc::Sender<Order>,
    /// What the loop published last.
    pub(crate) published: watch::Receiver<Arc<Published>>,
    /// The last events.
    pub(crate) events: Arc<EventLog>,
    /// Where everything is pinned.
    pub(crate) root: PathBuf,
}

impl Api {
    /// Which ways packets of the ports at these places have taken, read from the maps themselves.
    pub(crate) async fn ways(&self, slots: BTreeSet<u32>) -> Result<BTreeMap<u32, Ways>, String> {
        let root = self.root.clone();
        let read = tokio::task::spawn_blocking(move || enforce::look::ways(&root, &slots)).await;
        let read = read.map_err(|error| error.to_string())?;
        read.map_err(|error| discover::chain(&error))
    }

    /// What is loaded, read from the maps themselves.
    pub(crate) async fn loaded(&self, flows: bool) -> Result<EnforcementFact, String> {
        let root = self.root.clone();
        let read = tokio::task::spawn_blocking(move || enforcement::now(&root, flows)).await;
        read.unwrap_or_else(|error| Err(error.to_string()))
    }
}

/// Every path.
pub(crate) fn router(api: Api) -> Router {
    let mut router = Router::new()
        .route("/v1/status", get(read::status))
        .route("/v1/policy", get(read::policy).put(write::policy))
        .route("/v1/members", get(read::members))
        .route(
            "/v1/security-groups/{id}/members",
            get(read::members_of).put(write::put_members).delete(write::delete_members),
        )
        .route("/v1/floatingips", get(floating::list))
        .route("/v1/floatingips/{id}/way", get(floating::way).put(floating::put_way))
        .route("/v1/flows", get(flows::list))
        .route("/v1/events", get(events::read));
    for (path, kind) in [
        ("/v1/security-groups", Kind::SecurityGroups),
        ("/v1/address-groups", Kind::AddressGroups),
        ("/v1/ports", Kind::Ports),
    ] {
        let one =
            get(move |Shared(api): Shared<Arc<Api>>, Path(id): Path<String>| async move { read::one(kind, &api, &id) });
        router = router
            .route(path, get(move |Shared(api): Shared<Arc<Api>>| async move { read::all(kind, &api) }))
            .route(&format!("{path}/{{id}}"), writable(kind, one));
    }
    router = router.route("/v1/floatingips/{id}", writable(Kind::Floatingips, get(floating::one)));
    router.fallback(unknown_path).method_not_allowed_fallback(unknown_method).with_state(Arc::new(api))
}

/// An object that can be read, with how it is written.
fn writable(kind: Kind, read: MethodRouter<Arc<Api>>) -> MethodRouter<Arc<Api>> {
    read.put(move |api, id, body| write::put(kind, api, id, body)).delete(move |api, id| write::delete(kind, api, id))
}

async fn unknown_path(uri: Uri) -> ApiError {
    let paths =
        ["status", "policy", "ports", "security-groups", "address-groups", "members", "floatingips", "flows", "events"];
    let valid = paths.map(|path| format!("/v1/{path}"));
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no {}", uri.path())).valid(valid)
}

async fn unknown_method(uri: Uri) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take this method", uri.path()))
}
