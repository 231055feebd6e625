//! Facts joined into one picture of the host. Flow: discover.
