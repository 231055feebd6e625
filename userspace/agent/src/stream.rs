//! Events of a running agent, read from its socket line by line. Flow: observe.
//!
//! The request is HTTP/1.0, so that the answer is nothing but a head and the lines.

use std::{
    io,
    path::{Path, PathBuf},
};

use netdiag_model::event::Event;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Take},
    net::UnixStream,
};

/// The longest line there is; an event takes some 300 bytes.
const LONGEST: u64 = 1 << 20;

/// Where the agent listens.
pub const AGENT_SOCKET: &str = "/run/netdiag/agent.sock";

/// Why there are no events.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Nobody listens, or this user may not ask.
    #[error("no agent answers at {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The agent said no.
    #[error("the agent at {} refused: {answer}", socket.display())]
    Refused {
        /// The socket.
        socket: PathBuf,
        /// First line of what it said.
        answer: String,
    },
    /// The connection broke.
    #[error("read events from {}", socket.display())]
    Read {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Events as they come.
#[derive(Debug)]
pub struct EventStream {
    socket: PathBuf,
    lines: Take<BufReader<UnixStream>>,
}

impl EventStream {
    /// Asks the agent for events from now on, of one port or of all.
    ///
    /// # Errors
    /// No agent listens there, or it refuses.
    pub async fn open(socket: &Path, port: Option<&str>) -> Result<Self, StreamError> {
        let failed = |source| StreamError::Connect { socket: socket.to_owned(), source };
        let mut connection = UnixStream::connect(socket).await.map_err(failed)?;
        let port = port.map_or_else(String::new, |port| format!("&port={}", encoded(port)));
        let request = format!("GET /v1/events?stream=true{port} HTTP/1.0\r\nHost: agent\r\n\r\n");
        connection.write_all(request.as_bytes()).await.map_err(failed)?;
        let mut lines = BufReader::new(connection).take(LONGEST);
        let status = line(&mut lines).await.map_err(failed)?.unwrap_or_default();
        if status.split(' ').nth(1) != Some("200") {
            let answer = if status.is_empty() { "it said nothing".to_owned() } else { status };
            return Err(StreamError::Refused { socket: socket.to_owned(), answer });
        }
        while line(&mut lines).await.map_err(failed)?.is_some_and(|header| !header.is_empty()) {}
        Ok(Self { socket: socket.to_owned(), lines })
    }

    /// The next event; none once the agent is gone. A line this netdiag does not understand is passed over: a newer agent
    /// may say more.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Event>, StreamError> {
        loop {
            let failed = |source| StreamError::Read { socket: self.socket.clone(), source };
            let Some(text) = line(&mut self.lines).await.map_err(failed)? else { return Ok(None) };
            if let Ok(event) = serde_json::from_str(&text) {
                return Ok(Some(event));
            }
        }
    }
}

/// The next line without its end; none at the end of all.
async fn line(lines: &mut Take<impl AsyncBufRead + Unpin>) -> io::Result<Option<String>> {
    lines.set_limit(LONGEST);
    let mut text = Vec::new();
    let read = lines.read_until(b'\n', &mut text).await?;
    let text = String::from_utf8_lossy(&text);
    Ok((read > 0).then(|| text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// A word for the query of a request.
fn encoded(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    word.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use netdiag_model::event::{Event, LossEvent};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::{EventStream, StreamError};

    /// An agent that answers one client with the same, whatever it is asked; gives back what it was asked.
    fn agent(socket: &Path, answer: &'static str) -> tokio::task::JoinHandle<String> {
        let listener = UnixListener::bind(socket).unwrap();
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let length = client.read(&mut request).await.unwrap();
            client.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        })
    }

    #[tokio::test]
    async fn events_come_one_by_one_and_what_is_not_understood_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let answer = "HTTP/1.0 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n{\"event\":\"new\"}\n\
                      {\"event\":\"lost\",\"time_ns\":7,\"lost\":3}\n";
        let asked = agent(&socket, answer);
        let mut stream = EventStream::open(&socket, Some("a b/c")).await.unwrap();
        let lost = LossEvent { time_ns: 7, lost: 3, ..LossEvent::default() };
        assert_eq!(stream.next().await.unwrap(), Some(Event::Lost(lost)));
        assert_eq!(stream.next().await.unwrap(), None);
        assert!(asked.await.unwrap().starts_with("GET /v1/events?stream=true&port=a%20b%2Fc HTTP/1.0\r\n"));
    }

    #[tokio::test]
    async fn an_agent_that_says_no_is_quoted_and_one_that_is_not_there_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let nobody = EventStream::open(&socket, None).await.unwrap_err();
        assert!(nobody.to_string().ends_with("agent.sock"), "{nobody}");
        let _asked = agent(&socket, "HTTP/1.1 503 Service Unavailable\r\n\r\n");
        let refused = EventStream::open(&socket, None).await.unwrap_err();
        assert!(matches!(&refused, StreamError::Refused { answer, .. } if answer.contains("503")), "{refused}");
    }
}
