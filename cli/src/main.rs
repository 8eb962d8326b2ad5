//! roadstead

fn main() {}
