//! The clsact qdisc, its filters, and XDP programs of one device, by netlink, in the namespace of the calling thread. Flow: policy.

use std::{io, os::fd::RawFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::LinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::discover::netlink::{
    Answer,
    attachments::{self, ClsactFilter, EVERY_PROTOCOL, Xdp},
};

/// A filter of ours: where, and which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// The device.
    pub(crate) ifindex: u32,
    /// It sees what leaves the device, rather than what comes in.
    pub(crate) egress: bool,
    /// Lower is asked first.
    pub(crate) priority: u16,
    /// Tells filters of one priority apart.
    pub(crate) handle: u32,
}

impl Slot {
    fn message(&self) -> TcMessage {
        let mut message = TcMessage::with_index(self.ifindex.cast_signed());
        message.header.parent = parent(self.egress);
        message.header.handle = self.handle.into();
        message.header.info = u32::from(self.priority) << 16 | EVERY_PROTOCOL;
        message.attributes.push(TcAttribute::Kind("bpf".to_owned()));
        message
    }
}

fn parent(egress: bool) -> TcHandle {
    let minor = if egress { TcHandle::MIN_EGRESS } else { TcHandle::MIN_INGRESS };
    TcHandle { major: TcHandle::CLSACT.major, minor }
}

/// Makes a clsact qdisc; `EEXIST` where there is one, or an ingress qdisc in its place.
pub(crate) fn add_clsact(ifindex: u32) -> io::Result<()> {
    let request = RouteNetlinkMessage::NewQueueDiscipline(clsact(ifindex));
    exchange(request, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK).map(drop)
}

/// Removes the clsact qdisc, with all filters it has.
pub(crate) fn remove_clsact(ifindex: u32) -> io::Result<()> {
    exchange(RouteNetlinkMessage::DelQueueDiscipline(clsact(ifindex)), NLM_F_ACK).map(drop)
}

fn clsact(ifindex: u32) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    message
}

/// True where the device has a clsact qdisc, rather than an ingress qdisc in its place.
pub(crate) fn has_clsact(ifindex: u32) -> io::Result<bool> {
    let answers = exchange(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()), NLM_F_DUMP)?;
    Ok(answers.iter().any(|answer| attachments::is_clsact(answer, ifindex)))
}

/// Filters of one side of the clsact qdisc, in the order they are asked; none where there is no such qdisc.
pub(crate) fn filters(ifindex: u32, egress: bool) -> io::Result<Vec<ClsactFilter>> {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = parent(egress);
    let answers = match exchange(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP) {
        // No such qdisc.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => return Ok(Vec::new()),
        answers => answers?,
    };
    Ok(answers.iter().filter_map(|answer| attachments::clsact_filter(answer, egress)).collect())
}

/// Puts a program into the place of a filter, or of the program that is there; no packet meets neither.
pub(crate) fn set_filter(slot: &Slot, program: RawFd, name: &str) -> io::Result<()> {
    let mut message = slot.message();
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(program.cast_unsigned())),
        TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    let flags = NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK;
    exchange(RouteNetlinkMessage::NewTrafficFilter(message), flags).map(drop)
}

/// Removes a filter.
pub(crate) fn remove_filter(slot: &Slot) -> io::Result<()> {
    exchange(RouteNetlinkMessage::DelTrafficFilter(slot.message()), NLM_F_ACK).map(drop)
}

/// XDP programs of a device.
pub(crate) fn xdp(ifindex: u32) -> io::Result<Vec<Xdp>> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    let answers = exchange(RouteNetlinkMessage::GetLink(message), 0)?;
    Ok(answers.iter().flat_map(attachments::xdp).collect())
}

/// Sends a request and reads the answer to its end.
pub(crate) fn exchange(request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<Answer>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = 1;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    // What is not a dump, and asks for no acknowledgement, has one answer.
    let one = flags & (NLM_F_DUMP | NLM_F_ACK) == 0;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if take(&datagram, &mut answers)? || one {
            return Ok(answers);
        }
    }
}

/// Takes the messages of one datagram; true at the end of the answer.
fn take(mut datagram: &[u8], answers: &mut Vec<Answer>) -> io::Result<bool> {
    while !datagram.is_empty() {
        let buffer = NetlinkBuffer::new_checked(datagram).map_err(io::Error::other)?;
        let length = usize::try_from(buffer.length()).map_err(io::Error::other)?;
        match buffer.message_type() {
            netlink_packet_core::NLMSG_DONE => return Ok(true),
            netlink_packet_core::NLMSG_ERROR => return refusal(buffer.payload()).map_or(Ok(true), Err),
            _ => answers.push(Answer(buffer.payload().to_vec())),
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The error of an acknowledgement; none where it is 0.
fn refusal(payload: &[u8]) -> Option<io::Error> {
    let code = payload.first_chunk().map_or(-libc::EPROTO, |code| i32::from_ne_bytes(*code));
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}
