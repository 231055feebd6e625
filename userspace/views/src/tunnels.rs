//! Many tunnels as a few.
//!
//! Every host of a mesh has a tunnel to every other, and all of them carry the network. A page of tunnels that are well
//! hides the one that is not, so of those only the first few are named.

use netdiag_model::trace::{Hop, HopKind, HopState};

/// Tunnels that are well and named all the same.
const NAMED: usize = 4;

/// What to show of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    /// A hop.
    Hop(&'a Hop),
    /// So many tunnels that are well, from this one on; others may lie between them.
    More(&'a Hop, usize),
}

/// The hops of a path in their order. What is left out of many tunnels stands where the last of them did.
pub(crate) fn summary(hops: Vec<&Hop>) -> Vec<Entry<'_>> {
    let well = |hop: &Hop| hop.kind == HopKind::Tunnel && hop.state == HopState::Ok;
    let left_out: Vec<usize> = (0..hops.len()).filter(|at| well(hops[*at])).skip(NAMED).collect();
    let (&[first, .., last], more) = (&left_out[..], left_out.len()) else {
        return hops.into_iter().map(Entry::Hop).collect();
    };
    let shown = hops.iter().enumerate().filter_map(|(at, hop)| match at {
        _ if at == last => Some(Entry::More(hops[first], more)),
        _ if left_out.contains(&at) => None,
        _ => Some(Entry::Hop(hop)),
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use netdiag_model::trace::{Hop, HopKind, HopState};

    use super::{Entry, summary};

    fn mesh(tunnels: usize) -> Vec<Hop> {
        let bridge = Hop { kind: HopKind::OvsBridge, state: HopState::Ok, ..Hop::default() };
        let tunnel = |at: usize| Hop { kind: HopKind::Tunnel, state: HopState::Ok, number: at + 2, ..Hop::default() };
        std::iter::once(bridge).chain((0..tunnels).map(tunnel)).collect()
    }

    #[test]
    fn few_tunnels_are_all_named() {
        let hops = mesh(5);
        let shown = summary(hops.iter().collect());
        assert_eq!(shown, hops.iter().map(Entry::Hop).collect::<Vec<_>>());
    }

    #[test]
    fn the_broken_tunnel_of_a_mesh_is_named_and_the_others_counted() {
        let mut hops = mesh(100);
        hops[60].state = HopState::Broken;
        let shown = summary(hops.iter().collect());
        let named: Vec<Entry<'_>> = [0, 1, 2, 3, 4, 60].map(|at| Entry::Hop(&hops[at])).into();
        assert_eq!(shown[..6], named);
        assert_eq!(shown[6..], [Entry::More(&hops[5], 95)]);
    }
}
