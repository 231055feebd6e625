//! Placeholder until the source is written.

use netdiag_model::fact::{Facts, SourceKind};

use super::{Options, report};
use crate::netns::Namespace;

/// Reads nothing yet.
pub(super) async fn read(_options: &Options) -> (Vec<Namespace>, Facts) {
    (Vec::new(), report(SourceKind::Netns, "not read".to_owned(), Vec::new()))
}
