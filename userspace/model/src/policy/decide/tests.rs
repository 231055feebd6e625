//! The reference evaluator, case by case: the rows of what Neutron's drivers do, and every reason there is.

mod bench;
mod flows;
mod fragments;
mod headers;
mod rules;
mod system;
