//! roadstead-crds
