//! The host (initiator) side of NVMe over Fabrics for one namespace, as state machines.
//!
//! A [`Host`] connects to a subsystem over all of its paths at once, finds a namespace by its UUID, and carries
//! reads, writes and the like to it. It has no socket and no clock: the rim tells it what happened
//! (`ready`, `completed`, `lost`, `tick`, each with the time) and does the [`Action`]s it asks for.
//!
//! Paths: each has a controller of its own. Commands go over the paths in the best ANA state (optimized before
//! non-optimized before none), by [`PathPolicy`]. What was in flight on a lost path, or was answered with a
//! path-related status, goes to another path at once. Times mean what they mean to Linux: see [`Limits`]. Paths may come
//! and go while the namespace is in use: [`Host::want`].
//!
//! Guaranteed:
//! - Every accepted request is done exactly once, with success, the target's final status, or
//!   [`IoError::PathLost`] once there is no path left to wait for. It is never failed before for want
//!   of a connection: what was in flight on a lost connection is sent again.
//! - A copy of a write that may still be under way on a lost path undoes no newer one: other writes to its blocks
//!   wait until it cannot take effect any more.
//! - A completion that belongs to no command in flight ends the connection, and changes nothing else.
//! - A flush covers every write that was done before it was submitted, whatever path it took. If the target tells that
//!   it may have lost some, flushes fail with [`IoError::CacheLost`].
//!
//! Assumed: the target executes no command of a controller after it has accepted the next controller of the
//! same host over the same path, nor after the keep-alive timer of the controller has run out twice and it has
//! quiesced; a flush through one controller covers what was written through all of them; and what the target has
//! completed it keeps, unless it tells otherwise: of targets that tell nothing, a lost volatile cache is not noticed.
//!
//! A [`Discovery`] asks a discovery service what a host may use, a [`Listing`] a subsystem for its namespaces.
//!
//! A controller that demands it is authenticated to, by DH-HMAC-CHAP: see [`AuthError`]. Its random numbers are the only thing
//! that the rim does not bring.
//!
//! Left out: TLS, reservations.
//!
//! Section numbers refer to the NVM Express Base Specification 2.0c.

mod action;
mod admin;
mod ana;
mod association;
mod auth;
mod backoff;
mod cache;
mod choice;
mod config;
mod discovery;
mod flow;
mod ghost;
mod host;
mod listing;
mod path;
mod queue;
mod request;
mod setup;

pub use action::{Action, Command, Epoch, PathReport, PathState, Payload, Traffic};
pub use admin::{Control, Names, nguid_text};
pub use auth::AuthError;
pub use backoff::BACKOFF_MIN;
pub use config::{HostConfig, Identity, Limits, PathPolicy, Wanted};
pub use discovery::{DISCOVERY_RECORDS_MAX, Discovery, DiscoveryEntry, DiscoveryStep};
pub use host::Host;
pub use listing::{LISTED_MAX, Listed, Listing, ListingStep};
pub use queue::{QUEUE_DEPTH_MAX, Transfer, slot_of};
pub use request::{Done, IoError, Op, Refused, Request};
pub use setup::{NamespaceInfo, READY_POLL, SetUpError};
