//! Reservations of a namespace (section 8.19).
//!
//! * [`state::State`]: who is registered and who holds what; no lock, no I/O.
//! * [`Reservations`]: the state as all controllers share it. I/O looks at one counter.
//! * [`Views`]: what one I/O queue's host may do.

mod bytes;
mod report;
mod shared;
mod state;
mod views;

pub use bytes::Malformed;
pub(crate) use shared::Changed;
pub use shared::Reservations;
pub(crate) use state::{Effects, HostId};
pub(crate) use views::{Need, Views};

#[cfg(test)]
mod tests;
