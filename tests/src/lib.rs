//! Harness for tests on a real kernel.
