//! Taps, and what carries frames between a tap and a socket: both ends of a virtual machine's network card.
//!
//! Frames carry the header in which a hypervisor and its host tell each other what is left to do of checksums and
//! segmentation (`IFF_VNET_HDR`), as a virtio card's do; it goes along with the frame from one tap to the other.

use std::{
    fs::OpenOptions,
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use rustix::{io::Errno, net::Shutdown};

/// `TUNSETIFF` and `TUNSETOFFLOAD` of `linux/if_tun.h`.
const SET_INTERFACE: libc::c_ulong = 0x4004_54ca;
const SET_OFFLOAD: libc::c_ulong = 0x4004_54d0;
/// `IFF_TAP`, `IFF_NO_PI` and `IFF_VNET_HDR`.
const FLAGS: u16 = 0x0002 | 0x1000 | 0x4000;
/// `TUN_F_CSUM`, `TUN_F_TSO4` and `TUN_F_TSO6`: what the reader of a tap finishes itself.
const OFFLOADS: libc::c_ulong = 0x01 | 0x02 | 0x04;
/// Size of an `ifreq`, and where its flags are.
const REQUEST: usize = 40;
const NAME: usize = 16;
/// More than any frame with its header, segments not yet cut included.
const LARGEST: usize = 70_000;

/// Makes a tap in the calling thread's network namespace; it is there while the descriptor, or a copy of it, is open.
///
/// With `offloads` its frames may come with checksums and segments left to whoever reads them.
pub(crate) fn open(name: &str, offloads: bool) -> Result<OwnedFd> {
    let what = || format!("make the tap {name}");
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").with_context(what)?;
    let mut request = [0_u8; REQUEST];
    // The kernel wants a NUL behind the name.
    request[..NAME - 1].iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    request[NAME..NAME + 2].copy_from_slice(&FLAGS.to_ne_bytes());
    control(&file, SET_INTERFACE, request.as_mut_ptr() as libc::c_ulong).with_context(what)?;
    control(&file, SET_OFFLOAD, if offloads { OFFLOADS } else { 0 }).with_context(what)?;
    Ok(file.into())
}

/// One `ioctl` whose argument is a number, or the address of memory that outlives the call.
#[expect(unsafe_code, reason = "no wrapper makes a tap")]
fn control(tap: &impl AsFd, request: libc::c_ulong, argument: libc::c_ulong) -> io::Result<()> {
    // SAFETY: of the two requests made here, one takes a number, the other an `ifreq` of its caller's.
    let done = unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), request, argument) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Carries frames both ways between a tap and a socket that keeps them apart, until one of them is gone; what is returned
/// ends then.
pub(crate) fn splice(tap: OwnedFd, socket: OwnedFd) -> JoinHandle<()> {
    let (tap, socket) = (Arc::new(tap), Arc::new(socket));
    let one_way = |from: &Arc<OwnedFd>, to: &Arc<OwnedFd>| {
        let (from, to) = (Arc::clone(from), Arc::clone(to));
        thread::spawn(move || {
            carry(&from, &to);
            // The other way may be waiting for a frame; of the two descriptors, the tap knows nothing of this.
            for end in [&from, &to] {
                rustix::net::shutdown(end, Shutdown::Both).ok();
            }
        })
    };
    // Whoever waits for the tap may wait for long: a tap is silent, and no descriptor says that its guest is gone.
    drop(one_way(&tap, &socket));
    one_way(&socket, &tap)
}

fn carry(from: &OwnedFd, to: &OwnedFd) {
    let mut buffer = vec![0; LARGEST];
    loop {
        let length = match rustix::io::read(from, &mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            Err(Errno::INTR) => continue,
            Err(_) => return,
        };
        // A card that is down takes no frame, nor does a full one: the frame is lost, as on any wire.
        if let Err(Errno::PIPE | Errno::CONNRESET | Errno::BADFD) = rustix::io::write(to, &buffer[..length]) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::splice;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn frames_arrive_whole_and_in_order_and_the_end_of_one_side_is_the_end() {
        let ((tap, near), (socket, far)) = (pair(), pair());
        let carrying = splice(tap, socket);
        let long = vec![7_u8; 66_000];
        for frame in [&b"first"[..], &long, b"last"] {
            rustix::io::write(&near, frame).unwrap();
        }
        rustix::io::write(&far, b"back").unwrap();
        let mut buffer = vec![0; 70_000];
        let mut receive = |from: &OwnedFd| {
            let length = rustix::io::read(from, &mut buffer).unwrap();
            buffer[..length].to_vec()
        };
        assert_eq!([receive(&far), receive(&far), receive(&far)], [b"first".to_vec(), long, b"last".to_vec()]);
        assert_eq!(receive(&near), b"back");
        drop(far);
        carrying.join().unwrap();
        assert_eq!(receive(&near), b"");
    }
}
