//! The `confman` binary.
fn main() {}
