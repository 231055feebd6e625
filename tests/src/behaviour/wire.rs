//! Packet sockets and taps: frames as they are on the wire.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::net::{RecvFlags, SendFlags, recv, send};

/// `ETH_P_ALL` of `linux/if_ether.h`.
const EVERYTHING: u16 = 3;
/// `PACKET_IGNORE_OUTGOING` of `linux/if_packet.h`.
const IGNORE_OUTGOING: libc::c_int = 23;
/// `SIOCGSTAMPNS` of `linux/sockios.h`.
const STAMP: libc::c_ulong = 0x8907;
/// More than any frame, offloaded ones included.
const LARGEST: usize = 66_000;

/// A packet socket at one device: sends what it is told to, and receives what comes to the device.
#[derive(Debug)]
pub struct Wire(OwnedFd);

impl Wire {
    /// Opens one in the namespace the calling thread is in.
    ///
    /// # Errors
    /// There is no such device, or no right to do it.
    #[expect(unsafe_code, reason = "no wrapper binds a packet socket")]
    #[expect(clippy::cast_possible_truncation, reason = "numbers of the kernel's own headers")]
    pub fn open(device: &str) -> io::Result<Self> {
        // SAFETY: a plain call; the descriptor is checked before it is owned.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is new, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let index = rustix::net::netdevice::name_to_index(&fd, device)?;
        let one: libc::c_int = 1;
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the option is an int, and lives for the call.
        let set = unsafe {
            libc::setsockopt(fd.as_raw_fd(), libc::SOL_PACKET, IGNORE_OUTGOING, (&raw const one).cast(), size)
        };
        // SAFETY: all zero is a valid address of this family.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = EVERYTHING.to_be();
        address.sll_ifindex = index.cast_signed();
        let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is of the size told, and lives for the call.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size) };
        if set < 0 || bound < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(fd)) }
    }

    /// Sends a frame.
    ///
    /// # Panics
    /// The kernel does not take it.
    pub fn send(&self, frame: &[u8]) {
        let sent = send(&self.0, frame, SendFlags::empty()).expect("send a frame");
        assert_eq!(sent, frame.len());
    }

    /// Sends one frame of TCP over IPv4 without options that is larger than any packet, which the kernel cuts into segments of so
    /// many bytes on its way out, all of them at once.
    ///
    /// # Panics
    /// The kernel does not take it.
    #[expect(unsafe_code, reason = "no wrapper sets this option")]
    #[expect(clippy::cast_possible_truncation, reason = "the size of an int")]
    pub fn send_cut(&self, frame: &[u8], segment: u16) {
        let one: libc::c_int = 1;
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the option is an int, and lives for the call.
        let set = unsafe {
            libc::setsockopt(self.0.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_VNET_HDR, (&raw const one).cast(), size)
        };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
        // `struct virtio_net_hdr`: the checksum is to be made, from 34 on, at 16; TCP; 54 bytes of headers.
        let numbers = [54, segment, 34, 16].map(u16::to_ne_bytes).concat();
        self.send(&[&[1, 1], numbers.as_slice(), frame].concat());
    }

    /// The next frame, if one comes in time.
    ///
    /// # Panics
    /// The device is gone.
    pub fn receive(&self, wait: Duration) -> Option<Vec<u8>> {
        if !readable(&self.0, wait) {
            return None;
        }
        let mut frame = vec![0; LARGEST];
        let (length, _) = recv(&self.0, &mut frame[..], RecvFlags::empty()).expect("receive a frame");
        frame.truncate(length);
        Some(frame)
    }

    /// From now on the kernel notes when frames come; soon after this it does.
    #[must_use]
    pub fn with_times(self) -> Self {
        // It begins with the first question, for which it has no answer yet.
        let _none = self.stamp();
        self
    }

    /// When the frame that was received last came to the device, since 1970; the kernel was told to note that.
    ///
    /// # Panics
    /// It does not know.
    #[must_use]
    pub fn came(&self) -> Duration {
        self.stamp().expect("when a frame has come")
    }

    #[expect(unsafe_code, reason = "no wrapper asks for this")]
    fn stamp(&self) -> io::Result<Duration> {
        let mut came = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the request writes a `timespec`, which lives for the call.
        if unsafe { libc::ioctl(self.0.as_raw_fd(), STAMP, &raw mut came) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let rest = came.tv_nsec.try_into().map_err(io::Error::other)?;
        Ok(Duration::new(came.tv_sec.cast_unsigned(), rest))
    }

    /// Forgets what has come so far.
    pub fn drain(&self) {
        while self.receive(Duration::ZERO).is_some() {}
    }

    /// The first frame of those that come in time that is as wanted.
    pub fn find(&self, wait: Duration, mut wanted: impl FnMut(&[u8]) -> bool) -> Option<Vec<u8>> {
        let end = Instant::now() + wait;
        loop {
            let frame = self.receive(end.saturating_duration_since(Instant::now()))?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }
}

#[expect(unsafe_code, reason = "the wrapper of poll is a feature nothing else here needs")]
fn readable(fd: &impl AsRawFd, wait: Duration) -> bool {
    let mut asked = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let wait = libc::c_int::try_from(wait.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: one descriptor is asked about, and it lives for the call.
    unsafe { libc::poll(&raw mut asked, 1, wait) > 0 }
}

/// `TUNSETIFF` and `TUNSETOFFLOAD` of `linux/if_tun.h`.
const SET_INTERFACE: libc::c_ulong = 0x4004_54ca;
const SET_OFFLOAD: libc::c_ulong = 0x4004_54d0;
/// `IFF_TAP`, `IFF_NO_PI` and `IFF_VNET_HDR`: frames with the header in which a hypervisor tells what is left to do.
const FLAGS: u16 = 0x0002 | 0x1000 | 0x4000;
/// `TUN_F_CSUM`, `TUN_F_TSO4` and `TUN_F_TSO6`: checksums and segments may be left to the reader.
const OFFLOADS: libc::c_ulong = 0x01 | 0x02 | 0x04;

/// Makes a tap in the namespace the calling thread is in, and holds it open as a hypervisor does.
///
/// # Errors
/// There is such a device already, or no right to do it.
#[expect(unsafe_code, reason = "no wrapper makes a tap")]
pub fn tap(name: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&FLAGS.to_ne_bytes());
    // SAFETY: the request is an `ifreq` of 40 bytes, and lives for the call.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), SET_INTERFACE, request.as_mut_ptr()) };
    // SAFETY: the argument is a number.
    let offloads = unsafe { libc::ioctl(file.as_raw_fd(), SET_OFFLOAD, OFFLOADS) };
    if made < 0 || offloads < 0 { Err(io::Error::last_os_error()) } else { Ok(file) }
}

/// A virtual machine without a machine: what one tap says, the other hears.
#[derive(Debug)]
pub struct Relay {
    end: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Relay {
    /// Starts relaying.
    ///
    /// # Panics
    /// A tap cannot be shared.
    #[must_use]
    pub fn start(host: &File, guest: &File) -> Self {
        Self::changing(host, guest, [|_: &mut Vec<u8>| true, |_: &mut Vec<u8>| true])
    }

    /// The same, but what the one says is changed on its way to the other, behind its header, or lost: what the first tap says
    /// by the first change, what the second says by the second.
    ///
    /// # Panics
    /// A tap cannot be shared.
    #[must_use]
    pub fn changing<F: Fn(&mut Vec<u8>) -> bool + Send + 'static>(one: &File, other: &File, changes: [F; 2]) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let one_way = |from: &File, to: &File, change: F| {
            let (from, to) = (from.try_clone().expect("share a tap"), to.try_clone().expect("share a tap"));
            let end = Arc::clone(&end);
            thread::spawn(move || relay((from, to), &change, &end))
        };
        let [first, second] = changes;
        let threads = vec![one_way(one, other, first), one_way(other, one, second)];
        Self { end, threads }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // What it had to say has failed the test already.
            drop(thread.join());
        }
    }
}

fn relay((mut from, mut to): (File, File), change: &impl Fn(&mut Vec<u8>) -> bool, end: &AtomicBool) {
    let mut frame = Vec::new();
    while !end.load(Ordering::Relaxed) {
        if readable(&from, Duration::from_millis(50)) {
            frame.resize(LARGEST, 0);
            // A device that is down takes and gives nothing; so does a cable without a machine.
            if let Ok(length) = from.read(&mut frame) {
                frame.truncate(length);
                if change(&mut frame) {
                    drop(to.write(&frame));
                }
            }
        }
    }
}
