//! roadstead-attach
