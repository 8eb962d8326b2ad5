//! roadstead-initiator
