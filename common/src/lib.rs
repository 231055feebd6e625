//! What both sides of the kernel border must agree on.
#![no_std]
