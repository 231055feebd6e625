//! XDP programs of links (`RTM_GETLINK`) and filters of their queueing disciplines (`RTM_GETQDISC`, `RTM_GETTFILTER`):
//! what `ip link` and `tc filter show` show, as plain data for the source of programs. Flow: discover.

use std::collections::BTreeSet;

use netdiag_model::{fact::XdpMode, id::IfIndex};
use netlink_packet_core::{Emitable as _, ParseableParametrized as _};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkHeader, LinkXdp},
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption},
};

pub(in crate::discover) use super::connection::ConnectError;
use super::{
    chain,
    connection::{Answer, Connection},
    links,
};
use crate::netns::Namespace;

/// `ETH_P_ALL`, as the lower half of `tcm_info` has it.
pub(crate) const EVERY_PROTOCOL: u32 = 0x0003_u16.to_be() as u32;

/// What hangs on the links of one namespace.
#[derive(Default)]
pub(crate) struct Attachments {
    /// Names of all links.
    pub(crate) links: Vec<(IfIndex, String)>,
    /// XDP programs.
    pub(crate) xdp: Vec<Xdp>,
    /// Filters.
    pub(crate) filters: Vec<Filter>,
    /// What could not be read, and why.
    pub(crate) unread: Vec<(&'static str, String)>,
}

/// An XDP program on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Xdp {
    /// The link.
    pub(crate) ifindex: IfIndex,
    /// Id of the program.
    pub(crate) id: u32,
    /// Where in the receive path it runs.
    pub(crate) mode: XdpMode,
}

/// A filter of a queueing discipline. Those of one kind and priority without programs are one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Filter {
    /// The link.
    pub(crate) ifindex: IfIndex,
    /// It sees frames that leave, rather than those that come in.
    pub(crate) egress: bool,
    /// `pref`: lower is asked first.
    pub(crate) priority: u16,
    /// `bpf`, `u32`, `flower` …
    pub(crate) kind: String,
    /// The program of a `bpf` filter.
    pub(crate) program: Option<Program>,
}

/// The program of a `bpf` filter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Program {
    /// Its id; none for classic BPF.
    pub(crate) id: Option<u32>,
    /// The name its loader gave it (`prog.o:[section]`).
    pub(crate) name: Option<String>,
}

/// Reads one namespace.
pub(in crate::discover) async fn read(namespace: &Namespace) -> Result<Attachments, ConnectError> {
    let connection = Connection::open(namespace).await?;
    let mut read = Attachments::default();
    for answer in read.dump(&connection, "XDP programs", &links::request()).await {
        read.xdp.extend(xdp(&answer));
        read.links.extend(links::link(&answer).map(|link| (link.ifindex, link.name)));
    }
    let qdiscs = read.dump(&connection, "queueing disciplines", &qdisc_request()).await;
    let mut filters = BTreeSet::new();
    for hook in qdiscs.iter().flat_map(hooks) {
        let answers = read.dump(&connection, "TC filters", &hook.request()).await;
        filters.extend(answers.iter().filter_map(|answer| filter(answer, &hook)));
    }
    read.filters = filters.into_iter().collect();
    Ok(read)
}

impl Attachments {
    async fn dump(
        &mut self,
        connection: &Connection,
        object: &'static str,
        request: &RouteNetlinkMessage,
    ) -> Vec<Answer> {
        match connection.dump(request).await {
            Ok(dump) => {
                if !dump.consistent {
                    self.unread.push((object, "they changed each time they were read".to_owned()));
                }
                dump.answers
            }
            Err(error) => {
                self.unread.push((object, chain(&error)));
                Vec::new()
            }
        }
    }
}

/// The XDP programs of one link: one, or one for each mode.
pub(crate) fn xdp(answer: &Answer) -> Vec<Xdp> {
    let Ok(header) = LinkHeader::parse(&answer.0) else { return Vec::new() };
    let mut programs = Vec::new();
    for nla in answer.attributes(header.buffer_len()).filter(|nla| nla.kind() == libc::IFLA_XDP) {
        let Some(LinkAttribute::Xdp(xdp)) = links::attribute(&nla, &header) else { continue };
        programs.extend(xdp.into_iter().filter_map(|xdp| {
            let (id, mode) = match xdp {
                LinkXdp::DrvProgId(id) => (id, XdpMode::Native),
                LinkXdp::SkbProgId(id) => (id, XdpMode::Generic),
                LinkXdp::HwProgId(id) => (id, XdpMode::Offloaded),
                _ => return None,
            };
            Some(Xdp { ifindex: IfIndex(header.index), id, mode })
        }));
    }
    programs
}

/// A place of a link that filters can be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hook {
    ifindex: IfIndex,
    parent: TcHandle,
    egress: bool,
}

impl Hook {
    /// Asks for all filters of the hook.
    fn request(&self) -> RouteNetlinkMessage {
        let mut message = TcMessage::default();
        message.header.index = self.ifindex.0.cast_signed();
        message.header.parent = self.parent;
        RouteNetlinkMessage::GetTrafficFilter(message)
    }
}

/// Asks for the queueing disciplines of all links.
fn qdisc_request() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default())
}

/// The hooks of one queueing discipline: two of `clsact`, one of `ingress`, and one of each with a handle, without which
/// nothing can be attached (the default disciplines have none).
fn hooks(answer: &Answer) -> Vec<Hook> {
    let Ok(header) = TcHeader::parse(&answer.0) else { return Vec::new() };
    let Some((kind, _)) = kind_and_program(answer, &header) else { return Vec::new() };
    let ifindex = IfIndex(header.index.cast_unsigned());
    let at = |minor| TcHandle { major: TcHandle::CLSACT.major, minor };
    let ingress = Hook { ifindex, parent: at(TcHandle::MIN_INGRESS), egress: false };
    let egress = Hook { ifindex, parent: at(TcHandle::MIN_EGRESS), egress: true };
    match kind.as_str() {
        "clsact" => vec![ingress, egress],
        "ingress" => vec![ingress],
        _ if header.handle.major != 0 => vec![Hook { ifindex, parent: header.handle, egress: true }],
        _ => Vec::new(),
    }
}

/// One filter of a clsact qdisc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClsactFilter {
    /// Tells filters of one priority apart.
    pub(crate) handle: u32,
    /// It sees packets of every protocol.
    pub(crate) every_protocol: bool,
    /// What it is.
    pub(crate) filter: Filter,
}

/// One filter of one side of a clsact qdisc.
pub(crate) fn clsact_filter(answer: &Answer, egress: bool) -> Option<ClsactFilter> {
    let header = TcHeader::parse(&answer.0).ok()?;
    let hook = Hook { ifindex: IfIndex(header.index.cast_unsigned()), parent: header.parent, egress };
    let every_protocol = header.info & 0xffff == EVERY_PROTOCOL;
    Some(ClsactFilter { handle: header.handle.into(), every_protocol, filter: filter(answer, &hook)? })
}

/// True if this is the clsact qdisc of a link.
pub(crate) fn is_clsact(answer: &Answer, ifindex: u32) -> bool {
    let Ok(header) = TcHeader::parse(&answer.0) else { return false };
    let kind = kind_and_program(answer, &header).map(|(kind, _)| kind);
    header.index.cast_unsigned() == ifindex && kind.as_deref() == Some("clsact")
}

/// One filter; none for the head of a list of filters, which the kernel sends before its members with handle 0.
fn filter(answer: &Answer, hook: &Hook) -> Option<Filter> {
    let header = TcHeader::parse(&answer.0).ok()?;
    let (kind, program) = kind_and_program(answer, &header)?;
    // The upper half of the field is the priority, the lower one the protocol.
    let priority = u16::try_from(header.info >> 16).ok()?;
    let fact = Filter { ifindex: hook.ifindex, egress: hook.egress, priority, kind, program };
    (header.handle != TcHandle::UNSPEC).then_some(fact)
}

fn kind_and_program(answer: &Answer, header: &TcHeader) -> Option<(String, Option<Program>)> {
    let (mut kind, mut program) = (String::new(), None);
    for nla in answer.attributes(header.buffer_len()) {
        match TcAttribute::parse_with_param(&nla, kind.as_str()) {
            Ok(TcAttribute::Kind(name)) => kind = name,
            Ok(TcAttribute::Options(options)) if kind == "bpf" => program = Some(self::program(options)),
            _ => {}
        }
    }
    (!kind.is_empty()).then_some((kind, program))
}

fn program(options: Vec<TcOption>) -> Program {
    let mut program = Program { id: None, name: None };
    for option in options {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => program.id = Some(id),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => program.name = Some(name),
            _ => {}
        }
    }
    program
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{LinkMessage, XdpAttached};

    use super::*;

    fn message(kind: &str, change: impl FnOnce(&mut TcMessage)) -> Answer {
        let mut message = TcMessage::with_index(7);
        message.attributes = vec![TcAttribute::Kind(kind.to_owned())];
        change(&mut message);
        Answer::with(&message)
    }

    fn parents(answer: &Answer) -> Vec<(u32, bool)> {
        hooks(answer).iter().map(|hook| (u32::from(hook.parent), hook.egress)).collect()
    }

    #[test]
    fn each_mode_of_xdp_has_its_own_program() {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.attributes = vec![LinkAttribute::Xdp(vec![
            LinkXdp::Attached(XdpAttached::Multiple),
            LinkXdp::DrvProgId(41),
            LinkXdp::SkbProgId(42),
        ])];
        let read: Vec<_> = xdp(&Answer::with(&message)).iter().map(|xdp| (xdp.ifindex.0, xdp.id, xdp.mode)).collect();
        assert_eq!(read, [(7, 41, XdpMode::Native), (7, 42, XdpMode::Generic)]);
    }

    #[test]
    fn only_disciplines_with_a_handle_have_hooks() {
        let root = |handle: u32| message("htb", |message| message.header.handle = handle.into());
        assert_eq!(parents(&message("clsact", |_| {})), [(0xffff_fff2, false), (0xffff_fff3, true)]);
        assert_eq!(parents(&message("ingress", |_| {})), [(0xffff_fff2, false)]);
        assert_eq!(parents(&root(0x0001_0000)), [(0x0001_0000, true)]);
        assert!(parents(&root(0)).is_empty());
    }

    const HOOK: Hook = Hook { ifindex: IfIndex(7), parent: TcHandle::CLSACT, egress: false };

    #[test]
    fn a_bpf_filter_names_its_program() {
        let answer = message("bpf", |message| {
            message.header.handle = 1.into();
            // Priority 9, protocol all.
            message.header.info = 0x0009_0300;
            message.attributes.push(TcAttribute::Options(vec![
                TcOption::Bpf(TcFilterBpfOption::ProgName("prog.o:[tc]".to_owned())),
                TcOption::Bpf(TcFilterBpfOption::ProgId(42)),
            ]));
        });
        let program = Program { id: Some(42), name: Some("prog.o:[tc]".to_owned()) };
        let expected =
            Filter { ifindex: IfIndex(7), egress: false, priority: 9, kind: "bpf".to_owned(), program: Some(program) };
        assert_eq!(filter(&answer, &HOOK), Some(expected));
    }

    #[test]
    fn the_head_of_a_list_of_filters_is_no_filter() {
        assert_eq!(filter(&message("u32", |message| message.header.info = 0x0009_0300), &HOOK), None);
    }
}
