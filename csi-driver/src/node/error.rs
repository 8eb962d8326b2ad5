//! Everything that can go wrong in a node call, and the one map to gRPC codes.

use std::io;
use std::path::PathBuf;

use roadstead_api::ConnectError;
use tonic::{Code, Status};

use crate::request::RequestError;

/// Why a node call failed.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The request cannot be understood or served.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Another call for the same volume runs.
    #[error("another operation for volume {0} is running; try again when it is done")]
    Busy(String),
    /// roadsteadd does not answer.
    #[error(transparent)]
    DaemonAway(#[from] ConnectError),
    /// roadsteadd refused.
    #[error("roadsteadd cannot {doing}: {}", .status.message())]
    Daemon {
        /// What was asked.
        doing: String,
        /// Its answer.
        status: Box<Status>,
    },
    /// No such volume on this node.
    #[error("volume {0} is not attached to this node")]
    NotAttached(String),
    /// The device holds something else than asked for. Nothing was written.
    #[error(
        "{device} of volume {volume} holds {found}, but {asked} was asked for; nothing was written. \
         Use the volume with what it holds, or delete it and make another one"
    )]
    OtherContent {
        /// The volume.
        volume: String,
        /// Its device.
        device: PathBuf,
        /// What is there.
        found: String,
        /// What should be.
        asked: &'static str,
    },
    /// An empty device cannot be formatted when it must not be written.
    #[error(
        "volume {0} is empty and read-only: use it once with write access, so that it gets a file system"
    )]
    EmptyReadOnly(String),
    /// The volume was not staged.
    #[error("volume {volume} is not staged at {path}")]
    NotStaged {
        /// The volume.
        volume: String,
        /// The staging path.
        path: PathBuf,
    },
    /// Something else is mounted where the volume should be.
    #[error("{path} has another mount already: {found}")]
    PathTaken {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// One pod has the volume for itself.
    #[error("volume {volume} is for one pod alone, and is at {path} already")]
    SingleWriter {
        /// The volume.
        volume: String,
        /// Where it is.
        path: PathBuf,
    },
    /// The device is still used.
    #[error("{device} of volume {volume} is still in use{at}; it can be detached once that ends")]
    StillInUse {
        /// The volume.
        volume: String,
        /// Its device.
        device: PathBuf,
        /// Where, as part of the sentence; may be empty.
        at: String,
    },
    /// The volume is not at this path.
    #[error("volume {volume} is not at {path}")]
    NoSuchPath {
        /// The volume.
        volume: String,
        /// The path.
        path: PathBuf,
    },
    /// The target has not grown yet.
    #[error(
        "volume {volume} has {size_bytes} bytes so far, {required_bytes} are required; try again"
    )]
    NotGrown {
        /// The volume.
        volume: String,
        /// The size that the target reports, in bytes.
        size_bytes: u64,
        /// The size asked for, in bytes.
        required_bytes: u64,
    },
    /// A program failed.
    #[error("cannot {doing}: {program}: {output}")]
    Program {
        /// What was tried.
        doing: String,
        /// The program.
        program: &'static str,
        /// What it printed, shortened.
        output: String,
    },
    /// The system refused.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried, with the path.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl NodeError {
    /// For `map_err`: what was being done when the system refused.
    pub fn system<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            doing: doing.into(),
            source: source.into(),
        }
    }

    /// The code of each error.
    pub fn code(&self) -> Code {
        match self {
            Self::Request(error) => error.code(),
            Self::Busy(_) | Self::NotGrown { .. } => Code::Aborted,
            Self::DaemonAway(_) => Code::Unavailable,
            Self::Daemon { status, .. } => daemon_code(status.code()),
            Self::NotAttached(_) | Self::NoSuchPath { .. } => Code::NotFound,
            Self::OtherContent { .. }
            | Self::EmptyReadOnly(_)
            | Self::NotStaged { .. }
            | Self::SingleWriter { .. }
            | Self::StillInUse { .. } => Code::FailedPrecondition,
            Self::PathTaken { .. } => Code::AlreadyExists,
            Self::Program { .. } | Self::System { .. } => Code::Internal,
        }
    }
}

/// The daemon's codes mean the same to the kubelet, but for those that would blame the kubelet's own request.
fn daemon_code(code: Code) -> Code {
    match code {
        Code::FailedPrecondition
        | Code::NotFound
        | Code::Aborted
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Unavailable => code,
        Code::Cancelled => Code::Aborted,
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => Code::Internal,
    }
}

impl From<NodeError> for Status {
    fn from(error: NodeError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_every_error() {
        use NodeError as E;
        let s = || "x".to_owned();
        let p = || PathBuf::from("/x");
        let daemon = |code| E::Daemon {
            doing: s(),
            status: Box::new(Status::new(code, "x")),
        };
        for (error, code) in [
            (
                E::Request(RequestError::Missing("volume_id")),
                Code::InvalidArgument,
            ),
            (E::Busy(s()), Code::Aborted),
            (
                E::NotGrown {
                    volume: s(),
                    size_bytes: 1,
                    required_bytes: 2,
                },
                Code::Aborted,
            ),
            (daemon(Code::Unavailable), Code::Unavailable),
            (daemon(Code::NotFound), Code::NotFound),
            (daemon(Code::FailedPrecondition), Code::FailedPrecondition),
            (daemon(Code::Cancelled), Code::Aborted),
            (daemon(Code::InvalidArgument), Code::Internal),
            (daemon(Code::Unknown), Code::Internal),
            (E::NotAttached(s()), Code::NotFound),
            (
                E::NoSuchPath {
                    volume: s(),
                    path: p(),
                },
                Code::NotFound,
            ),
            (
                E::OtherContent {
                    volume: s(),
                    device: p(),
                    found: s(),
                    asked: "ext4",
                },
                Code::FailedPrecondition,
            ),
            (E::EmptyReadOnly(s()), Code::FailedPrecondition),
            (
                E::NotStaged {
                    volume: s(),
                    path: p(),
                },
                Code::FailedPrecondition,
            ),
            (
                E::SingleWriter {
                    volume: s(),
                    path: p(),
                },
                Code::FailedPrecondition,
            ),
            (
                E::StillInUse {
                    volume: s(),
                    device: p(),
                    at: s(),
                },
                Code::FailedPrecondition,
            ),
            (
                E::PathTaken {
                    path: p(),
                    found: s(),
                },
                Code::AlreadyExists,
            ),
            (
                E::Program {
                    doing: s(),
                    program: "mkfs.ext4",
                    output: s(),
                },
                Code::Internal,
            ),
            (
                E::System {
                    doing: s(),
                    source: io::ErrorKind::Other.into(),
                },
                Code::Internal,
            ),
        ] {
            let text = error.to_string();
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (code, text.as_str()));
        }
    }

    #[tokio::test]
    async fn a_daemon_that_is_away_is_unavailable() {
        let error = roadstead_api::connect_unix("/nonexistent/socket")
            .await
            .unwrap_err();
        assert_eq!(NodeError::from(error).code(), Code::Unavailable);
    }
}
