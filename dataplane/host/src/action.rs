//! What a host asks of its rim, and what it reports.

use roadstead_nvme::Sqe;

use crate::queue::Transfer;
use crate::setup::{NamespaceInfo, SetUpError};

/// An attempt to connect a path. Things of older ones of the same path are dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Which path, by its place in the configuration.
    pub path: u16,
    /// Counts the attempts.
    pub attempt: u32,
}

/// What the rim has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open the transport connection of a queue (0: admin), then call [`Host::ready`].
    Open {
        /// The attempt.
        epoch: Epoch,
        /// The queue.
        qid: u16,
        /// Entries that it will have: one more than there are ever commands in flight.
        entries: u16,
    },
    /// Send a command that is no request.
    Send {
        /// The attempt.
        epoch: Epoch,
        /// The queue.
        qid: u16,
        /// The command, complete.
        sqe: Box<Sqe>,
        /// Data to send with it.
        data_out: Vec<u8>,
        /// Most bytes of data that may come back, to be given to [`Host::completed`].
        data_in: u32,
    },
    /// Close all connections of this attempt.
    Close {
        /// The attempt.
        epoch: Epoch,
    },
    /// A path is connected; comes after every reconnect.
    Up {
        /// Which path.
        path: usize,
        /// What it is now.
        info: NamespaceInfo,
    },
    /// The namespace changed while connected.
    Changed(NamespaceInfo),
    /// A connection was lost, or could not be made.
    Down {
        /// Which path.
        path: usize,
        /// Why.
        error: SetUpError,
    },
    /// The target has lost acknowledged writes that no flush had covered: flushes fail with
    /// [`crate::IoError::CacheLost`].
    CacheLost,
    /// What [`crate::Host::paths`] says of a path has changed; its ANA state, maybe.
    PathChanged {
        /// Which path.
        path: usize,
    },
    /// There is no path left to wait for: requests fail from now on. Connecting goes on.
    GivenUp,
}

/// Where a command's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// No data.
    None,
    /// The target sends it.
    Read(Transfer),
    /// The rim sends it: in the capsule when it fits, else when asked for.
    Write(Transfer),
}

/// A command of a request, to be sent now. Its data pointer is left to the rim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// The attempt, whose connections take it.
    pub epoch: Epoch,
    /// The queue.
    pub qid: u16,
    /// The command.
    pub sqe: Sqe,
    /// Its data.
    pub payload: Payload,
    /// Most data that goes in its capsule, in bytes.
    pub in_capsule_bytes: u32,
}

/// What a path does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// Connected. Requests go over it if the policy and its ANA state want it.
    Live,
    /// Being connected, or waiting for the next try.
    Connecting,
    /// Given up on; still tried now and then.
    Failed,
}

/// A path, for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathReport {
    /// Its state.
    pub state: PathState,
    /// Its last error, or its ANA state when that is not the best.
    pub message: String,
}
