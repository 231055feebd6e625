//! Where a hop stands, in words.

use netdiag_model::trace::{Hop, HopKind, InterfaceTrace};

/// The namespace a hop stands in. The instance stands in its own, a guest in itself; what lies beyond this host stands
/// outside, whichever namespace knows of it.
pub(crate) fn of(interface: &InterfaceTrace, hop: &Hop) -> String {
    if matches!(hop.kind, HopKind::NextHop | HopKind::Outside) {
        return "outside".to_owned();
    }
    let inside = matches!(hop.kind, HopKind::Instance | HopKind::Namespace | HopKind::InnerDevice);
    let netns = hop.netns.as_ref().or(if inside { interface.netns.as_ref() } else { None });
    match netns {
        Some(netns) => netns.label.clone(),
        None if inside => "guest".to_owned(),
        None => "place unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use netdiag_model::trace::{Hop, HopKind};

    use crate::fixtures;

    #[test]
    fn the_next_hop_is_outside_although_the_router_knows_it() {
        let healthy = fixtures::healthy();
        let interface = &healthy.interfaces[0];
        let router = interface.router.as_ref().map(|router| router.netns.clone());
        let place = |kind| super::of(interface, &Hop { kind, netns: router.clone(), ..Hop::default() });
        assert_eq!(place(HopKind::NextHop), "outside");
        assert_eq!(place(HopKind::Nat), interface.router.as_ref().unwrap().netns.label);
    }

    #[test]
    fn a_guest_stands_in_itself() {
        let broken = fixtures::broken();
        let hop = Hop { kind: HopKind::Instance, ..Hop::default() };
        assert_eq!(super::of(&broken.interfaces[0], &hop), "guest");
    }
}
