//! lingerd
fn main() {}
