//! Connections of clients, none of which can harm another. Flow: policy.
//!
//! There are so many connections and no more; each answers one request; who sends or reads too slowly is cut off.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, extract::Request};
use hyper::{
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
    time::{Sleep, sleep},
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

/// Where clients come from.
pub(crate) trait Listener: Send {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next client.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Writes what fits into the socket's buffer.
    fn throw(stream: &Self::Stream, bytes: &[u8]) -> io::Result<usize>;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }

    fn throw(stream: &UnixStream, bytes: &[u8]) -> io::Result<usize> {
        stream.try_write(bytes)
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }

    fn throw(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        stream.try_write(bytes)
    }
}

/// Answers clients; never ends.
pub(crate) async fn serve<L: Listener>(listener: L, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        match listener.next().await {
            Ok(stream) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    let router = router.clone();
                    tokio::spawn(async move {
                        answer(stream, router).await;
                        drop(place);
                    });
                }
                // What does not fit into the socket's buffer is not worth waiting for.
                Err(_) => drop(L::throw(&stream, BUSY)),
            },
            // Out of descriptors: some will be closed.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Send + Unpin, router: Router) {
    let leave = Leave::default();
    let stream = Patient { stream, leave: leave.clone(), end: None };
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |request: hyper::Request<_>| {
        let mut request: Request<_> = request;
        request.extensions_mut().insert(leave.clone());
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away or is cut off is nobody else's concern.
    drop(connection.await);
}

/// Given by a handler whose client may read as slowly as it likes.
#[derive(Clone, Debug, Default)]
pub(super) struct Leave(Arc<AtomicBool>);

impl Leave {
    /// The client of this connection is waited for.
    pub(super) fn give(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_given(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream whose other end must read now and then.
struct Patient<S> {
    stream: S,
    leave: Leave,
    /// When patience ends, while the other end does not read.
    end: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    /// What became of an attempt to write: an error where it has been pending for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, attempt: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if attempt.is_ready() || self.leave.is_given() {
            self.end = None;
            return attempt;
        }
        let end = self.end.get_or_insert_with(|| Box::pin(sleep(STALL)));
        end.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
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
