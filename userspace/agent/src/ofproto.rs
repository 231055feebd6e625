//! Questions to Open vSwitch about its flows. Flow: observe.
//!
//! What a flow table does to a packet is the switch's own to say; nothing is changed by asking.

use std::{io, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

/// How long the switch may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the switch would do to a packet, as `ovs-appctl ofproto/trace` says it.
///
/// # Errors
/// There is no such program, the switch does not answer, or it refuses the question.
pub async fn trace(bridge: &str, flow: &str) -> io::Result<String> {
    let ask = Command::new("ovs-appctl")
        .args(["ofproto/trace", bridge, flow])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, ask).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
