//! roadstead-target
