//! Gratuitous ARP: says who has a floating IP now, in the rounds Neutron does. Flow: policy.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::{task::AbortHandle, time::sleep};

use super::address::{self, Device};

/// Rounds of a request and a reply each, as some neighbours take only the one or the other.
const ROUNDS: usize = 3;
/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(2);
/// Bytes of an announcement.
const LENGTH: usize = 42;
const BROADCAST: [u8; 6] = [0xff; 6];
/// ARP operations (RFC 826).
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// Begins to announce a floating IP at a device. The first round is on the wire before this returns: who is told then that
/// it is served would else be reached where the neighbours still have it from before.
pub(super) fn begin(floating: Ipv4Addr, device: &str) -> AbortHandle {
    // A device that is down or gone now may be there again in the next round.
    drop(announce(floating, device));
    let device = device.to_owned();
    let rounds = tokio::spawn(async move {
        for _ in 1..ROUNDS {
            sleep(PAUSE).await;
            drop(announce(floating, &device));
        }
    });
    rounds.abort_handle()
}

fn announce(floating: Ipv4Addr, name: &str) -> io::Result<()> {
    let device = address::device(name)?;
    // Without a protocol nothing is received.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    for operation in [REQUEST, REPLY] {
        send(&socket, device.ifindex, &frame(floating, device, operation))?;
    }
    Ok(())
}

/// An announcement: sender and target are the floating IP.
fn frame(floating: Ipv4Addr, Device { mac, .. }: Device, operation: u8) -> [u8; LENGTH] {
    let mut frame = [0; LENGTH];
    let target = if operation == REPLY { mac } else { BROADCAST };
    frame[..6].copy_from_slice(&BROADCAST);
    frame[6..12].copy_from_slice(&mac);
    // ARP, for Ethernet and IPv4.
    frame[12..20].copy_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4]);
    frame[21] = operation;
    frame[22..28].copy_from_slice(&mac);
    frame[28..32].copy_from_slice(&floating.octets());
    frame[32..38].copy_from_slice(&target);
    frame[38..].copy_from_slice(&floating.octets());
    frame
}

#[expect(unsafe_code, reason = "no library has addresses of packet sockets")]
fn send(socket: &OwnedFd, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: every byte pattern of the structure's integers is valid.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    to.sll_protocol = 0x0806_u16.to_be();
    to.sll_ifindex = ifindex.cast_signed();
    to.sll_halen = 6;
    to.sll_addr[..6].copy_from_slice(&BROADCAST);
    let length = libc::socklen_t::try_from(size_of_val(&to)).map_err(io::Error::other)?;
    // SAFETY: frame and address are live for the whole call and have these lengths.
    let sent = unsafe {
        let (data, to) = (frame.as_ptr().cast(), (&raw const to).cast());
        libc::sendto(socket.as_raw_fd(), data, frame.len(), 0, to, length)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::{Device, REPLY, REQUEST, frame};

    #[test]
    fn an_announcement_says_the_floating_ip_of_itself_as_a_request_and_as_a_reply() {
        let device = Device { ifindex: 2, mac: [2, 0, 0, 0, 0, 9] };
        let floating = [203, 0, 113, 7];
        for (operation, target) in [(REQUEST, [0xff; 6]), (REPLY, device.mac)] {
            let frame = frame(floating.into(), device, operation);
            assert_eq!(frame[..6], [0xff; 6]);
            assert_eq!(frame[12..22], [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation]);
            assert_eq!((&frame[22..28], &frame[28..32]), (&device.mac[..], &floating[..]));
            assert_eq!((&frame[32..38], &frame[38..42]), (&target[..], &floating[..]));
        }
    }
}
