//! Events of a running agent, read from its socket line by line. Flow: observe.
//!
//! The request is HTTP/1.0, so that the answer is nothing but a head and the lines. The first line says where the stream
//! begins in what the kernel says, which goes on when the agent ends: so `EventStream::resume` can go on at the next agent,
//! and know exactly what was missed.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use netdiag_model::event::{Event, LossEvent};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Take},
    net::UnixStream,
};

use crate::events::{Mark, Missing, Position};

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
    port: Option<String>,
    lines: Take<BufReader<UnixStream>>,
    /// How far it was read.
    at: Position,
    /// What was missed while there was no agent, until it is told.
    missed: VecDeque<Event>,
}

/// What is known of the time between two agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// What was missed is counted in the events that come next, if anything was.
    Counted,
    /// The maps were made anew in between, and what had been counted in the old ones is gone.
    Unknown,
}

impl EventStream {
    /// Asks the agent for events from now on, of one port or of all.
    ///
    /// # Errors
    /// No agent listens there, or it refuses.
    pub async fn open(socket: &Path, port: Option<&str>) -> Result<Self, StreamError> {
        let (lines, at) = Self::ask(socket, port, None).await?;
        let port = port.map(str::to_owned);
        Ok(Self { socket: socket.to_owned(), port, lines, at, missed: VecDeque::new() })
    }

    /// Asks for events of one port alone from here on, behind the last event that was read.
    ///
    /// # Errors
    /// No agent listens there any more, or it refuses.
    pub async fn narrow(&mut self, port: &str) -> Result<Between, StreamError> {
        self.port = Some(port.to_owned());
        self.resume().await
    }

    /// Goes on at the agent that listens now, behind the last event that was read.
    ///
    /// # Errors
    /// No agent listens there, or it refuses.
    pub async fn resume(&mut self) -> Result<Between, StreamError> {
        let (lines, at) = Self::ask(&self.socket, self.port.as_deref(), Some(self.at.number)).await?;
        let between = self.at.until(&at);
        (self.lines, self.at) = (lines, at);
        let Some((skipped, mut missing)) = between else { return Ok(Between::Unknown) };
        missing.retain(|missing| self.port.is_none() || missing.port_id == self.port);
        self.missed.extend(losses(skipped, missing));
        Ok(Between::Counted)
    }

    /// Asks for events from now on, or behind a record; where the stream begins.
    async fn ask(
        socket: &Path,
        port: Option<&str>,
        after: Option<u64>,
    ) -> Result<(Take<BufReader<UnixStream>>, Position), StreamError> {
        let failed = |source| StreamError::Connect { socket: socket.to_owned(), source };
        let refused = |answer| StreamError::Refused { socket: socket.to_owned(), answer };
        let mut connection = UnixStream::connect(socket).await.map_err(failed)?;
        let port = port.map_or_else(String::new, |port| format!("&port={}", encoded(port)));
        let after = after.map_or_else(String::new, |number| format!("&after={number}"));
        let request = format!("GET /v1/events?stream=true&position=true{port}{after} HTTP/1.0\r\nHost: agent\r\n\r\n");
        connection.write_all(request.as_bytes()).await.map_err(failed)?;
        let mut lines = BufReader::new(connection).take(LONGEST);
        let status = line(&mut lines).await.map_err(failed)?.unwrap_or_default();
        if status.split(' ').nth(1) != Some("200") {
            let answer = if status.is_empty() { "it said nothing".to_owned() } else { status };
            return Err(refused(answer));
        }
        while line(&mut lines).await.map_err(failed)?.is_some_and(|header| !header.is_empty()) {}
        let first = line(&mut lines).await.map_err(failed)?.unwrap_or_default();
        match serde_json::from_str(&first) {
            Ok(Mark::Position(at)) => Ok((lines, at)),
            Ok(Mark::Passed { .. }) | Err(_) => Err(refused("it does not say where its events begin".to_owned())),
        }
    }

    /// The next event; none once the agent is gone. A line this netdiag does not understand is passed over: a newer agent
    /// may say more.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Event>, StreamError> {
        if let Some(event) = self.missed.pop_front() {
            return Ok(Some(event));
        }
        loop {
            let failed = |source| StreamError::Read { socket: self.socket.clone(), source };
            let Some(text) = line(&mut self.lines).await.map_err(failed)? else { return Ok(None) };
            if let Ok(event) = serde_json::from_str(&text) {
                self.at.pass(&event);
                return Ok(Some(event));
            }
            if let Ok(Mark::Passed { number }) = serde_json::from_str(&text) {
                self.at.number = number;
            }
        }
    }
}

/// What was missed, as events.
fn losses(skipped: u64, missing: Vec<Missing>) -> impl Iterator<Item = Event> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let loss = LossEvent { time_ns, ..LossEvent::default() };
    let unread = (skipped > 0).then(|| LossEvent { skipped, ..loss.clone() });
    let of_ports = missing.into_iter().map(move |Missing { slot, port_id, suppressed, lost }| LossEvent {
        port_id,
        slot: Some(slot),
        suppressed,
        lost,
        ..loss.clone()
    });
    unread.into_iter().chain(of_ports).map(Event::Lost)
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

    use super::{Between, EventStream, StreamError};

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
        let answer = "HTTP/1.0 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n\
                      {\"event\":\"position\",\"ring\":1,\"number\":4,\"losses\":[]}\n{\"event\":\"new\"}\n\
                      {\"event\":\"lost\",\"time_ns\":7,\"lost\":3}\n";
        let asked = agent(&socket, answer);
        let mut stream = EventStream::open(&socket, Some("a b/c")).await.unwrap();
        let lost = LossEvent { time_ns: 7, lost: 3, ..LossEvent::default() };
        assert_eq!(stream.next().await.unwrap(), Some(Event::Lost(lost)));
        assert_eq!(stream.next().await.unwrap(), None);
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("GET /v1/events?stream=true&position=true&port=a%20b%2Fc HTTP/1.0\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn a_stream_goes_on_at_the_next_agent_and_says_first_what_was_missed() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let first = "HTTP/1.0 200 OK\r\n\r\n{\"event\":\"position\",\"ring\":1,\"number\":4,\"losses\":[]}\n\
                     {\"event\":\"passed\",\"number\":6}\n";
        let _asked = agent(&socket, first);
        let mut stream = EventStream::open(&socket, Some("p")).await.unwrap();
        assert_eq!(stream.next().await.unwrap(), None);
        std::fs::remove_file(&socket).unwrap();
        stream.resume().await.unwrap_err();
        let second = "HTTP/1.0 200 OK\r\n\r\n{\"event\":\"position\",\"ring\":1,\"number\":9,\"losses\":[\
                      {\"slot\":1,\"port_id\":\"p\",\"suppressed\":2,\"lost\":0},\
                      {\"slot\":2,\"port_id\":\"q\",\"suppressed\":8,\"lost\":0}]}\n";
        let asked = agent(&socket, second);
        assert_eq!(stream.resume().await.unwrap(), Between::Counted);
        let mut missed = Vec::new();
        while let Some(event) = stream.next().await.unwrap() {
            let Event::Lost(loss) = event else { panic!("{event:?}") };
            missed.push((loss.port_id, loss.suppressed, loss.skipped));
        }
        assert_eq!(missed, [(None, 0, 3), (Some("p".to_owned()), 2, 0)], "nothing of the port that was not asked for");
        assert!(asked.await.unwrap().contains("&after=6 "), "behind the last one, though it was for others");
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
