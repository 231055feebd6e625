//! Laws of the compiler, tried on random policies.

mod again;
mod invariants;
mod meaning;
mod numbers;
mod size;
mod world;
