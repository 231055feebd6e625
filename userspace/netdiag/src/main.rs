//! Where do an instance's packets go, and where do they die?
fn main() {}
