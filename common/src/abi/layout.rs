//! What must hold about the layout of the border types, checked when they are compiled for either side.
//!
//! A field that moves without [`crate::ABI_VERSION`] moving stops the build here. Under the feature `user` this file
//! also holds the `aya::Pod` lines; nothing else does.

use core::mem::offset_of;

use super::{
    event::{Counted, Header},
    value::Counter,
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

#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "`Pod` is an unsafe marker trait")]
mod user {
    use super::{Counted, Counter};

    // SAFETY: `repr(C)`, made of integers only, and without padding by the assertions above, so every byte pattern of
    // the right size is a valid value and no byte is ever uninitialised.
    unsafe impl aya::Pod for Counter {}

    // SAFETY: as for `Counter`.
    unsafe impl aya::Pod for Counted {}
}
