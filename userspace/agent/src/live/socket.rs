//! Packet sockets. Those that watch get nothing: the program at them says what it has seen and keeps it from them.
//! Flow: observe.
#![expect(unsafe_code, reason = "no library binds packet sockets")]

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// A socket of the calling thread's namespace that sees nothing yet.
pub(super) fn open() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?)
}

/// Lets a socket see every frame of a device.
pub(super) fn watch(socket: &OwnedFd, ifindex: u32) -> io::Result<()> {
    let address = address(u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?, ifindex)?;
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the address is live for the whole call and as long as is said.
    match unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends one frame by a device.
pub(super) fn send(socket: &OwnedFd, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    let ethertype = frame.get(12..14).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_be_bytes);
    let address = address(ethertype, ifindex)?;
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: frame and address are live for the whole call and have these lengths.
    let sent = unsafe {
        let (data, to) = (frame.as_ptr().cast(), (&raw const address).cast());
        libc::sendto(socket.as_raw_fd(), data, frame.len(), 0, to, length)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A device, as packet sockets name it.
fn address(protocol: u16, ifindex: u32) -> io::Result<libc::sockaddr_ll> {
    // SAFETY: it is made of integers only, and zeros are integers.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = i32::try_from(ifindex).map_err(io::Error::other)?;
    Ok(address)
}
