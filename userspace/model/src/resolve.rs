//! What an operator typed, turned into one instance or a list of candidates. Flow: explain.
