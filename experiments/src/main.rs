//! The runner's binary.
fn main() {}
