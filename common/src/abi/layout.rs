//! What must hold about the layout of the border types, checked when they are compiled for either side.
//!
//! A field that moves without [`crate::ABI_VERSION`] moving stops the build here. Under the feature `user` this file
//! also holds the `aya::Pod` lines; nothing else does.

use core::mem::offset_of;

use super::{
    event::{Counted, Decided, Header},
    floating::{Floating, FloatingKey, Hop, HopKey, Leaving, LeavingKey, StationKey},
    flow::{Flow, FlowKey4, FlowKey6, Fragment, FragmentKey},
    live,
    policy::{GrantKey, Label, MacKey, Page, PairKey, Port, Protocol, RemoteKey4, RemoteKey6, Settings, Side, View},
    value::{Budget, Counter, Losses, Tally},
};

/// Size and alignment of a type, and where each of its fields starts.
macro_rules! assert_layout {
    ($type:ty: $size:literal bytes aligned to $align:literal { $($field:ident at $offset:literal),+ $(,)? }) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            assert!(align_of::<$type>() == $align);
            $(assert!(offset_of!($type, $field) == $offset);)+
        };
    };
}

assert_layout!(Counter: 24 bytes aligned to 8 { packets at 0, bytes at 8, lost at 16 });
assert_layout!(Header: 8 bytes aligned to 4 { version at 0, kind at 2, pad at 3, ifindex at 4 });
assert_layout!(Counted: 40 bytes aligned to 8 { header at 0, length at 8, pad at 12, counter at 16 });

assert_layout!(Decided: 72 bytes aligned to 8 {
    header at 0, time at 8, source at 16, destination at 32, source_port at 48, destination_port at 50, rule at 52,
    slot at 56, length at 60, ethertype at 64, protocol at 66, reason at 67, flags at 68, pad at 69,
});
assert_layout!(Tally: 16 bytes aligned to 8 { packets at 0, bytes at 8 });
assert_layout!(Losses: 16 bytes aligned to 8 { suppressed at 0, lost at 8 });
assert_layout!(Budget: 8 bytes aligned to 4 { tick at 0, used at 4 });
assert_layout!(Port: 84 bytes aligned to 4 {
    flags at 0, policy at 4, epoch at 8, mac at 12, pad at 18, ipv4 at 20, ipv6 at 36,
});
assert_layout!(MacKey: 12 bytes aligned to 4 { slot at 0, mac at 4, pad at 10 });
assert_layout!(PairKey: 28 bytes aligned to 4 { slot at 0, mac at 4, family at 10, pad at 11, address at 12 });
assert_layout!(View: 72 bytes aligned to 4 { generation at 0, flags at 4, sides at 8 });
assert_layout!(Side: 16 bytes aligned to 4 { services at 0, grants at 4, hosts at 8, prefixes at 12 });
assert_layout!(Protocol: 8 bytes aligned to 4 { whole at 0, directory at 4 });
assert_layout!(GrantKey: 12 bytes aligned to 4 { grants at 0, remote at 4, class at 8 });
assert_layout!(RemoteKey4: 8 bytes aligned to 4 { set at 0, address at 4 });
assert_layout!(RemoteKey6: 20 bytes aligned to 4 { set at 0, address at 4 });
assert_layout!(Settings: 24 bytes aligned to 4 { abi at 0, events_per_second at 4, ethertypes at 8 });
assert_layout!(FlowKey4: 16 bytes aligned to 4 {
    local at 0, remote at 4, local_port at 8, remote_port at 10, slot at 12, protocol at 14, pad at 15,
});
assert_layout!(FlowKey6: 40 bytes aligned to 4 {
    local at 0, remote at 16, local_port at 32, remote_port at 34, slot at 36, protocol at 38, pad at 39,
});
assert_layout!(Flow: 24 bytes aligned to 4 {
    generation at 0, epoch at 4, seen at 8, born at 12, rule at 16, service at 20, state at 22, flags at 23,
});
assert_layout!(FragmentKey: 40 bytes aligned to 4 {
    source at 0, destination at 16, id at 32, slot at 36, protocol at 38, ingress at 39,
});
assert_layout!(Fragment: 16 bytes aligned to 4 {
    local_port at 0, remote_port at 2, service at 4, kind at 6, pad at 7, seen at 8, epoch at 12,
});
assert_layout!(FloatingKey: 12 bytes aligned to 4 { device at 0, vlan at 4, address at 8 });
assert_layout!(Floating: 44 bytes aligned to 4 {
    flags at 0, fixed at 4, slot at 8, epoch at 12, device at 16, mtu at 20, outer_mac at 24, destination_mac at 30,
    source_mac at 36, hops at 42,
});
assert_layout!(LeavingKey: 8 bytes aligned to 4 { slot at 0, fixed at 4 });
assert_layout!(Leaving: 44 bytes aligned to 4 {
    flags at 0, fixed at 4, floating at 8, epoch at 12, router at 16, device at 20, mtu at 24, vlan at 28, hops at 30,
    inner_mac at 32, outer_mac at 38,
});
assert_layout!(StationKey: 12 bytes aligned to 4 { network at 0, mac at 4, pad at 10 });
assert_layout!(HopKey: 8 bytes aligned to 4 { router at 0, address at 4 });
assert_layout!(Hop: 12 bytes aligned to 4 { kind at 0, mac at 4, pad at 10 });
assert_layout!(live::Seen: 248 bytes aligned to 8 {
    time at 0, buffer at 8, cookie at 16, location at 24, inode at 32, ifindex at 36, length at 40, mark at 44, cpu at 48,
    reason at 52, tag at 56, known at 58, kind at 60, flags at 61, pad at 62, head at 64,
});
assert_layout!(live::End: 40 bytes aligned to 4 { address at 0, mask at 16, first_port at 32, more_ports at 36 });
assert_layout!(live::Clause: 96 bytes aligned to 4 {
    here at 0, there at 40, ethertype at 80, ethertype_mask at 82, protocol at 84, protocol_mask at 86, family at 88,
    family_mask at 90, flags at 92,
});
assert_layout!(live::Product: 4 bytes aligned to 2 { covered at 0, uncovered at 2 });
assert_layout!(live::Config: 1656 bytes aligned to 4 {
    clauses at 0, products at 4, budget at 8, tick_shift at 12, generation at 16, flags at 20, clause at 24, product at 1560,
    given_up_in at 1624,
});
assert_layout!(live::Tally: 2112 bytes aligned to 8 {
    next at 0, until at 8, records at 16, throttled at 24, lost at 32, pad at 40, answers at 64,
});
assert_layout!(live::Layout: 108 bytes aligned to 4 { skb_dev at 0, consumed at 100, receiver at 104 });
const _: () = assert!(size_of::<Page>() == 1024 && size_of::<Label>() == 64);

#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "`Pod` is an unsafe marker trait")]
mod user {
    use super::{
        Budget, Counted, Counter, Decided, Floating, FloatingKey, Flow, FlowKey4, FlowKey6, Fragment, FragmentKey,
        GrantKey, Hop, HopKey, Label, Leaving, LeavingKey, Losses, MacKey, Page, PairKey, Port, Protocol, RemoteKey4,
        RemoteKey6, Settings, StationKey, Tally, View, live,
    };

    /// The one reason all of them are safe for.
    macro_rules! pod {
        ($($type:ty),+ $(,)?) => {
            $(
                // SAFETY: `repr(C)`, made of integers only, and without padding by the assertions above, so every byte
                // pattern of the right size is a valid value and no byte is ever uninitialised.
                unsafe impl aya::Pod for $type {}
            )+
        };
    }

    pod!(
        Budget,
        Counted,
        Counter,
        Decided,
        Floating,
        FloatingKey,
        Flow,
        FlowKey4,
        FlowKey6,
        Fragment,
        FragmentKey,
        GrantKey,
        Hop,
        HopKey,
        Label,
        Leaving,
        LeavingKey,
        Losses,
        MacKey,
        Page,
        PairKey,
        Port,
        Protocol,
        RemoteKey4,
        RemoteKey6,
        Settings,
        StationKey,
        Tally,
        View,
        live::Config,
        live::Layout,
        live::Tally,
    );
}
