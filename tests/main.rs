//! End to end: starts the real binary and speaks to it as its users do.
fn main() {}
