//! roadstead-ring
