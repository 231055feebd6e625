//! The pair of devices the probe sends through, in whatever namespace the calling thread is in. Flow: observe.
//!
//! It goes when the namespace goes; taking it down is nobody's job.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use futures_util::TryStreamExt as _;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, State};
use rtnetlink::{Handle, LinkUnspec, LinkVeth};
use tokio::{task::JoinHandle, time};

use super::PATIENCE;

/// The device that sends.
const SENDER: &str = "probe-out";
/// The device that receives, and that the program is attached to.
pub(super) const RECEIVER: &str = "probe-in";
/// What a frame carries; its length tells the probe's frames from those the kernel sends on a new device of its own
/// accord (neighbour discovery, multicast reports), none of which is as long.
const PAYLOAD: [u8; 400] = [0x6e; 400];
/// Length of a frame: Ethernet, IPv4 and UDP headers, and the payload.
pub(super) const FRAME_LENGTH: u32 = 14 + 20 + 8 + 400;
/// The sender's address, out of the range reserved for documentation (RFC 5737), and the prefix it is in.
const ADDRESS: (Ipv4Addr, u8) = (Ipv4Addr::new(192, 0, 2, 1), 24);
/// Everyone on that prefix, so that no neighbour has to be resolved; port 9 discards.
const EVERYONE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 255), 9);

/// Why there is no pair.
#[derive(Debug, thiserror::Error)]
pub(super) enum VethError {
    /// No netlink socket, no runtime or no UDP socket.
    #[error("open a socket")]
    Socket(#[source] io::Error),
    /// The kernel refused one of the requests.
    #[error("{step}")]
    Netlink {
        /// What was asked for.
        step: &'static str,
        /// Why.
        #[source]
        source: rtnetlink::Error,
    },
    /// The devices are there and do not come up.
    #[error("the devices are not up after {} s", PATIENCE.as_secs())]
    Down,
}

/// The pair, ready to send.
#[derive(Debug)]
pub(super) struct Veth {
    socket: UdpSocket,
}

impl Veth {
    /// Makes the pair, gives the sender an address and waits until both are up.
    pub(super) fn new() -> Result<Self, VethError> {
        // A runtime of its own: the sockets must be opened on this thread, which is the one in the right namespace.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(VethError::Socket)?;
        runtime.block_on(build())?;
        let socket = UdpSocket::bind((ADDRESS.0, 0)).map_err(VethError::Socket)?;
        socket.set_broadcast(true).map_err(VethError::Socket)?;
        Ok(Self { socket })
    }

    /// Sends one frame from the one device to the other.
    pub(super) fn send(&self) -> io::Result<()> {
        self.socket.send_to(&PAYLOAD, EVERYONE).map(drop)
    }
}

async fn build() -> Result<(), VethError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(VethError::Socket)?;
    let connection: JoinHandle<()> = tokio::spawn(connection);
    let built = build_with(&handle).await;
    connection.abort();
    built
}

async fn build_with(handle: &Handle) -> Result<(), VethError> {
    let failed = |step| move |source| VethError::Netlink { step, source };
    let pair = LinkVeth::new(SENDER, RECEIVER).build();
    handle.link().add(pair).execute().await.map_err(failed("add a veth pair"))?;
    for name in [RECEIVER, SENDER] {
        let up = LinkUnspec::new_with_name(name).up().build();
        handle.link().set(up).execute().await.map_err(failed("bring a veth device up"))?;
    }
    let sender = link(handle).await.map_err(failed("look the sending device up"))?.header.index;
    let address = handle.address().add(sender, ADDRESS.0.into(), ADDRESS.1);
    address.execute().await.map_err(failed("give the sending device an address"))?;
    // A frame that is sent before the carrier has been noticed is dropped without an error.
    let up = time::timeout(PATIENCE, until_up(handle)).await.map_err(|_| VethError::Down)?;
    up.map_err(failed("look the sending device up"))
}

async fn until_up(handle: &Handle) -> Result<(), rtnetlink::Error> {
    let is_up = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::OperState(State::Up));
    while !link(handle).await?.attributes.iter().any(is_up) {
        time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

async fn link(handle: &Handle) -> Result<LinkMessage, rtnetlink::Error> {
    let mut found = handle.link().get().match_name(SENDER.to_owned()).execute();
    found.try_next().await?.ok_or(rtnetlink::Error::RequestFailed)
}
