//! roadstead-operator

fn main() {}
