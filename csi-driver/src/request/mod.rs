//! From a call's raw fields to typed values, and the one error that says why not.
//!
//! Everything here is pure: the controller and the node parse a request whole before they do anything.

mod capability;
mod capacity;
mod context;
mod parameters;
mod transport;

use std::path::PathBuf;

use roadstead_crds::transport::UnknownWord;

pub use capability::{Access, Capability, FileSystem, Mode};
pub use capacity::{Capacity, MIB, VOLUME_SIZE_MIN_BYTES};
pub use context::{PathSpec, PublishContext};
pub use parameters::Parameters;
pub use transport::TransportNeeds;

/// The longest volume name and identifier that CSI allows, in bytes.
pub const NAME_LEN_MAX: usize = 128;

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A required field is empty.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A name or identifier is longer than [`NAME_LEN_MAX`].
    #[error("{field} has {len} bytes; at most {NAME_LEN_MAX} are allowed")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// A StorageClass parameter that the driver does not know.
    #[error("unknown parameter '{name}'; known are: {known}")]
    UnknownParameter {
        /// As given.
        name: String,
        /// The known ones.
        known: String,
    },
    /// A StorageClass parameter whose value cannot be used.
    #[error("parameter {name} is '{value}', but must be {expected}")]
    BadParameter {
        /// Its name.
        name: &'static str,
        /// As given.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A word that is none of the known ones.
    #[error("{place}: {error}")]
    UnknownWord {
        /// The parameter or annotation.
        place: String,
        /// The word, and those that are known.
        error: UnknownWord,
    },
    /// An annotation of a claim that the driver does not know.
    #[error("unknown annotation '{name}'; known are: {known}")]
    UnknownAnnotation {
        /// As given.
        name: String,
        /// The known ones.
        known: String,
    },
    /// Parameters that could be changed later: there are none.
    #[error("mutable parameter '{0}' is unknown: a volume has no parameters that can be changed")]
    MutableParameter(String),
    /// A copy of a snapshot or volume.
    #[error("volumes cannot be made from a snapshot or another volume")]
    ContentSource,
    /// A capability that the driver does not have.
    #[error("{0}")]
    Unsupported(String),
    /// Sizes below zero, or a limit below what is required.
    #[error("required_bytes {required_bytes} and limit_bytes {limit_bytes} are no range of sizes")]
    BadRange {
        /// As given.
        required_bytes: i64,
        /// As given.
        limit_bytes: i64,
    },
    /// No size that a volume can have lies in the range.
    #[error(
        "no volume has between {required_bytes} and {limit_bytes} bytes: sizes are whole MiB and at least {minimum_bytes} bytes here"
    )]
    NoSizeInRange {
        /// As given.
        required_bytes: i64,
        /// As given.
        limit_bytes: i64,
        /// The smallest volume for this request.
        minimum_bytes: u64,
    },
    /// The publish context is not what this driver's controller writes.
    #[error("publish_context is unusable: {0}")]
    Context(String),
    /// A path that is not absolute.
    #[error("{field} '{path}' is not an absolute path")]
    RelativePath {
        /// The field.
        field: &'static str,
        /// As given.
        path: String,
    },
}

/// A volume's name or identifier.
pub fn identifier(field: &'static str, value: &str) -> Result<String, RequestError> {
    match value.len() {
        0 => Err(RequestError::Missing(field)),
        len if len > NAME_LEN_MAX => Err(RequestError::TooLong { field, len }),
        _ => Ok(value.to_owned()),
    }
}

/// An absolute path.
pub fn path(field: &'static str, value: &str) -> Result<PathBuf, RequestError> {
    if value.is_empty() {
        return Err(RequestError::Missing(field));
    }
    let path = PathBuf::from(value);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(RequestError::RelativePath {
            field,
            path: value.to_owned(),
        })
    }
}

impl RequestError {
    /// The gRPC code of each error.
    pub fn code(&self) -> tonic::Code {
        match self {
            Self::Missing(_)
            | Self::TooLong { .. }
            | Self::UnknownParameter { .. }
            | Self::BadParameter { .. }
            | Self::UnknownWord { .. }
            | Self::UnknownAnnotation { .. }
            | Self::MutableParameter(_)
            | Self::ContentSource
            | Self::Unsupported(_)
            | Self::BadRange { .. }
            | Self::Context(_)
            | Self::RelativePath { .. } => tonic::Code::InvalidArgument,
            Self::NoSizeInRange { .. } => tonic::Code::OutOfRange,
        }
    }
}
