//! What a host asks of its rim, and what it reports.

use std::time::Duration;

use roadstead_nvme::{AnaState, Sqe};

use crate::queue::Transfer;
use crate::setup::{NamespaceInfo, SetUpError};

/// An attempt to connect a path. Things of older ones of the same path are dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Which path, by its place.
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
    /// A path that is not wanted has ended; its place is free.
    Removed {
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
    /// Which, by its place.
    pub path: usize,
    /// Its state.
    pub state: PathState,
    /// Its last error; empty while it is live.
    pub message: String,
    /// Of the namespace on its controller, if that has any.
    pub ana_state: Option<AnaState>,
    /// Of a Keep Alive, smoothed; `None` before the first was answered.
    pub round_trip: Option<Duration>,
    /// How often it was lost while it was live.
    pub losses: u32,
    /// What went over it.
    pub traffic: Traffic,
}

/// What went over a path since it was made: commands with data that the target has carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes of those reads.
    pub read_bytes: u64,
    /// Bytes of those writes.
    pub written_bytes: u64,
}

impl Traffic {
    /// A command was carried out. No count reaches its end: 2^64 bytes take a hundred years at 5 GB/s.
    pub(crate) fn count(&mut self, transfer: &Transfer) {
        let bytes = u64::from(transfer.length_bytes);
        match (bytes, transfer.is_read) {
            (0, _) => {}
            (_, true) => {
                self.reads += 1;
                self.read_bytes += bytes;
            }
            (_, false) => {
                self.writes += 1;
                self.written_bytes += bytes;
            }
        }
    }
}
