//! Asks the agent of this host. Flow: observe.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use netdiag_model::status::Status;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{net::UnixStream, time::timeout};

/// The most taken as an answer, in bytes.
const LIMIT: usize = 256 << 20;

/// Why the agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket, or nobody listens on it: no agent runs.
    #[error("connect to the agent at {path}")]
    Connect {
        /// Which socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It did not answer in time.
    #[error("{what}: no answer within {} ms", .after.as_millis())]
    Hangs {
        /// What was asked for.
        what: String,
        /// How long it was given.
        after: Duration,
    },
    /// The connection broke, or what came is no HTTP.
    #[error("{what}: no answer")]
    Broken {
        /// What was asked for.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answered that it will not.
    #[error("{what}: {status}: {reason}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The status of the answer.
        status: u16,
        /// Its reason.
        reason: String,
    },
}

/// Asks the agent at a socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    bound: Duration,
}

impl Client {
    /// Asks at this socket; no answer may take longer than `bound`.
    pub fn new(socket: impl Into<PathBuf>, bound: Duration) -> Self {
        Self { socket: socket.into(), bound }
    }

    /// How the agent is.
    ///
    /// # Errors
    /// No agent answers.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// What is at a path of the API.
    ///
    /// # Errors
    /// No agent answers, or it refuses.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Puts an object at a path of the API; the answer.
    ///
    /// # Errors
    /// No agent answers, or it refuses.
    pub async fn put<T: DeserializeOwned>(&self, path: &str, object: &Value) -> Result<T, ClientError> {
        self.ask(Method::PUT, path, object.to_string().into()).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let after = self.bound;
        let hangs = |_| ClientError::Hangs { what: path.to_owned(), after };
        let asked = timeout(after, fetch(&self.socket, path, method, body)).await;
        let (status, bytes) = asked.map_err(hangs)??;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(broken(path));
        }
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let reason = body["error"]["reason"].as_str().unwrap_or("no reason given").to_owned();
        Err(ClientError::Refused { what: path.to_owned(), status: status.as_u16(), reason })
    }
}

async fn fetch(socket: &Path, path: &str, method: Method, body: Bytes) -> Result<(StatusCode, Bytes), ClientError> {
    let connect = |source| ClientError::Connect { path: socket.to_owned(), source };
    let stream = UnixStream::connect(socket).await.map_err(connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken(path))?;
    let request = Request::builder().method(method).uri(path).header("host", "netdiag");
    let request = request.body(Full::new(body)).map_err(broken(path))?;
    // The connection ends with the answer, or with this task when nobody waits for it any longer.
    let connection = tokio::spawn(connection);
    let answer = async {
        let answer = sender.send_request(request).await.map_err(broken(path))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LIMIT).collect().await.map_err(|error| {
            let long = || io::Error::from(io::ErrorKind::FileTooLarge).into();
            let error = if error.is::<LengthLimitError>() { long() } else { error };
            ClientError::Broken { what: path.to_owned(), source: error }
        })?;
        Ok((status, body.to_bytes()))
    };
    let answer = answer.await;
    connection.abort();
    answer
}

fn broken<E: Into<Box<dyn std::error::Error + Send + Sync>>>(what: &str) -> impl FnOnce(E) -> ClientError {
    move |error| ClientError::Broken { what: what.to_owned(), source: error.into() }
}
