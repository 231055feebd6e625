//! What the agent says: of itself, what is asked, which ports cannot be enforced. Flow: discover.
//!
//! That nobody answers is no gap: what is loaded is enforced without the agent.

use std::time::Duration;

use netdiag_model::fact::enforcement::EnforcementFact;

use super::Options;
use crate::client::Client;

/// The most it may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Adds what the agent of these pins says, if there is one.
pub(super) async fn complete(fact: &mut EnforcementFact, options: &Options) {
    let client = Client::new(&options.agent_socket, PATIENCE.min(options.timeout));
    let Ok(status) = client.status().await else { return };
    if status.pinned != fact.pinned {
        // It is the agent of something else.
        return;
    }
    fact.asked = client.get("/v1/policy").await.ok();
    fact.refused = status.refused;
    fact.agent = Some(status.agent);
}
