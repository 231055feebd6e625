//! Open vSwitch, by a monitor of its database. Flow: policy.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::sleep;

use super::{Bell, Changes, patience};
use crate::ovsdb::{Client, OvsdbError};

const DATABASE: &str = "Open_vSwitch";

/// What decides where a port is and what it is attached to. Statistics and states are left out: they change all the time.
const WANTED: &[(&str, &[&str])] = &[
    ("Bridge", &["name", "datapath_type", "ports"]),
    ("Port", &["name", "interfaces", "external_ids"]),
    ("Interface", &["name", "type", "ifindex", "external_ids"]),
];

/// How long a request may take.
const BOUND: Duration = Duration::from_secs(5);

/// Rings whenever the configuration of the switch changes; never ends.
pub(crate) async fn watch(socket: PathBuf, bell: Arc<Bell>) {
    let mut backoff = patience();
    loop {
        if let Ok(mut client) = begin(&socket).await {
            backoff.reset();
            loop {
                bell.ring(Changes::SWITCH);
                if client.changed().await.is_err() {
                    break;
                }
            }
            // The switch is gone, and with it perhaps its ports.
            bell.ring(Changes::SWITCH);
        }
        sleep(backoff.pause()).await;
    }
}

async fn begin(socket: &Path) -> Result<Client, OvsdbError> {
    let mut client = Client::connect(socket, BOUND).await?;
    let (columns, _) = client.schema(DATABASE).await?.common(WANTED);
    client.monitor(DATABASE, &columns).await?;
    Ok(client)
}
