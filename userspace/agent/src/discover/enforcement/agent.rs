//! What the agent adds to what is loaded: how it is, what is asked for, which ports it cannot enforce. Flow: discover.

use std::io;

use netdiag_model::fact::{Gap, SourceKind, enforcement::EnforcementFact};
use serde_json::Value;

use super::{super::Options, chain};
use crate::client::{Client, ClientError};

/// The part of the time of a source that one answer may take.
const PATIENCE: f32 = 0.3;

/// Asks the agent. That nobody answers is no gap: what is loaded goes on without it, and an answer says so.
pub(super) async fn ask(fact: EnforcementFact, options: &Options) -> (EnforcementFact, Option<Gap>) {
    let client = Client::new(&options.agent_socket, options.timeout.mul_f32(PATIENCE));
    let status = match client.status().await {
        Ok(status) => status,
        Err(error) => return (fact, gap(&error, options)),
    };
    // An agent that has no good policy yet has nothing to say here, and says so in its problems.
    let asked = client.get::<Value>("/v1/policy").await.ok();
    let floating_ips = status.floating_ips;
    (EnforcementFact { agent: Some(status.agent), refused: status.refused, asked, floating_ips, ..fact }, None)
}

fn gap(error: &ClientError, options: &Options) -> Option<Gap> {
    let nobody =
        |source: &io::Error| matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
    if matches!(error, ClientError::Connect { source, .. } if nobody(source)) {
        return None;
    }
    Some(Gap {
        source: SourceKind::Enforcement,
        netns: None,
        object: options.agent_socket.display().to_string(),
        why: chain(error),
        fix: "be root or in the group of the socket; else see netdiag agent status".to_owned(),
        absent: false,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use netdiag_model::fact::enforcement::EnforcementFact;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::{Options, ask};

    fn options(socket: std::path::PathBuf) -> Options {
        Options { agent_socket: socket, timeout: Duration::from_secs(2), ..Options::default() }
    }

    #[tokio::test]
    async fn what_is_asked_and_what_is_refused_is_added_to_what_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            for body in
                [r#"{"version":"1","pid":7,"refused":[{"port_id":"p","why":"no hook"}]}"#, r#"{"security_groups":[]}"#]
            {
                let (mut client, _) = listener.accept().await.unwrap();
                assert!(client.read(&mut [0; 1024]).await.unwrap() > 0);
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                client.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let (fact, gap) = ask(EnforcementFact::default(), &options(socket)).await;
        assert_eq!((fact.agent.unwrap().pid, fact.refused[0].why.as_str()), (7, "no hook"));
        assert!(fact.asked.is_some_and(|asked| asked["security_groups"].is_array()));
        assert_eq!(gap, None);
    }

    #[tokio::test]
    async fn that_nobody_answers_is_no_gap_and_that_somebody_hangs_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        assert_eq!(ask(EnforcementFact::default(), &options(socket.clone())).await, (EnforcementFact::default(), None));
        let _hangs = UnixListener::bind(&socket).unwrap();
        let (fact, gap) = ask(EnforcementFact::default(), &options(socket)).await;
        assert_eq!(fact, EnforcementFact::default());
        assert!(gap.is_some_and(|gap| !gap.absent));
    }
}
