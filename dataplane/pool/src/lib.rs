//! roadstead-pool
