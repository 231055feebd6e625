//! Connections of real sockets: how long one takes to be there, and how long a question and its answer take.
//!
//! One thread has both ends. What it sends is received before it asks for it, unless the kernel puts that off, so nobody has to be
//! woken up.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt::set_socket_linger};

use super::{course::REMOTE, district::District, stats::Samples, world::OPEN};

/// What is measured of a way with sockets.
#[derive(Default)]
pub(super) struct Talked {
    pub(super) connections: Samples,
    pub(super) trips: Samples,
}

/// Who listens in the instance.
pub(super) struct Talk(TcpListener);

impl Talk {
    /// Gives both ends their addresses.
    pub(super) async fn new(district: &District, addresses: &[Ipv4Addr]) -> Result<Self> {
        let District { outside, instance } = district;
        outside.ip(&["address", "add", "172.24.0.1/15", "dev", "eth0"])?;
        outside.ip(&["address", "add", &format!("{REMOTE}/32"), "dev", "lo"])?;
        outside.ip(&["route", "add", "10.1.0.0/16", "dev", "eth0"])?;
        for address in addresses {
            instance.ip(&["address", "replace", &format!("{address}/32"), "dev", "eth0"])?;
        }
        instance.ip(&["route", "add", "default", "via", "10.2.0.1", "dev", "eth0", "onlink"])?;
        let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, OPEN));
        Ok(Self(instance.namespace.run(listen).await?.context("listen")?))
    }

    /// Measures.
    pub(super) async fn measure(
        &self,
        district: &District,
        to: SocketAddrV4,
        (connections, trips): (usize, usize),
        talked: &mut Talked,
    ) -> Result<()> {
        let sockets = district.outside.namespace.run(move || sockets(connections)).await??;
        let mut last = None;
        for socket in sockets {
            let before = Instant::now();
            connect(&socket, &to).with_context(|| format!("connect to {to}"))?;
            let (there, _) = self.0.accept().context("accept")?;
            talked.connections.add(before.elapsed().as_secs_f64() * 1e9);
            last = Some((TcpStream::from(socket), there));
        }
        let (mut here, mut there) = last.context("no connection")?;
        for end in [&here, &there] {
            end.set_nodelay(true)?;
            end.set_read_timeout(Some(Duration::from_secs(5)))?;
        }
        let mut byte = [1];
        for _ in 0..trips {
            let before = Instant::now();
            here.write_all(&byte)?;
            there.read_exact(&mut byte)?;
            there.write_all(&byte)?;
            here.read_exact(&mut byte)?;
            talked.trips.add(before.elapsed().as_secs_f64() * 1e9);
        }
        Ok(())
    }
}

/// Sockets that leave nothing behind when they are closed.
fn sockets(count: usize) -> Result<Vec<OwnedFd>> {
    let one = |_| {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        bind(&socket, &SocketAddrV4::new(REMOTE, 0))?;
        set_socket_linger(&socket, Some(Duration::ZERO))?;
        Ok(socket)
    };
    (0..count).map(one).collect()
}
