//! Connections of clients, none of which can harm another. Flow: policy.
//!
//! There are so many connections and no more; each answers one request; who sends or reads too slowly is cut off.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::{Instant, Sleep, sleep},
};

/// Connections at once. Each takes a descriptor and, at its worst, a body of [`super::body::LIMIT`].
const CONNECTIONS: usize = 64;
/// How long a client may take to send the head of its request.
const HEAD: Duration = Duration::from_secs(5);
/// How long a client may take before it reads on.
const STALL: Duration = Duration::from_secs(10);
/// What a request may have before its body, in bytes.
const HEAD_LIMIT: usize = 16 << 10;
/// What a client gets that comes when all connections are taken.
const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\nretry-after: 1\r\n\
content-length: 74\r\n\r\n{\"error\":{\"field\":\"\",\"reason\":\"all 64 connections are taken\",\"valid\":[]}}\n";

/// Answers clients; never ends.
pub(crate) async fn serve(listener: UnixListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    let router = router.clone();
                    tokio::spawn(async move {
                        answer(stream, router).await;
                        drop(place);
                    });
                }
                // What does not fit into the socket's buffer is not worth waiting for.
                Err(_) => drop(stream.try_write(BUSY)),
            },
            // Out of descriptors: some will be closed.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(stream: UnixStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(TokioIo::new(Patient::new(stream, STALL)), TowerToHyperService::new(router));
    // A client that goes away or is cut off is nobody else's concern.
    drop(connection.await);
}

/// A stream whose other end must read now and then.
struct Patient {
    stream: UnixStream,
    stall: Duration,
    /// When patience ends, while the other end does not read.
    end: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    const fn new(stream: UnixStream, stall: Duration) -> Self {
        Self { stream, stall, end: None }
    }

    /// What became of an attempt to write: an error where it has been pending for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, attempt: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if attempt.is_ready() {
            self.end = None;
            return attempt;
        }
        let stall = self.stall;
        let end = self.end.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + stall)));
        end.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, attempt)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
