//! The controller service against an API server in memory.

// A failed helper of a test is a failed test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod attachments;
mod bench;
mod external;
mod fake_api;
mod queries;
mod volumes;
