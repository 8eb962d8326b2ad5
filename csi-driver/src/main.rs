//! roadstead-csi

fn main() {}
