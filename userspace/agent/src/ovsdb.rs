//! A small OVSDB client (RFC 7047): JSON-RPC over a unix socket. Flow: discover.
//!
//! It reads a consistent first state of the columns it is asked for, and says when that changes. It does not know what any column means, never
//! writes to a database, and trusts the server with nothing: every wait is bounded, and so is the size of an answer.
//!
//! | part | what it holds |
//! |---|---|
//! | `frame` | cuts the byte stream into JSON values |
//! | `value` | the encodings of one column |
//! | `table` | rows by table, read from an answer |

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use self::{
    frame::{FrameError, Framer},
    table::Tables,
};

/// Cuts the byte stream into JSON values.
mod frame;
/// Rows by table, read from an answer.
pub(crate) mod table;
/// The encodings of one column.
pub(crate) mod value;

/// The largest message taken from a server, in bytes. A host with 10 000 ports answers with some 20 MiB; parsed, a
/// message takes up to sixteen times its size.
const MESSAGE_LIMIT: usize = 64 << 20;
/// How much is read from the socket at once, in bytes.
const CHUNK: usize = 64 << 10;

/// Why a database could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OvsdbError {
    /// The socket could not be connected to.
    #[error("connect to {path}")]
    Connect {
        /// Which socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("{method}: the connection broke")]
    Io {
        /// The request that was under way.
        method: &'static str,
        /// How it broke.
        #[source]
        source: io::Error,
    },
    /// The server closed the connection instead of answering.
    #[error("{method}: the server closed the connection {where}", where = if *.midway { "in the middle of an answer" } else { "without an answer" })]
    Closed {
        /// The request that was under way.
        method: &'static str,
        /// True where part of a message had come.
        midway: bool,
    },
    /// The server did not answer in time.
    #[error("{method}: no answer within {} ms", .after.as_millis())]
    Hangs {
        /// The request that was under way.
        method: &'static str,
        /// How long it was given.
        after: Duration,
    },
    /// What came is no stream of JSON objects.
    #[error("{method}: not OVSDB")]
    Frame {
        /// The request that was under way.
        method: &'static str,
        /// What is wrong with it.
        #[source]
        source: FrameError,
    },
    /// A message is no JSON, or no JSON-RPC.
    #[error("{method}: not a JSON-RPC message")]
    Message {
        /// The request that was under way.
        method: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The server refused the request.
    #[error("{method}: the server answers {error}")]
    Refused {
        /// The request.
        method: &'static str,
        /// The error of the answer, as JSON.
        error: String,
    },
    /// The answer is JSON-RPC, but not what this method answers with.
    #[error("{method}: the answer has no {expected}")]
    Shape {
        /// The request.
        method: &'static str,
        /// What was looked for.
        expected: &'static str,
    },
}

/// One JSON-RPC message in either direction (RFC 7047 section 4; JSON-RPC 1.0).
#[derive(Debug, Deserialize)]
struct Message {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    params: Value,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Value,
}

/// A connection to an OVSDB server.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    framer: Framer,
    next_id: u64,
    bound: Duration,
}

impl Client {
    /// Connects to the socket of a server; no later request may take longer than `bound`.
    ///
    /// # Errors
    /// There is no socket, nobody listens on it, or it may not be opened.
    pub(crate) async fn connect(path: &Path, bound: Duration) -> Result<Self, OvsdbError> {
        let stream =
            UnixStream::connect(path).await.map_err(|source| OvsdbError::Connect { path: path.into(), source })?;
        Ok(Self { stream, framer: Framer::new(MESSAGE_LIMIT), next_id: 0, bound })
    }

    /// The tables and columns of a database.
    ///
    /// # Errors
    /// The server has no such database, or fails to answer.
    pub(crate) async fn schema(&mut self, database: &str) -> Result<Schema, OvsdbError> {
        const METHOD: &str = "get_schema";
        Schema::parse(&self.request(METHOD, json!([database])).await?)
            .ok_or(OvsdbError::Shape { method: METHOD, expected: "tables" })
    }

    /// One consistent state of the columns asked for. They must all exist, or the server refuses the whole; see
    /// [`Schema::common`].
    ///
    /// # Errors
    /// The server refuses, or fails to answer.
    pub(crate) async fn monitor(&mut self, database: &str, columns: &Columns) -> Result<Tables, OvsdbError> {
        let tables: serde_json::Map<_, _> =
            columns.iter().map(|(table, columns)| ((*table).to_owned(), json!([{ "columns": columns }]))).collect();
        let params = json!([database, "netdiag", tables]);
        // `monitor_cond` leaves out default values, which halves the answer; Open vSwitch has it since 2.6.
        let (method, answer) = match self.request("monitor_cond", params.clone()).await {
            Err(OvsdbError::Refused { .. }) => ("monitor", self.request("monitor", params).await?),
            answer => ("monitor_cond", answer?),
        };
        Tables::parse(answer).ok_or(OvsdbError::Shape { method, expected: "tables" })
    }

    /// Waits, for as long as it takes, until something changes in what was asked for by [`Client::monitor`].
    ///
    /// # Errors
    /// The connection broke, or the server says something that is not OVSDB.
    pub(crate) async fn changed(&mut self) -> Result<(), OvsdbError> {
        const METHOD: &str = "monitor_cond";
        loop {
            let message = self.receive(METHOD).await?;
            match message.method.as_deref() {
                Some("echo") => self.echo(METHOD, message).await?,
                Some("update" | "update2" | "update3") => return Ok(()),
                Some(_) | None => {}
            }
        }
    }

    /// The server asks whether anybody is still there.
    async fn echo(&mut self, method: &'static str, asked: Message) -> Result<(), OvsdbError> {
        self.send(method, &json!({ "id": asked.id, "result": asked.params, "error": null })).await
    }

    /// Sends a request and waits for its answer, for as long as the bound allows.
    async fn request(&mut self, method: &'static str, params: Value) -> Result<Value, OvsdbError> {
        let after = self.bound;
        timeout(after, self.call(method, params)).await.unwrap_or(Err(OvsdbError::Hangs { method, after }))
    }

    async fn call(&mut self, method: &'static str, params: Value) -> Result<Value, OvsdbError> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(method, &json!({ "id": id, "method": method, "params": params })).await?;
        loop {
            let message = self.receive(method).await?;
            match message.method.as_deref() {
                Some("echo") => self.echo(method, message).await?,
                None if message.id == id => return answer(method, message),
                // Changes of a monitored table follow the answer of their monitor, and nobody waits for them here.
                Some(_) | None => {}
            }
        }
    }

    async fn send(&mut self, method: &'static str, message: &Value) -> Result<(), OvsdbError> {
        self.stream.write_all(message.to_string().as_bytes()).await.map_err(|source| OvsdbError::Io { method, source })
    }

    async fn receive(&mut self, method: &'static str) -> Result<Message, OvsdbError> {
        let mut chunk = vec![0; CHUNK];
        loop {
            if let Some(frame) = self.framer.next().map_err(|source| OvsdbError::Frame { method, source })? {
                // Open vSwitch stores UTF-8 only; should a byte be none, the cell it is in suffers, not the whole.
                return serde_json::from_str(&String::from_utf8_lossy(&frame))
                    .map_err(|source| OvsdbError::Message { method, source });
            }
            match self.stream.read(&mut chunk).await.map_err(|source| OvsdbError::Io { method, source })? {
                0 => return Err(OvsdbError::Closed { method, midway: self.framer.midway() }),
                length => self.framer.push(&chunk[..length]),
            }
        }
    }
}

fn answer(method: &'static str, message: Message) -> Result<Value, OvsdbError> {
    if message.error.is_null() {
        Ok(message.result)
    } else {
        Err(OvsdbError::Refused { method, error: message.error.to_string() })
    }
}

/// Columns by table.
pub(crate) type Columns = BTreeMap<&'static str, Vec<&'static str>>;

/// The tables of a database, and the columns of each.
#[derive(Debug)]
pub(crate) struct Schema(BTreeMap<String, BTreeSet<String>>);

impl Schema {
    fn parse(answer: &Value) -> Option<Self> {
        let columns = |table: &Value| {
            table.get("columns").and_then(Value::as_object).map(|columns| columns.keys().cloned().collect())
        };
        let tables = answer.get("tables")?.as_object()?;
        Some(Self(tables.iter().map(|(name, table)| (name.clone(), columns(table).unwrap_or_default())).collect()))
    }

    /// What of the tables and columns wanted this server has, and the names of those it has not.
    pub(crate) fn common(&self, wanted: &[(&'static str, &[&'static str])]) -> (Columns, Vec<String>) {
        let mut common = Columns::new();
        let mut missing = Vec::new();
        for (table, columns) in wanted {
            let Some(known) = self.0.get(*table) else {
                missing.push((*table).to_owned());
                continue;
            };
            let (has, lacks): (Vec<_>, Vec<_>) = columns.iter().copied().partition(|column| known.contains(*column));
            missing.extend(lacks.into_iter().map(|column| format!("{table}.{column}")));
            common.insert(table, has);
        }
        (common, missing)
    }
}

#[cfg(test)]
mod tests;
