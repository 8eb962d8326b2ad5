//! The host (initiator) side of NVMe over Fabrics for one namespace, as state machines.
//!
//! A [`Host`] connects to a subsystem over one of several paths, finds a namespace by its UUID, and carries
//! reads, writes and the like to it. It has no socket and no clock: the rim tells it what happened
//! (`ready`, `completed`, `lost`, `tick`, each with the time) and does the [`Action`]s it asks for.
//!
//! Guaranteed:
//! - Every accepted request is done exactly once, with success, the target's final status, or
//!   [`IoError::PathLost`] once no path has worked for the time-out given. It is never failed before for want
//!   of a connection: what was in flight on a lost connection is sent again.
//! - A completion that belongs to no command in flight ends the connection, and changes nothing else.
//! - A flush covers every write that was done before it was submitted, as the target keeps it.
//!
//! Assumed: the target executes no command of a connection after it has accepted the next connection of the
//! same host; otherwise a write that was sent twice may land late. And what the target has completed it
//! keeps while it lives: a target that loses its volatile cache and comes back is not noticed.
//!
//! Left out: ANA states (a path-related status moves on to the next path), authentication, reservations.
//!
//! Section numbers refer to the NVM Express Base Specification 2.0c.

mod action;
mod admin;
mod backoff;
mod config;
mod flow;
mod host;
mod queue;
mod request;
mod setup;

pub use action::{Action, Command, PathReport, PathState, Payload};
pub use backoff::{BACKOFF_MAX, BACKOFF_MIN};
pub use config::{HostConfig, Identity, Limits, Wanted};
pub use host::Host;
pub use queue::{QUEUE_DEPTH_MAX, Transfer};
pub use request::{Done, IoError, Op, Refused, Request};
pub use setup::{NamespaceInfo, SetUpError};
