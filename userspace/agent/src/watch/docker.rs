//! Docker, by its stream of events. Flow: policy.
//!
//! Containers of Podman and of other runtimes are noticed by their links, or by the next full pass.

use std::{collections::HashMap, path::Path, path::PathBuf, sync::Arc};

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error, query_parameters::EventsOptionsBuilder};
use futures_util::StreamExt as _;
use tokio::time::sleep;

use super::{Bell, Changes, patience};
use crate::discover::docker_socket;

/// What can make a port come, go, move or change its groups. Health checks, of which there are many, cannot.
const EVENTS: [&str; 8] = ["start", "die", "destroy", "rename", "update", "connect", "disconnect", "unpause"];

/// Seconds a request may take; the stream that follows is not bounded.
const BOUND: u64 = 5;

/// Rings whenever a container or its networks change; never ends.
pub(crate) async fn watch(configured: PathBuf, bell: Arc<Bell>) {
    let mut backoff = patience();
    loop {
        if let Some(socket) = docker_socket(&configured)
            && let Ok(api) = connect(&socket).await
        {
            backoff.reset();
            bell.ring(Changes::CONTAINERS);
            ring(&api, &bell).await;
            bell.ring(Changes::CONTAINERS);
        }
        sleep(backoff.pause()).await;
    }
}

async fn connect(socket: &Path) -> Result<Docker, Error> {
    let path = socket.to_string_lossy();
    Docker::connect_with_unix(&path, BOUND, API_DEFAULT_VERSION)?.negotiate_version().await
}

/// Until the stream ends.
async fn ring(api: &Docker, bell: &Bell) {
    let filters = HashMap::from([("type", vec!["container", "network"]), ("event", EVENTS.to_vec())]);
    let mut events = api.events(Some(EventsOptionsBuilder::default().filters(&filters).build()));
    while let Some(Ok(_)) = events.next().await {
        bell.ring(Changes::CONTAINERS);
    }
}
