//! Requests, and how they end.

use roadstead_nvme::Status;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read blocks.
    Read,
    /// Write blocks; with `durable` they are on stable media when it is done.
    Write {
        /// Force unit access.
        durable: bool,
    },
    /// Make writes that are done durable. Has no blocks.
    Flush,
    /// Make blocks read as zeroes; with `deallocate` their space may be given back.
    WriteZeroes {
        /// Deallocate.
        deallocate: bool,
    },
}

impl Op {
    /// Whether it changes blocks.
    pub(crate) fn is_write(self) -> bool {
        matches!(self, Self::Write { .. } | Self::WriteZeroes { .. })
    }
}

/// One request to a namespace; of any size, it is split as the target needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub op: Op,
    /// First block; 0 for a flush.
    pub lba: u64,
    /// Blocks; 0 for a flush.
    pub blocks: u32,
    /// The submitter's name for it, repeated in [`Done`].
    pub token: u64,
}

/// A request was not accepted; nothing of it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many requests as configured are not done yet.
    #[error("too many requests are in flight")]
    Full,
    /// It reaches beyond the namespace, or has no blocks.
    #[error("the request is empty or reaches beyond the end of the namespace")]
    OutOfRange,
    /// The namespace has not been found yet.
    #[error("not connected yet")]
    NotConnected,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// The target's answer.
    #[error("the target answers: {0}")]
    Status(Status),
    /// No path worked for as long as the configuration allows to wait.
    #[error("no path to the target worked for the configured time")]
    PathLost,
    /// The target has lost its volatile cache, and with it writes that it had acknowledged.
    #[error("the target has lost acknowledged writes that were not flushed")]
    CacheLost,
    /// The target does not know the command.
    #[error("the target does not support this command")]
    Unsupported,
    /// The host was closed.
    #[error("the host was closed")]
    Closed,
}

/// The end of a request; comes once for each that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// The request's.
    pub token: u64,
    /// How it ended.
    pub result: Result<(), IoError>,
}
