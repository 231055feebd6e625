//! Fields of the kernel's own structures, at the offsets user space took from the running kernel's BTF.
//!
//! Every read is one the kernel checks: an address that is none gives nothing, never a fault.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_probe_read_kernel, generated::bpf_probe_read_kernel as copy},
};
use netdiag_common::abi::live::{HEAD, Layout, Seen};

/// Where things are. Written by user space before the programs are loaded.
#[unsafe(no_mangle)]
static LAYOUT: Layout = Layout {
    skb_dev: 0,
    skb_head: 0,
    skb_data: 0,
    skb_tail: 0,
    skb_len: 0,
    skb_mark: 0,
    skb_mac_header: 0,
    skb_network_header: 0,
    skb_vlan_tci: 0,
    skb_tagged: 0,
    skb_tagged_mask: 0,
    skb_ingress: 0,
    skb_ingress_mask: 0,
    skb_iif: 0,
    skb_dst: 0,
    skb_sk: 0,
    dev_ifindex: 0,
    dev_net: 0,
    dev_type: 0,
    net_cookie: 0,
    net_inode: 0,
    net_loopback: 0,
    dst_dev: 0,
    sk_net: 0,
    sk_family: 0,
    consumed: 0,
    receiver: 0,
};

/// Where things are.
#[inline(always)]
pub fn layout() -> &'static Layout {
    let layout = &raw const LAYOUT;
    let place: *const Layout;
    // The compiler must not take the zeros above for what is there.
    // SAFETY: nothing is done but to hide where the address comes from.
    unsafe {
        asm!("{place} = {layout}", layout = in(reg) layout, place = lateout(reg) place, options(pure, readonly, nostack));
    }
    // SAFETY: it is the address of the static.
    unsafe { &*place }
}

/// The address a pointer of the kernel's holds, as a number the verifier knows nothing of.
#[inline(always)]
pub fn address_of(pointer: *const c_void) -> u64 {
    let place = [pointer];
    // SAFETY: the place is on this stack.
    unsafe { bpf_probe_read_kernel(place.as_ptr().cast::<u64>()) }.unwrap_or(0)
}

/// A field at an offset.
#[inline(always)]
fn field<T>(address: u64, offset: u32) -> Option<T> {
    if address == 0 {
        return None;
    }
    // SAFETY: the helper checks the address, and every field read here is an integer.
    unsafe { bpf_probe_read_kernel((address + u64::from(offset)) as *const T) }.ok()
}

#[inline(always)]
fn number(address: u64, offset: u32) -> u32 {
    field(address, offset).unwrap_or(0)
}

#[inline(always)]
fn half(address: u64, offset: u32) -> u16 {
    field(address, offset).unwrap_or(0)
}

#[inline(always)]
fn pointer(address: u64, offset: u32) -> u64 {
    field(address, offset).unwrap_or(0)
}

/// A length, but no more than so much; none if it is nothing. What a helper is told to copy must be known to the verifier to be
/// neither nothing nor too much.
#[inline(always)]
pub fn at_most<const MOST: usize>(length: u32) -> Option<u64> {
    let known = hidden(u64::from(length).min(MOST as u64));
    // From "not equal" verifiers before Linux 6.8 learn nothing.
    if known.cast_signed() <= 0 {
        return None;
    }
    // Hidden in between, too: the compiler would compare the length less one, from which those before 6.11 learn nothing about the
    // length.
    let known = hidden(known);
    (known <= MOST as u64).then_some(known)
}

/// The same number, of which the compiler knows nothing: in a register of its own, so that what the verifier is shown to be true of
/// it is true of what it sees used.
#[inline(always)]
fn hidden(mut number: u64) -> u64 {
    // SAFETY: nothing is done but to hide what is known of the number.
    unsafe { asm!("{number} = {number}", number = inout(reg) number, options(pure, nomem, nostack)) };
    number
}

/// Cookie and inode of the namespace of the device a packet is at, where it is sure to be one; zeros where the layout is not known.
#[inline(always)]
pub fn namespace_of_sure_device(device: u64) -> (u64, u32) {
    let layout = layout();
    if layout.net_cookie == 0 {
        return (0, 0);
    }
    let net = pointer(device, layout.dev_net);
    (field(net, layout.net_cookie).unwrap_or(0), number(net, layout.net_inode))
}

/// Cookie and inode of the namespace of a device; zeros where it is no device.
#[inline(always)]
fn namespace_of_device(device: u64) -> (u64, u32) {
    let layout = layout();
    namespace(pointer(device, layout.dev_net))
}

/// Cookie and inode of a namespace; zeros where it is none. The loopback device of a namespace leads back to it, which no other memory does.
#[inline(always)]
fn namespace(net: u64) -> (u64, u32) {
    let layout = layout();
    let loopback = pointer(net, layout.net_loopback);
    if net == 0 || pointer(loopback, layout.dev_net) != net {
        return (0, 0);
    }
    (field(net, layout.net_cookie).unwrap_or(0), number(net, layout.net_inode))
}

/// `ARPHRD_ETHER` and `ARPHRD_LOOPBACK` of `linux/if_arp.h`.
const ETHERNET_TYPES: [u16; 2] = [1, 772];
/// `AF_PACKET` of `linux/socket.h`.
const AF_PACKET: u16 = 17;
/// A header that has not been set.
const UNSET: u16 = u16::MAX;
/// Length of an Ethernet header.
const ETHERNET: u16 = 14;

/// Address of a `struct sk_buff`.
#[derive(Clone, Copy)]
pub struct Buffer(pub u64);

impl Buffer {
    /// The buffer a context or an argument stands for.
    #[inline(always)]
    pub fn of(pointer: *const c_void) -> Self {
        Self(address_of(pointer))
    }

    /// The buffer a context stands for, which the record says, too. What a record holds is a number to the verifier, so the way there
    /// and back takes no helper.
    #[inline(always)]
    pub fn of_context(skb: *mut __sk_buff, seen: &mut Seen) -> Self {
        let place = &raw mut seen.buffer;
        // SAFETY: the place is a field behind an exclusive reference. Volatile, for the compiler would leave both out.
        unsafe { place.cast::<*mut __sk_buff>().write_volatile(skb) };
        // SAFETY: as above; an address is a number of so many bits.
        Self(unsafe { place.read_volatile() })
    }

    /// Its device, or whatever else the kernel keeps in its place.
    #[inline(always)]
    pub fn device(self) -> u64 {
        pointer(self.0, layout().skb_dev)
    }

    /// Its mark.
    #[inline(always)]
    pub fn mark(self) -> u32 {
        number(self.0, layout().skb_mark)
    }

    /// Whether it belongs to a packet socket.
    #[inline(always)]
    pub fn is_of_packet_socket(self) -> bool {
        let layout = layout();
        half(pointer(self.0, layout.skb_sk), layout.sk_family) == AF_PACKET
    }

    /// Whether it is at TC ingress, and not at egress.
    #[inline(always)]
    pub fn is_at_ingress(self) -> bool {
        let layout = layout();
        number(self.0, layout.skb_ingress) & layout.skb_ingress_mask != 0
    }

    /// The tag beside the frame.
    #[inline(always)]
    pub fn tag(self) -> Option<u16> {
        let layout = layout();
        let tagged = number(self.0, layout.skb_tagged) & layout.skb_tagged_mask != 0;
        tagged.then(|| half(self.0, layout.skb_vlan_tci))
    }

    /// Namespace and device, as far as they can be known.
    ///
    /// The kernel uses the place of the device for something else while a packet waits at a socket: then the namespace is that of the
    /// route or of the socket, and the device the one the packet came from.
    #[inline(always)]
    pub fn place(self, receiver: u64) -> Place {
        let layout = layout();
        let device = self.device();
        let (cookie, inode) = namespace_of_device(device);
        if cookie != 0 || inode != 0 {
            return Place { cookie, inode, ifindex: number(device, layout.dev_ifindex) };
        }
        let from = number(self.0, layout.skb_iif);
        let route = pointer(self.0, layout.skb_dst) & !1;
        let device = pointer(route, layout.dst_dev);
        let (cookie, inode) = namespace_of_device(device);
        if inode != 0 {
            let ifindex = if from == 0 { number(device, layout.dev_ifindex) } else { from };
            return Place { cookie, inode, ifindex };
        }
        let (mut cookie, mut inode) = namespace(pointer(receiver, layout.sk_net));
        if inode == 0 {
            (cookie, inode) = namespace(pointer(pointer(self.0, layout.skb_sk), layout.sk_net));
        }
        Place { cookie, inode, ifindex: from }
    }
}

/// Where a packet was given up.
#[derive(Clone, Copy)]
pub struct Place {
    /// Cookie of the namespace.
    pub cookie: u64,
    /// Inode of the namespace; 0 where it is not known.
    pub inode: u32,
    /// Index of the device; 0 where there is none.
    pub ifindex: u32,
}

/// A buffer that is being given up. The verifier knows that it is one, so its fields are read as a C program would read them; at
/// offsets that are constants to it, for user space has written them before the program is checked.
#[derive(Clone, Copy)]
pub struct Dying(*const u8);

/// Where the first bytes of a packet are.
pub struct First {
    from: u64,
    /// How many lie there in one piece, of those that are kept.
    known: u64,
    /// Length of the whole packet from there on.
    pub length: u32,
}

impl Dying {
    /// The buffer the tracepoint tells of.
    #[inline(always)]
    pub const fn of(argument: *const c_void) -> Self {
        Self(argument.cast())
    }

    #[inline(always)]
    fn field<T>(self, offset: u32) -> T {
        // SAFETY: user space took the offset from the running kernel's description of the structure.
        let field = unsafe { self.0.add(offset as usize) }.cast::<T>();
        // SAFETY: as above; every field read here is an integer. Volatile, for a load is of the field's own size.
        unsafe { field.read_volatile() }
    }

    /// The first bytes, from the Ethernet header on if there is one; true if they begin at an IP header.
    #[inline(always)]
    pub fn start(self) -> (First, bool) {
        let layout = layout();
        let head: u64 = self.field(layout.skb_head);
        let data = self.field::<u64>(layout.skb_data).wrapping_sub(head);
        let (offset, network) = self.offset(data);
        let end = u64::from(self.field::<u32>(layout.skb_tail));
        let before = data.wrapping_sub(offset) as u32;
        let length = self.field::<u32>(layout.skb_len).wrapping_add(before);
        let known = end.saturating_sub(offset).min(HEAD as u64);
        (First { from: head.wrapping_add(offset), known, length }, network)
    }

    /// Offset of the first byte from the head of the buffer on, and true if that is of an IP header.
    ///
    /// What has come from a device has a header of each kind, the second behind the first. What this host sends has a network
    /// header first, and what has been put into a tunnel has its old link-layer header behind the new network header.
    #[inline(always)]
    fn offset(self, data: u64) -> (u64, bool) {
        let layout = layout();
        let mac: u16 = self.field(layout.skb_mac_header);
        let network: u16 = self.field(layout.skb_network_header);
        let has_mac = mac != UNSET;
        if has_mac && network >= mac + ETHERNET {
            return (mac.into(), false);
        }
        if network == 0 || network == UNSET {
            return (data, !self.is_ethernet());
        }
        if has_mac && network == mac && self.is_ethernet() {
            return (mac.into(), false);
        }
        (network.into(), true)
    }

    #[inline(always)]
    fn is_ethernet(self) -> bool {
        let device = Buffer::of(self.0.cast()).device();
        let kind = half(device, layout().dev_type);
        kind == ETHERNET_TYPES[0] || kind == ETHERNET_TYPES[1]
    }
}

impl First {
    /// Copies them, but no more than so many; how many that were.
    #[inline(always)]
    pub fn copy<const MOST: usize>(&self, head: &mut [u8; HEAD]) -> u32 {
        let Some(known) = at_most::<MOST>(self.known as u32) else { return 0 };
        // SAFETY: there is room for so many bytes, and the helper checks the address.
        let done = unsafe { copy(head.as_mut_ptr().cast(), known as u32, self.from as *const c_void) };
        if done == 0 { known as u32 } else { 0 }
    }
}
