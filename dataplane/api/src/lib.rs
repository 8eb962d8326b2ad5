//! roadstead-api
