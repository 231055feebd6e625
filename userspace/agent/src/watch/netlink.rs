//! Links and addresses of the agent's network namespace, by rtnetlink. Flow: policy.

use std::{io, sync::Arc, time::Duration};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv, socket_with},
};
use tokio::time::sleep;

use super::{Bell, Changes, source::Source};

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` of `linux/rtnetlink.h`.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// Before the socket is opened again.
const PAUSE: Duration = Duration::from_secs(1);
/// Room for a message; what it says is not read, so one that is cut off does no harm.
const BUFFER: usize = 4096;

/// Rings whenever a link or an address changes; never ends.
pub(crate) async fn watch(bell: Arc<Bell>) {
    loop {
        if let Ok(socket) = open() {
            bell.ring(Changes::LINKS);
            drop(ring(&socket, &bell).await);
        }
        sleep(PAUSE).await;
    }
}

fn open() -> io::Result<Source> {
    // No protocol is protocol 0, which is NETLINK_ROUTE.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    Source::new(socket)
}

async fn ring(socket: &Source, bell: &Bell) -> io::Result<()> {
    loop {
        let mut buffer = [0; BUFFER];
        let read = socket.read(|socket| recv(socket, &mut buffer, RecvFlags::empty()).map(drop)).await;
        match read {
            Ok(()) => {}
            // More messages than the socket had room for mean as much as one.
            Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        bell.ring(Changes::LINKS);
    }
}
