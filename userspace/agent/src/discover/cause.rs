//! An error in one line, its causes included, for the `why` of a gap. Flow: discover.

use std::error::Error;

/// The error and what caused it, from the outside in; a cause its error already quotes is not said twice.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text.extend([": ", &words]);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::chain;
    use crate::ovsdb::OvsdbError;
    use std::io;

    #[test]
    fn every_cause_is_named_once() {
        let source = io::Error::other(io::Error::other("inner"));
        let error = OvsdbError::Io { method: "echo", source };
        assert_eq!(chain(&error), "echo: the connection broke: inner");
    }
}
