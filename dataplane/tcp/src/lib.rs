//! roadstead-tcp
