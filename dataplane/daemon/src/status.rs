//! What the reconciler tells the rest of the daemon: plain values and handles to live numbers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use roadstead_api::v1;
use roadstead_pool::{DriveHandle, Volume};
use uuid::Uuid;

/// The node after the last step. Replaced as a whole; never changed in place.
#[derive(Clone, Default)]
pub(crate) struct Status {
    /// The last state that was worked on to the end.
    pub(crate) applied_revision: String,
    /// Whether there is a state to work on.
    pub(crate) has_state: bool,
    /// Whether a state was ever worked on to the end since the start.
    pub(crate) is_settled: bool,
    pub(crate) drives: Vec<DriveStatus>,
    pub(crate) volumes: Vec<VolumeStatus>,
    pub(crate) portals: Vec<v1::PortalReport>,
    /// Where the discovery service listens: the portals for it alone, or all if there is none.
    pub(crate) discovery: BTreeSet<SocketAddr>,
    /// NQNs of the exported subsystems.
    pub(crate) subsystems: Vec<String>,
    pub(crate) unused: Vec<v1::UnusedDrive>,
}

/// One drive.
#[derive(Clone)]
pub(crate) struct DriveStatus {
    pub(crate) name: String,
    pub(crate) state: v1::DriveState,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) about: DriveAbout,
    /// Live numbers; `None` when it is not open.
    pub(crate) handle: Option<DriveHandle>,
}

/// What a device says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DriveAbout {
    pub(crate) path: String,
    pub(crate) serial: String,
    pub(crate) model: String,
}

/// One volume.
#[derive(Clone)]
pub(crate) struct VolumeStatus {
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
    pub(crate) drive: String,
    pub(crate) state: v1::VolumeState,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Live numbers; `None` when it is not there.
    pub(crate) volume: Option<Arc<Volume>>,
}

/// What a failed step said, and when it is tried again.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// A CamelCase word.
    pub(crate) reason: String,
    /// A sentence.
    pub(crate) message: String,
    pub(crate) attempts: u32,
    pub(crate) retry_at: Instant,
}
