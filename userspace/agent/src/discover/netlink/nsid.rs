//! What `link_netnsid` of a link means (`RTM_GETNSID`): which namespace another one knows by a number. Flow: discover.
//!
//! The kernel tells the number of a namespace it is shown, not the namespace of a number, so candidates are shown to it
//! until every number that links refer to is explained. On a compute host nearly all lead to the host's namespace, which
//! is shown first; after that only those that have the right link, so that hundreds of namespaces are not each shown to
//! each.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    os::fd::AsRawFd as _,
};

use netdiag_model::{
    fact::LinkFact,
    id::{IfIndex, NetnsId},
};
use netlink_packet_core::{Emitable as _, Parseable as _};
use netlink_packet_route::{
    RouteNetlinkMessage,
    nsid::{NsidAttribute, NsidHeader, NsidMessage},
};

use super::connection::{Answer, Connection, RequestError};
use crate::netns::Namespace;

/// Kinds of links that come in pairs, of which each names the other.
const PAIRS: [&str; 3] = ["veth", "netkit", "vxcan"];

/// The numbers one namespace gives to others, as far as known.
pub(super) struct Numbers {
    /// Explained.
    pub(super) known: BTreeMap<i32, NetnsId>,
    /// Referred to by a link and not explained yet.
    wanted: BTreeSet<i32>,
}

impl Numbers {
    /// Wants the numbers that links refer to. A negative one stands for a namespace the kernel could not number.
    pub(super) fn wanted_by(links: &[LinkFact]) -> Self {
        let wanted = links.iter().filter_map(|link| link.link_netnsid).filter(|number| *number >= 0).collect();
        Self { known: BTreeMap::new(), wanted }
    }

    /// True where nothing is left to explain.
    pub(super) fn are_known(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Shows candidates to the kernel until nothing is left to explain.
    pub(super) async fn ask(
        &mut self,
        connection: &Connection,
        candidates: impl IntoIterator<Item = &Namespace>,
    ) -> Result<(), RequestError> {
        for candidate in candidates {
            if self.are_known() {
                break;
            }
            let answer = connection.get(request(candidate)).await?;
            if let Some(number) = number(&answer)
                && self.wanted.remove(&number)
            {
                self.known.insert(number, candidate.id);
            }
        }
        Ok(())
    }
}

/// Asks for the number of a namespace.
fn request(namespace: &Namespace) -> RouteNetlinkMessage {
    let mut message = NsidMessage::default();
    // Descriptors are never negative.
    message.attributes = vec![NsidAttribute::Fd(namespace.as_file().as_raw_fd().unsigned_abs())];
    RouteNetlinkMessage::GetNsId(message)
}

/// The number in an answer; none where the namespace has no number, which the kernel says with -1.
fn number(answer: &Answer) -> Option<i32> {
    answer.attributes(NsidHeader::default().buffer_len()).find_map(|nla| match NsidAttribute::parse(&nla) {
        Ok(NsidAttribute::Id(number)) if number >= 0 => Some(number),
        _ => None,
    })
}

/// Which namespaces have a link that could be the other end of one.
pub(super) struct Ends {
    /// By index, and by the index the link itself refers to.
    pairs: HashMap<(IfIndex, IfIndex), Vec<NetnsId>>,
    /// By index.
    all: HashMap<IfIndex, Vec<NetnsId>>,
}

impl Ends {
    /// Notes all links of all namespaces.
    pub(super) fn of<'links>(networks: impl IntoIterator<Item = (NetnsId, &'links [LinkFact])>) -> Self {
        let (mut pairs, mut all) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for (netns, links) in networks {
            for link in links {
                all.entry(link.ifindex).or_default().push(netns);
                if let Some(other) = link.link {
                    pairs.entry((link.ifindex, other)).or_default().push(netns);
                }
            }
        }
        Self { pairs, all }
    }

    /// The namespaces the unexplained numbers of some links can stand for.
    pub(super) fn candidates(&self, links: &[LinkFact], numbers: &Numbers) -> BTreeSet<NetnsId> {
        let unexplained = |link: &&LinkFact| link.link_netnsid.is_some_and(|number| numbers.wanted.contains(&number));
        links.iter().filter(unexplained).flat_map(|link| self.other_ends(link)).copied().collect()
    }

    fn other_ends(&self, link: &LinkFact) -> &[NetnsId] {
        let Some(other) = link.link else { return &[] };
        let is_pair = link.kind.as_deref().is_some_and(|kind| PAIRS.contains(&kind));
        let ends = if is_pair { self.pairs.get(&(other, link.ifindex)) } else { self.all.get(&other) };
        ends.map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn netns(inode: u64) -> NetnsId {
        NetnsId { inode, cookie: inode }
    }

    fn link(kind: &str, ifindex: u32, other: Option<u32>, number: Option<i32>) -> LinkFact {
        LinkFact {
            ifindex: IfIndex(ifindex),
            kind: Some(kind.to_owned()),
            link: other.map(IfIndex),
            link_netnsid: number,
            ..LinkFact::default()
        }
    }

    fn answered(id: i32) -> Option<i32> {
        let mut message = NsidMessage::default();
        message.attributes = vec![NsidAttribute::Id(id)];
        number(&Answer::with(&message))
    }

    #[test]
    fn a_namespace_without_a_number_has_none() {
        assert_eq!(answered(3), Some(3));
        assert_eq!(answered(-1), None);
    }

    #[test]
    fn only_numbers_of_links_are_wanted() {
        let links =
            [link("veth", 2, Some(9), Some(0)), link("veth", 3, Some(4), None), link("vxlan", 5, None, Some(-1))];
        let numbers = Numbers::wanted_by(&links);
        assert_eq!(numbers.wanted, BTreeSet::from([0]));
        assert!(Numbers::wanted_by(&links[1..]).are_known());
    }

    #[test]
    fn the_candidates_for_a_veth_are_the_namespaces_with_its_other_end() {
        let here = [link("veth", 2, Some(9), Some(0))];
        let right = [link("veth", 9, Some(2), Some(1))];
        let same_index = [link("veth", 9, Some(3), Some(1))];
        let ends = Ends::of([(netns(1), &here[..]), (netns(2), &right[..]), (netns(3), &same_index[..])]);
        assert_eq!(ends.candidates(&here, &Numbers::wanted_by(&here)), BTreeSet::from([netns(2)]));
    }

    #[test]
    fn the_candidates_for_a_macvlan_are_the_namespaces_with_its_lower_device() {
        let here = [link("macvlan", 2, Some(9), Some(0))];
        let lower = [link("bond", 9, None, None)];
        let other = [link("bond", 8, None, None)];
        let ends = Ends::of([(netns(1), &here[..]), (netns(2), &lower[..]), (netns(3), &other[..])]);
        assert_eq!(ends.candidates(&here, &Numbers::wanted_by(&here)), BTreeSet::from([netns(2)]));
    }

    #[test]
    fn what_is_known_already_has_no_candidates() {
        let here = [link("veth", 2, Some(9), Some(0))];
        let there = [link("veth", 9, Some(2), Some(1))];
        let ends = Ends::of([(netns(1), &here[..]), (netns(2), &there[..])]);
        let known = Numbers { known: BTreeMap::from([(0, netns(2))]), wanted: BTreeSet::new() };
        assert!(ends.candidates(&here, &known).is_empty());
    }
}
