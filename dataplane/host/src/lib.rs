//! roadstead-host
