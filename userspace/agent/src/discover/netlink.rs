//! Placeholder until the source is written.

use netdiag_model::fact::{Facts, SourceKind};

use super::{Scope, report};

/// Reads nothing yet.
pub(super) async fn read(_scope: &Scope) -> Facts {
    report(SourceKind::Netlink, "not read".to_owned(), Vec::new())
}
