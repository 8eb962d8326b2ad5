//! roadsteadd

fn main() {}
