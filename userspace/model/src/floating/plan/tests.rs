//! Plans of hosts built by hand, and of the hosts of the lab.

/// Hosts of the lab.
mod lab;
