//! XDP, TCX and TC programs on the links of every namespace. Flow: discover.
//!
//! XDP programs and TC filters are attributes of netlink; TCX programs (Linux 6.6) are asked for by `BPF_PROG_QUERY`,
//! from inside the namespace, because it looks the link up in the namespace of whoever asks. A kernel without TCX has no
//! TCX programs, which is no gap.

use std::collections::BTreeMap;

use aya::{
    programs::{
        ProgramError, loaded_programs,
        tc::{SchedClassifier, TcAttachType, TcError},
    },
    sys::SyscallError,
};
use netdiag_model::{
    fact::{Facts, Gap, ProgramFact, ProgramHook, SourceKind},
    id::{IfIndex, NetnsId},
};

use super::{
    Scope, chain,
    netlink::attachments::{self, Attachments, ConnectError, Filter, Xdp},
    report,
};
use crate::netns::{Namespace, in_each};

/// `BPF_PROG_TYPE_SCHED_CLS` of `linux/bpf.h`: the kind of program TCX takes.
const SCHED_CLS: u32 = 3;

/// How often a link is asked for its programs when one of them goes between the list and the look at it.
const ATTEMPTS: usize = 3;

/// Reads every namespace.
pub(super) async fn read(scope: &Scope) -> Facts {
    let loaded = tokio::task::spawn_blocking(loaded).await.map_err(|error| error.to_string()).and_then(|loaded| loaded);
    // Where nothing is loaded that could be attached, a thread in every namespace to ask for it is saved.
    let ask_for_tcx = loaded.as_ref().map_or(true, |loaded| loaded.classifiers);
    let results = in_each(&scope.namespaces, scope.deadline, |namespace| read_one(namespace, ask_for_tcx)).await;
    let mut read = Read::default();
    for (namespace, result) in scope.namespaces.iter().zip(results) {
        match result {
            Ok((attachments, tcx)) => read.add(namespace.id, attachments, tcx),
            Err(error) => read.refuse("programs", Some(namespace.id), chain(&error)),
        }
    }
    read.name_programs(loaded);
    let how = format!("rtnetlink and BPF_PROG_QUERY in {} namespaces", scope.namespaces.len());
    Facts { programs: read.programs, ..report(SourceKind::Bpf, how, gaps(read.refused)) }
}

type Attached = (Attachments, Result<Vec<Tcx>, String>);

async fn read_one(namespace: Namespace, ask_for_tcx: bool) -> Result<Attached, ConnectError> {
    let attachments = attachments::read(&namespace).await?;
    let links = attachments.links.clone();
    let tcx = if ask_for_tcx { namespace.run(move || tcx_of_all(&links)).await? } else { Ok(Vec::new()) };
    Ok((attachments, tcx))
}

/// What the kernel has loaded, attached or not.
struct Loaded {
    /// Names by id; programs without one are left out.
    names: BTreeMap<u32, String>,
    /// There is a program that could be attached to TCX.
    classifiers: bool,
}

fn loaded() -> Result<Loaded, String> {
    let mut loaded = Loaded { names: BTreeMap::new(), classifiers: false };
    for info in loaded_programs() {
        match info {
            Ok(info) => {
                loaded.classifiers |= info.program_type() as u32 == SCHED_CLS;
                if !info.name().is_empty() {
                    loaded.names.insert(info.id(), String::from_utf8_lossy(info.name()).into_owned());
                }
            }
            // It was unloaded while it was looked at.
            Err(error) if errno(&error) == Some(libc::ENOENT) => {}
            Err(error) => return Err(chain(&error)),
        }
    }
    Ok(loaded)
}

// === TCX ===

/// A TCX program on a link.
struct Tcx {
    ifindex: IfIndex,
    hook: ProgramHook,
    id: u32,
    name: String,
}

/// The TCX programs of links of the calling thread's namespace, or why they cannot be had.
fn tcx_of_all(links: &[(IfIndex, String)]) -> Result<Vec<Tcx>, String> {
    const HOOKS: [(TcAttachType, ProgramHook); 2] =
        [(TcAttachType::Ingress, ProgramHook::TcxIngress), (TcAttachType::Egress, ProgramHook::TcxEgress)];
    let mut programs = Vec::new();
    for (ifindex, link) in links {
        for (attach_type, hook) in HOOKS {
            match tcx(link, attach_type) {
                Ok(found) => {
                    programs.extend(found.into_iter().map(|(id, name)| Tcx { ifindex: *ifindex, hook, id, name }));
                }
                Err(error) => match errno(&error) {
                    // The kernel knows no TCX.
                    Some(libc::EINVAL) => return Ok(Vec::new()),
                    // The link or the program went while it was looked at.
                    Some(libc::ENODEV | libc::ENXIO | libc::ENOENT) => {}
                    _ => return Err(chain(&error)),
                },
            }
        }
    }
    Ok(programs)
}

/// Id and name of the programs at one hook of one link, in the order they run.
fn tcx(link: &str, attach_type: TcAttachType) -> Result<Vec<(u32, String)>, ProgramError> {
    let mut result = SchedClassifier::query_tcx(link, attach_type);
    for _ in 1..ATTEMPTS {
        if !result.as_ref().is_err_and(|error| errno(error) == Some(libc::ENOENT)) {
            break;
        }
        result = SchedClassifier::query_tcx(link, attach_type);
    }
    let (_, programs) = result?;
    Ok(programs.iter().map(|info| (info.id(), String::from_utf8_lossy(info.name()).into_owned())).collect())
}

fn errno(error: &ProgramError) -> Option<i32> {
    let (ProgramError::SyscallError(SyscallError { io_error, .. }) | ProgramError::TcError(TcError::IoError(io_error))) =
        error
    else {
        return None;
    };
    io_error.raw_os_error()
}

// === facts ===

/// What was read of all namespaces.
#[derive(Default)]
struct Read {
    programs: Vec<ProgramFact>,
    /// What was refused, by kind and cause, and where: one refusal for all namespaces is one gap.
    refused: BTreeMap<(String, String), Vec<Option<NetnsId>>>,
}

impl Read {
    fn add(&mut self, netns: NetnsId, attachments: Attachments, tcx: Result<Vec<Tcx>, String>) {
        let Attachments { links: _, xdp, filters, unread } = attachments;
        self.programs.extend(xdp.iter().map(|xdp| xdp_fact(netns, xdp)));
        match tcx {
            Ok(programs) => self.programs.extend(programs.into_iter().map(|tcx| tcx_fact(netns, tcx))),
            Err(why) => self.refuse("TCX programs", Some(netns), why),
        }
        self.programs.extend(filters.into_iter().map(|filter| filter_fact(netns, filter)));
        for (object, why) in unread {
            self.refuse(object, Some(netns), why);
        }
    }

    fn refuse(&mut self, object: &str, netns: Option<NetnsId>, why: String) {
        self.refused.entry((object.to_owned(), why)).or_default().push(netns);
    }

    /// Gives programs known by their id the name the kernel has for them.
    fn name_programs(&mut self, loaded: Result<Loaded, String>) {
        match loaded {
            Ok(loaded) => {
                for fact in &mut self.programs {
                    if let Some(name) = fact.id.and_then(|id| loaded.names.get(&id)) {
                        fact.name.clone_from(name);
                    }
                }
            }
            Err(_) if self.programs.iter().all(|fact| fact.id.is_none()) => {}
            Err(why) => self.refuse("names of programs", None, why),
        }
    }
}

fn xdp_fact(netns: NetnsId, xdp: &Xdp) -> ProgramFact {
    ProgramFact {
        netns,
        ifindex: xdp.ifindex,
        hook: ProgramHook::Xdp,
        id: Some(xdp.id),
        name: String::new(),
        priority: None,
        xdp_mode: Some(xdp.mode),
    }
}

fn tcx_fact(netns: NetnsId, tcx: Tcx) -> ProgramFact {
    let Tcx { ifindex, hook, id, name } = tcx;
    ProgramFact { netns, ifindex, hook, id: Some(id), name, priority: None, xdp_mode: None }
}

fn filter_fact(netns: NetnsId, filter: Filter) -> ProgramFact {
    let Filter { ifindex, egress, priority, kind, program } = filter;
    let (id, name) = program.map_or((None, None), |program| (program.id, program.name));
    ProgramFact {
        netns,
        ifindex,
        hook: if egress { ProgramHook::TcEgress } else { ProgramHook::TcIngress },
        id,
        name: name.unwrap_or(kind),
        priority: Some(priority),
        xdp_mode: None,
    }
}

fn gaps(refused: BTreeMap<(String, String), Vec<Option<NetnsId>>>) -> Vec<Gap> {
    let gap = |((object, why), places): ((String, String), Vec<Option<NetnsId>>)| {
        let (netns, object) = match places[..] {
            [Some(netns)] => (Some(netns), format!("{object} of {netns}")),
            [None] => (None, object),
            _ => (None, format!("{object} of {} namespaces", places.len())),
        };
        let fix = "run as root, or with CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_BPF".to_owned();
        Gap { source: SourceKind::Bpf, netns, object, why, fix, absent: false }
    };
    refused.into_iter().map(gap).collect()
}

#[cfg(test)]
mod tests {
    use netdiag_model::fact::XdpMode;

    use super::*;
    use crate::discover::netlink::attachments::Program;

    const ONE: NetnsId = NetnsId { inode: 1, cookie: 1 };
    const OTHER: NetnsId = NetnsId { inode: 2, cookie: 2 };

    fn filter(kind: &str, program: Option<Program>) -> ProgramFact {
        let filter = Filter { ifindex: IfIndex(7), egress: true, priority: 9, kind: kind.to_owned(), program };
        filter_fact(ONE, filter)
    }

    #[test]
    fn a_filter_without_a_program_is_named_by_its_kind() {
        let fact = filter("flower", None);
        assert_eq!(
            (fact.name.as_str(), fact.id, fact.priority, fact.hook),
            ("flower", None, Some(9), ProgramHook::TcEgress)
        );
    }

    #[test]
    fn a_filter_with_a_program_is_named_as_its_loader_named_it() {
        let fact = filter("bpf", Some(Program { id: Some(42), name: Some("prog.o:[tc]".to_owned()) }));
        assert_eq!((fact.name.as_str(), fact.id), ("prog.o:[tc]", Some(42)));
    }

    #[test]
    fn an_xdp_program_has_a_mode() {
        let fact = xdp_fact(ONE, &Xdp { ifindex: IfIndex(7), id: 42, mode: XdpMode::Generic });
        assert_eq!((fact.hook, fact.xdp_mode), (ProgramHook::Xdp, Some(XdpMode::Generic)));
    }

    #[test]
    fn one_refusal_everywhere_is_one_gap() {
        let mut read = Read::default();
        for netns in [ONE, OTHER] {
            read.add(netns, Attachments::default(), Err("Operation not permitted (os error 1)".to_owned()));
        }
        read.refuse("TC filters", Some(ONE), "No such device (os error 19)".to_owned());
        let objects: Vec<_> = gaps(read.refused).into_iter().map(|gap| (gap.object, gap.netns)).collect();
        let expected =
            [("TC filters of net:[1]".to_owned(), Some(ONE)), ("TCX programs of 2 namespaces".to_owned(), None)];
        assert_eq!(objects, expected);
    }
}
