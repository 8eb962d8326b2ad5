//! Why an attachment could not be made, changed or removed.

use std::io;
use std::path::PathBuf;

/// One variant for each meaning; the daemon maps them to gRPC codes.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The request itself is wrong; repeating it cannot help.
    #[error("attachment {id:?}: {problem}")]
    InvalidSpec {
        /// The attachment.
        id: String,
        /// What is wrong with which field.
        problem: String,
    },
    /// The id is attached already, with another specification.
    #[error("attachment {id} exists with another {field}: detach it first")]
    Conflict {
        /// The attachment.
        id: String,
        /// The field that differs.
        field: &'static str,
    },
    /// Another operation on the same id runs.
    #[error("attachment {id}: another operation on it is under way, try again")]
    InProgress {
        /// The attachment.
        id: String,
    },
    /// No such attachment.
    #[error("attachment {id} is not known on this node")]
    Unknown {
        /// The attachment.
        id: String,
    },
    /// The method cannot work on this node.
    #[error("attach method {method} cannot be used on this node: {reason}")]
    Unavailable {
        /// The method asked for, or `any`.
        method: String,
        /// Why, for each method tried.
        reason: String,
    },
    /// The device is in use and was left as it is.
    #[error("{} is in use (mounted, or held open by another program): unmount it first", device.display())]
    Busy {
        /// The device.
        device: PathBuf,
    },
    /// The device cannot take another size while it is attached.
    #[error("{} keeps its size until it is attached again: {reason}", device.display())]
    FixedSize {
        /// The device.
        device: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The target shows another namespace than the one asked for, or none.
    #[error("subsystem {nqn} has no namespace with {wanted}: {found}")]
    WrongNamespace {
        /// The subsystem.
        nqn: String,
        /// The name asked for.
        wanted: String,
        /// What is there instead.
        found: String,
    },
    /// No path to the target works.
    #[error("cannot connect to {nqn}: {reason}")]
    Unreachable {
        /// The subsystem.
        nqn: String,
        /// The last error of each path.
        reason: String,
    },
    /// The target was reached and refused.
    #[error("{nqn} refuses this host: {reason}")]
    Refused {
        /// The subsystem.
        nqn: String,
        /// The target's status.
        reason: String,
    },
    /// Something that should follow did not within its bound.
    #[error("{what} within {seconds} s")]
    Timeout {
        /// What did not happen.
        what: String,
        /// The bound.
        seconds: u64,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

impl AttachError {
    /// For `map_err`: says what was tried.
    pub(crate) fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Io {
            what,
            source: source.into(),
        }
    }
}
