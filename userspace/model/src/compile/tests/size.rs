//! Which numbers are kept, and what little a small change costs.
