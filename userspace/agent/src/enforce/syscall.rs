//! `bpf(2)` and `membarrier(2)`, as far as aya does not wrap them: links by device index instead of device name, links
//! opened again from their pins, elements of maps in batches. The only unsafe code of [`super`]; decides nothing.
#![expect(unsafe_code, reason = "system calls that no library wraps")]

use std::{
    ffi::CString,
    io,
    marker::PhantomData,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::Pod;

/// Commands of `linux/bpf.h`.
mod command {
    pub(super) const MAP_LOOKUP_ELEM: libc::c_long = 1;
    pub(super) const OBJ_PIN: libc::c_long = 6;
    pub(super) const OBJ_GET: libc::c_long = 7;
    pub(super) const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    pub(super) const PROG_QUERY: libc::c_long = 16;
    pub(super) const MAP_LOOKUP_BATCH: libc::c_long = 24;
    pub(super) const MAP_UPDATE_BATCH: libc::c_long = 26;
    pub(super) const MAP_DELETE_BATCH: libc::c_long = 27;
    pub(super) const LINK_CREATE: libc::c_long = 28;
    pub(super) const LINK_UPDATE: libc::c_long = 29;
    pub(super) const LINK_DETACH: libc::c_long = 34;
}

/// `MEMBARRIER_CMD_GLOBAL` of `linux/membarrier.h`: the kernel answers it with `synchronize_rcu()`.
const MEMBARRIER_GLOBAL: libc::c_long = 1;

/// `BPF_F_RDONLY` of `linux/bpf.h`.
const READ_ONLY: u32 = 1 << 3;
/// `BPF_F_BEFORE` of `linux/bpf.h`; without a program or link to be before, before all.
const BEFORE: u32 = 1 << 3;
/// `BPF_F_AFTER` of `linux/bpf.h`; without a program or link to be after, after all that are there.
const AFTER: u32 = 1 << 4;
/// `XDP_FLAGS_SKB_MODE` of `linux/if_link.h`.
const SKB_MODE: u32 = 1 << 1;

/// A part of `union bpf_attr`. The kernel takes what is not there for zeros.
///
/// # Safety
/// Pointers in it are valid for what the command makes the kernel read or write through them.
unsafe fn bpf<A>(command: libc::c_long, attribute: &mut A) -> io::Result<i32> {
    // SAFETY: the attribute is exclusively borrowed, and readable and writable in its whole size; what its pointers lead
    // to is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<A>()) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A descriptor as attributes have it.
fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// A pointer as attributes have it.
fn address<T>(data: *const T) -> u64 {
    data.expose_provenance() as u64
}

/// A pointer as attributes have it, for the kernel to write through.
fn address_mut<T>(data: *mut T) -> u64 {
    data.expose_provenance() as u64
}

/// A new descriptor of the kernel's.
///
/// # Safety
/// The number is an open descriptor that nobody else owns.
unsafe fn owned(number: i32) -> OwnedFd {
    // SAFETY: as above.
    unsafe { OwnedFd::from_raw_fd(number) }
}

// === ring buffers ===

/// How far the readers of a ring buffer have read, in bytes since it was made.
pub(super) fn read_so_far(ring: BorrowedFd<'_>) -> io::Result<u64> {
    // The kernel makes whole pages of it.
    let size = size_of::<AtomicU64>();
    // SAFETY: a new mapping anywhere; the kernel has the reader's position in the first page of every ring buffer.
    let page =
        unsafe { libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ, libc::MAP_SHARED, ring.as_raw_fd(), 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page is mapped, begins with the position, and is aligned for it.
    let position = unsafe { AtomicU64::from_ptr(page.cast()) }.load(Ordering::Acquire);
    // SAFETY: it was mapped above, and nothing refers to it any more.
    match unsafe { libc::munmap(page, size) } {
        0 => Ok(position),
        _ => Err(io::Error::last_os_error()),
    }
}

// === pins ===

#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens a pinned link.
pub(super) fn open_link(path: &Path) -> io::Result<OwnedFd> {
    open(path, 0)
}

/// Opens a pinned map.
pub(super) fn open_map(path: &Path, read_only: bool) -> io::Result<OwnedFd> {
    open(path, if read_only { READ_ONLY } else { 0 })
}

fn open(path: &Path, flags: u32) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attribute = Object { path: address(path.as_ptr()), fd: 0, flags };
    // SAFETY: `path` is a string with its end, and outlives the call.
    let fd = unsafe { bpf(command::OBJ_GET, &mut attribute) }?;
    // SAFETY: the command returns a new descriptor.
    Ok(unsafe { owned(fd) })
}

/// Pins an object.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attribute = Object { path: address(path.as_ptr()), fd: number(object), flags: 0 };
    // SAFETY: `path` is a string with its end, and outlives the call.
    unsafe { bpf(command::OBJ_PIN, &mut attribute) }?;
    Ok(())
}

// === links ===

/// Places of a device a program can be attached to by a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Place {
    /// `BPF_XDP`, generic mode.
    Xdp = 37,
    /// `BPF_TCX_INGRESS`.
    TcxIngress = 46,
    /// `BPF_TCX_EGRESS`.
    TcxEgress = 47,
}

/// Where a program goes among those at TCX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Before all others.
    First,
    /// After all that are there.
    Last,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    place: u32,
    flags: u32,
}

/// Attaches a program, at XDP in generic mode. The link ends with its last descriptor or pin.
pub(crate) fn create_link(program: BorrowedFd<'_>, ifindex: u32, place: Place, order: Order) -> io::Result<OwnedFd> {
    let flags = match (place, order) {
        (Place::Xdp, _) => SKB_MODE,
        (Place::TcxIngress | Place::TcxEgress, Order::First) => BEFORE,
        (Place::TcxIngress | Place::TcxEgress, Order::Last) => AFTER,
    };
    let mut attribute = LinkCreate { program: number(program), ifindex, place: place as u32, flags };
    // SAFETY: there is no pointer in it.
    let fd = unsafe { bpf(command::LINK_CREATE, &mut attribute) }?;
    // SAFETY: the command returns a new descriptor.
    Ok(unsafe { owned(fd) })
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
}

/// Puts another program in the place of the one a link has; no packet meets neither.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = LinkUpdate { link: number(link), program: number(program), flags: 0 };
    // SAFETY: there is no pointer in it.
    unsafe { bpf(command::LINK_UPDATE, &mut attribute) }?;
    Ok(())
}

/// Detaches a link now, whoever else holds it.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attribute = number(link);
    // SAFETY: there is no pointer in it.
    unsafe { bpf(command::LINK_DETACH, &mut attribute) }?;
    Ok(())
}

#[repr(C)]
struct InfoByFd {
    fd: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, as it is for TCX and XDP.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// `BPF_LINK_TYPE_*`.
    pub(super) kind: u32,
    /// Id of the link.
    pub(super) id: u32,
    /// Id of the program.
    pub(super) program: u32,
    pad: u32,
    /// The device; 0 once it is gone.
    pub(super) ifindex: u32,
    /// Where, at TCX.
    pub(super) place: u32,
}

/// What a link links.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    info(link)
}

/// The beginning of what the kernel says of an object: as much as there is room for in `T`, which is as much as the kernel has.
fn info<T: Default + Integers>(object: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let length = u32::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let mut attribute = InfoByFd { fd: number(object), length, info: address_mut(&raw mut info) };
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `info`, and every byte of it is an integer's.
    unsafe { bpf(command::OBJ_GET_INFO_BY_FD, &mut attribute) }?;
    Ok(info)
}

/// Structures of integers only: every byte pattern is valid.
///
/// # Safety
/// They are.
unsafe trait Integers {}

// SAFETY: it is made of `u32` alone.
unsafe impl Integers for LinkInfo {}
// SAFETY: it is made of `u32` alone.
unsafe impl Integers for MapInfo {}

/// A program at TCX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    /// Id of the program.
    pub(super) program: u32,
    /// Id of its link; 0 where it was attached without.
    pub(super) link: u32,
}

/// `BPF_MPROG_MAX` of `linux/bpf_mprog.h`: no more programs fit at one place.
const MOST_QUEUED: u8 = 64;

#[repr(C)]
struct Query {
    ifindex: u32,
    place: u32,
    flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    pad: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

/// Programs at TCX, in the order they run.
pub(super) fn query(ifindex: u32, place: Place) -> io::Result<Vec<Queued>> {
    let (mut programs, mut links) = ([0_u32; MOST_QUEUED as usize], [0_u32; MOST_QUEUED as usize]);
    let mut attribute = Query {
        ifindex,
        place: place as u32,
        flags: 0,
        attach_flags: 0,
        programs: address_mut(programs.as_mut_ptr()),
        count: MOST_QUEUED.into(),
        pad: 0,
        program_flags: 0,
        links: address_mut(links.as_mut_ptr()),
        link_flags: 0,
        revision: 0,
    };
    // SAFETY: both arrays are live, not otherwise borrowed, and have room for `count` numbers, of which the kernel writes no more.
    unsafe { bpf(command::PROG_QUERY, &mut attribute) }?;
    let count = usize::try_from(attribute.count).unwrap_or(0);
    let queued = programs.into_iter().zip(links).take(count);
    Ok(queued.map(|(program, link)| Queued { program, link }).collect())
}

// === maps ===

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MapInfo {
    /// `BPF_MAP_TYPE_*`.
    pub(super) kind: u32,
    /// Id of the map.
    pub(super) id: u32,
    /// Bytes of a key.
    pub(super) key_size: u32,
    /// Bytes of a value.
    pub(super) value_size: u32,
    /// How many elements it can have.
    pub(super) max_entries: u32,
    /// `BPF_F_*`.
    pub(super) flags: u32,
}

/// What a map is.
pub(super) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    info(map)
}

/// `BPF_MAP_TYPE_PERCPU_ARRAY` of `linux/bpf.h`.
const PERCPU_ARRAY: u32 = 6;

/// A map whose keys and values are known to have the sizes of `K` and `V`, so that the kernel reads and writes no more
/// than there is.
pub(super) struct Map<K, V> {
    fd: OwnedFd,
    /// Values of each key: one, or one for each CPU.
    per_key: usize,
    /// How many elements it can have.
    capacity: u32,
    types: PhantomData<(K, V)>,
}

#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Batch {
    before: u64,
    after: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// A batch ended early: so many elements were done, and the next was refused.
#[derive(Debug)]
pub(super) struct Stopped {
    /// Elements that were done.
    pub(super) done: usize,
    /// Why the next was not.
    pub(super) error: io::Error,
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self { done: 0, error }
    }
}

/// Where a walk over a map stands: what the kernel calls a batch's position. A hash map's is the number of a bucket, other
/// maps' is a key; both fit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position([u8; 64]);

impl Position {
    /// Behind an element of an array.
    pub(super) fn behind(index: u32) -> Self {
        let mut position = [0; 64];
        position[..4].copy_from_slice(&index.to_ne_bytes());
        Self(position)
    }
}

/// One step of a walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Elements read.
    pub(super) read: usize,
    /// Where to go on; none at the end.
    pub(super) next: Option<Position>,
}

impl<K: Pod, V: Pod> Map<K, V> {
    /// Takes a map that has keys and values of these sizes.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let info = map_info(fd.as_fd())?;
        let fits = |size: u32, wanted: usize| usize::try_from(size).is_ok_and(|size| size == wanted);
        if !fits(info.key_size, size_of::<K>()) || !fits(info.value_size, size_of::<V>()) {
            let (key, value) = (size_of::<K>(), size_of::<V>());
            let MapInfo { key_size, value_size, .. } = info;
            let why = format!("keys of {key_size} and values of {value_size} bytes, not of {key} and {value}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let per_key = if info.kind == PERCPU_ARRAY { cpus()? } else { 1 };
        // The kernel gives each CPU's value a multiple of 8 bytes.
        let packed = per_key == 1 || size_of::<V>().is_multiple_of(8);
        if size_of::<K>() > size_of::<Position>() || !packed {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "elements of an unusual size"));
        }
        Ok(Self { fd, per_key, capacity: info.max_entries, types: PhantomData })
    }

    /// How many elements it can have.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Values of each key: one, or one for each CPU.
    pub(super) fn per_key(&self) -> usize {
        self.per_key
    }

    fn batch(&self, count: usize) -> io::Result<Batch> {
        let count = u32::try_from(count).map_err(io::Error::other)?;
        let map = number(self.fd.as_fd());
        Ok(Batch { before: 0, after: 0, keys: 0, values: 0, count, map, element_flags: 0, flags: 0 })
    }

    /// The value of a key; none where the map has no such key. Not for maps with a value for each CPU.
    pub(super) fn lookup(&self, key: &K) -> io::Result<Option<V>> {
        assert_eq!(self.per_key, 1, "one value for each key");
        let mut value = zeroed::<V>();
        let mut attribute = Element {
            map: number(self.fd.as_fd()),
            pad: 0,
            key: address(std::ptr::from_ref(key)),
            value: address_mut(&raw mut value),
            flags: 0,
        };
        // SAFETY: key and value are live and have the sizes of the map's; every byte pattern is a valid `V`.
        match unsafe { bpf(command::MAP_LOOKUP_ELEM, &mut attribute) } {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes elements, in order.
    pub(super) fn update_batch(&self, keys: &[K], values: &[V]) -> Result<(), Stopped> {
        assert_eq!(keys.len() * self.per_key, values.len(), "as many values as the keys have");
        let mut attribute = self.batch(keys.len())?;
        attribute.keys = address(keys.as_ptr());
        attribute.values = address(values.as_ptr());
        // SAFETY: both slices have all elements of the sizes of the map's, and the kernel only reads them.
        let result = unsafe { bpf(command::MAP_UPDATE_BATCH, &mut attribute) };
        result.map(drop).map_err(|error| stopped(&attribute, keys.len(), error))
    }

    /// Removes elements, in order; stops at one that is not there.
    pub(super) fn delete_batch(&self, keys: &[K]) -> Result<(), Stopped> {
        let mut attribute = self.batch(keys.len())?;
        attribute.keys = address(keys.as_ptr());
        // SAFETY: the slice has `count` elements of the size of the map's, and the kernel only reads them.
        let result = unsafe { bpf(command::MAP_DELETE_BATCH, &mut attribute) };
        result.map(drop).map_err(|error| stopped(&attribute, keys.len(), error))
    }

    /// Reads elements from a position, or from the beginning, into `keys` and `values`, and says how many. `ENOSPC` means
    /// that one bucket of a hash map holds more than `keys` has room for.
    pub(super) fn lookup_batch(&self, from: Option<&Position>, keys: &mut [K], values: &mut [V]) -> io::Result<Step> {
        assert_eq!(keys.len() * self.per_key, values.len(), "as many values as the keys have");
        let mut next = Position([0; 64]);
        let mut attribute = self.batch(keys.len())?;
        attribute.before = from.map_or(0, |position| address(position.0.as_ptr()));
        attribute.after = address_mut(next.0.as_mut_ptr());
        attribute.keys = address_mut(keys.as_mut_ptr());
        attribute.values = address_mut(values.as_mut_ptr());
        // SAFETY: both slices are exclusively borrowed and have room for `count` keys and their values, of the sizes of the
        // map's, and both positions for a key or the number of a bucket. Every byte pattern is a valid `K` and a valid `V`.
        match unsafe { bpf(command::MAP_LOOKUP_BATCH, &mut attribute) } {
            Ok(_) => Ok(Step { read: done(&attribute), next: Some(next) }),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Step { read: done(&attribute), next: None }),
            Err(error) => Err(error),
        }
    }
}

/// Nothing but zeros.
pub(super) fn zeroed<T: Pod>() -> T {
    // SAFETY: every byte pattern is a valid `Pod`.
    unsafe { std::mem::zeroed() }
}

/// Elements of a batch that were done, as the kernel says.
fn done(batch: &Batch) -> usize {
    usize::try_from(batch.count).unwrap_or(0)
}

/// Where a batch of so many keys ended. A refusal before its first element leaves the count as it was.
fn stopped(batch: &Batch, keys: usize, error: io::Error) -> Stopped {
    let done = done(batch);
    Stopped { done: if done < keys { done } else { 0 }, error }
}

/// How many CPUs the kernel keeps values for.
fn cpus() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(path, error)| io::Error::new(error.kind(), format!("{path}: {error}")))
}

// === readers in the kernel ===

/// Waits until every program that runs now has ended, so that none of them still reads what was in force before.
pub(super) fn wait_for_readers() -> io::Result<()> {
    // SAFETY: the call takes three numbers and touches no memory of this process.
    match unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_GLOBAL, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
