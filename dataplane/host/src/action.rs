//! What a host asks of its rim, and what it reports.

use roadstead_nvme::Sqe;

use crate::queue::Transfer;
use crate::setup::{NamespaceInfo, SetUpError};

/// What the rim has to do. `epoch` numbers the attempts to connect: things of older ones are dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open the transport connection of a queue (0: admin), then call [`Host::ready`].
    Open {
        /// The attempt.
        epoch: u32,
        /// The queue.
        qid: u16,
        /// Which path.
        path: usize,
    },
    /// Send a command that is no request; its data goes in the capsule.
    Send {
        /// The attempt.
        epoch: u32,
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
        epoch: u32,
    },
    /// The namespace can be used; comes after every reconnect.
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
    /// No path worked for as long as configured: requests fail from now on. Connecting goes on.
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
    /// The queue.
    pub qid: u16,
    /// The command.
    pub sqe: Sqe,
    /// Its data.
    pub payload: Payload,
}

/// What a path does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// Requests go over it.
    Live,
    /// Being connected, waiting for the next try, or standing by.
    Connecting,
    /// Given up on; still tried now and then.
    Failed,
}

/// A path, for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathReport {
    /// Its state.
    pub state: PathState,
    /// Its last error, or that it stands by.
    pub message: String,
}
