//! Everything that can go wrong in a controller call, and the one map to gRPC codes.
//!
//! The side cars act on the code: after `ABORTED`, `DEADLINE_EXCEEDED` and `UNAVAILABLE` they repeat the call until it
//! settles, after any other they may give up, so those are only returned when nothing is left half done.

use tonic::{Code, Status};

use crate::request::RequestError;

/// Why a controller call failed.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The request cannot be understood or served.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Parameter `target` names no Target.
    #[error("parameter target is '{0}', but there is no such Target")]
    NoSuchTarget(String),
    /// Parameter `target` names an appliance.
    #[error(
        "parameter target is '{0}', a foreign appliance, where Roadstead makes no volumes: make the namespace there, and an \
         NVMeNamespace with spec.external and a PersistentVolume for it"
    )]
    TargetIsAppliance(String),
    /// The volume is an appliance's namespace.
    #[error(
        "volume {0} is a namespace of a foreign appliance, which Roadstead does not grow: grow it there"
    )]
    NotOurs(String),
    /// No such volume.
    #[error("volume {0} does not exist")]
    VolumeNotFound(String),
    /// No such node, or it never ran the dataplane.
    #[error("node {0} is unknown: no NVMeHost has this name; does the node's roadsteadd run?")]
    NodeNotFound(String),
    /// A volume of this name exists and is another one.
    #[error("volume {volume} exists, but {difference}")]
    Incompatible {
        /// The volume.
        volume: String,
        /// What differs.
        difference: String,
    },
    /// The volume is on another node.
    #[error(
        "volume {volume} is attached to node {node}; it can be attached here once it is detached there"
    )]
    AttachedElsewhere {
        /// The volume.
        volume: String,
        /// Where it is.
        node: String,
    },
    /// The volume is on this node in another way.
    #[error(
        "volume {volume} is attached to node {node} with readOnly={read_only}; detach it first"
    )]
    AttachedOtherwise {
        /// The volume.
        volume: String,
        /// The node.
        node: String,
        /// How it is attached now.
        read_only: bool,
    },
    /// Deletion of a volume that is in use.
    #[error("volume {volume} is attached to {nodes}; detach it before it is deleted")]
    StillAttached {
        /// The volume.
        volume: String,
        /// The nodes, as a list for people.
        nodes: String,
    },
    /// The object is on its way out; the call can be repeated afterwards.
    #[error("{0} is being deleted; try again when it is gone")]
    BeingDeleted(String),
    /// No drive has room for the volume. Nothing of it is left.
    #[error("no room for volume {volume}: {why}")]
    NoRoom {
        /// The volume.
        volume: String,
        /// The operator's sentence.
        why: String,
    },
    /// The volume's drive has no room for the new size.
    #[error("volume {volume} cannot grow: {why}")]
    NoRoomToGrow {
        /// The volume.
        volume: String,
        /// What is missing.
        why: String,
    },
    /// It did not happen in time; the call can be repeated and goes on where this one stopped.
    #[error("{what} took longer than {limit_s} s: {why}")]
    NotInTime {
        /// What was waited for.
        what: String,
        /// How long, in seconds.
        limit_s: u64,
        /// The last reason seen.
        why: String,
    },
    /// Another call for the same volume runs.
    #[error("another operation for volume {0} is running; try again when it is done")]
    Busy(String),
    /// A page token that was not given out.
    #[error("starting_token '{0}' is unknown or expired; start again without one")]
    BadToken(String),
    /// The Kubernetes API refused or did not answer.
    #[error("cannot {doing}: {source}")]
    Api {
        /// What was tried.
        doing: &'static str,
        /// What the API said.
        source: kube::Error,
    },
    /// An object says it is ready but lacks what a ready one has.
    #[error("{object} is ready, but its status has no {field}")]
    Incomplete {
        /// The object.
        object: String,
        /// The field.
        field: &'static str,
    },
}

impl ControllerError {
    /// For `map_err`: what was being done when the API failed.
    pub fn api(doing: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api { doing, source }
    }

    /// The code of each error.
    pub fn code(&self) -> Code {
        match self {
            Self::Request(error) => error.code(),
            Self::NoSuchTarget(_) | Self::TargetIsAppliance(_) | Self::NotOurs(_) => {
                Code::InvalidArgument
            }
            Self::VolumeNotFound(_) | Self::NodeNotFound(_) => Code::NotFound,
            Self::Incompatible { .. } | Self::AttachedOtherwise { .. } => Code::AlreadyExists,
            Self::AttachedElsewhere { .. } | Self::StillAttached { .. } => Code::FailedPrecondition,
            Self::BeingDeleted(_) | Self::Busy(_) | Self::BadToken(_) => Code::Aborted,
            Self::NoRoom { .. } => Code::ResourceExhausted,
            Self::NoRoomToGrow { .. } => Code::OutOfRange,
            Self::NotInTime { .. } => Code::DeadlineExceeded,
            Self::Api { .. } => Code::Unavailable,
            Self::Incomplete { .. } => Code::Internal,
        }
    }
}

impl From<ControllerError> for Status {
    fn from(error: ControllerError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_every_error() {
        use ControllerError as E;
        let s = || "x".to_owned();
        let api = kube::Error::LinesCodecMaxLineLengthExceeded;
        for (error, code) in [
            (
                E::Request(RequestError::Missing("name")),
                Code::InvalidArgument,
            ),
            (E::NoSuchTarget(s()), Code::InvalidArgument),
            (E::TargetIsAppliance(s()), Code::InvalidArgument),
            (E::NotOurs(s()), Code::InvalidArgument),
            (E::VolumeNotFound(s()), Code::NotFound),
            (E::NodeNotFound(s()), Code::NotFound),
            (
                E::Incompatible {
                    volume: s(),
                    difference: s(),
                },
                Code::AlreadyExists,
            ),
            (
                E::AttachedOtherwise {
                    volume: s(),
                    node: s(),
                    read_only: true,
                },
                Code::AlreadyExists,
            ),
            (
                E::AttachedElsewhere {
                    volume: s(),
                    node: s(),
                },
                Code::FailedPrecondition,
            ),
            (
                E::StillAttached {
                    volume: s(),
                    nodes: s(),
                },
                Code::FailedPrecondition,
            ),
            (E::BeingDeleted(s()), Code::Aborted),
            (E::Busy(s()), Code::Aborted),
            (E::BadToken(s()), Code::Aborted),
            (
                E::NoRoom {
                    volume: s(),
                    why: s(),
                },
                Code::ResourceExhausted,
            ),
            (
                E::NoRoomToGrow {
                    volume: s(),
                    why: s(),
                },
                Code::OutOfRange,
            ),
            (
                E::NotInTime {
                    what: s(),
                    limit_s: 1,
                    why: s(),
                },
                Code::DeadlineExceeded,
            ),
            (
                E::Api {
                    doing: "x",
                    source: api,
                },
                Code::Unavailable,
            ),
            (
                E::Incomplete {
                    object: s(),
                    field: "uuid",
                },
                Code::Internal,
            ),
        ] {
            let text = error.to_string();
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (code, text.as_str()));
        }
    }
}
