//! What is on a device before we take it.

pub mod signature;
