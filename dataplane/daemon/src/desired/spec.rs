//! The values that a desired state is made of, and what can be wrong with one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use roadstead_attach::HostIdentity;
use roadstead_nvme::Portal;
use roadstead_target::PortalRules;
use uuid::Uuid;

/// The whole desired state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) revision: String,
    pub(crate) drives: Vec<DriveSpec>,
    pub(crate) volumes: Vec<VolumeSpec>,
    pub(crate) subsystems: Vec<SubsystemSpec>,
    /// Every address that should be listened at, those for discovery included.
    pub(crate) portals: Vec<Portal>,
    pub(crate) rules: PortalRules,
    /// The paths that attachments of this node should have, by id.
    pub(crate) attachments: BTreeMap<String, Vec<Portal>>,
    /// Foreign appliances to look at.
    pub(crate) externals: Vec<ExternalSpec>,
}

/// A foreign appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExternalSpec {
    pub(crate) name: String,
    pub(crate) source: ExternalSource,
    /// Whom this node is there, if not itself.
    pub(crate) host: Option<HostIdentity>,
}

/// How an appliance is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExternalSource {
    /// By discovery services; all that they tell of, or one subsystem of it.
    Discovery {
        services: Vec<Portal>,
        nqn: Option<String>,
    },
    /// One subsystem, at these portals.
    Subsystem { nqn: String, portals: Vec<Portal> },
}

/// A drive that should carry a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct DriveSpec {
    pub(crate) name: String,
    /// Written into the pool's label.
    pub(crate) owner: String,
    pub(crate) source: Source,
    /// Overwrite what is on the drive.
    pub(crate) force: bool,
}

/// How a drive is found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// By a path that leads to the block device.
    Path(PathBuf),
    /// By serial number.
    Serial(String),
    /// The first unused one of the model.
    Model(String),
    /// A file of at least this size.
    File { path: PathBuf, size_bytes: u64 },
    /// The daemon's memory.
    Memory { size_bytes: u64 },
}

/// A volume that should, or must not, exist.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct VolumeSpec {
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
    pub(crate) drive: String,
    pub(crate) size_bytes: u64,
    pub(crate) block_size: u32,
    pub(crate) absent: bool,
}

/// An NVM subsystem that should be exported.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SubsystemSpec {
    pub(crate) nqn: String,
    pub(crate) serial: String,
    /// Volume by namespace identifier.
    pub(crate) namespaces: BTreeMap<u32, Uuid>,
    /// ANA groups of the namespaces that are not in group 1, by namespace identifier.
    pub(crate) ana_groups: BTreeMap<u32, u32>,
    pub(crate) hosts: Hosts,
}

/// Who may connect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Hosts {
    Any,
    Listed(BTreeSet<String>),
}

/// Which message of a state is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Drive(usize),
    Volume(usize),
    Subsystem(usize),
    Namespace(usize, usize),
    Portal(usize),
    Discovery(usize),
    Referral(usize),
    Attachment(usize),
    AttachmentPath(usize, usize),
    External(usize),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Drive(i) => write!(f, "drives[{i}]"),
            Self::Volume(i) => write!(f, "volumes[{i}]"),
            Self::Subsystem(i) => write!(f, "subsystems[{i}]"),
            Self::Namespace(i, j) => write!(f, "subsystems[{i}].namespaces[{j}]"),
            Self::Portal(i) => write!(f, "portals[{i}]"),
            Self::Discovery(i) => write!(f, "discovery[{i}]"),
            Self::Referral(i) => write!(f, "referrals[{i}]"),
            Self::Attachment(i) => write!(f, "attachments[{i}]"),
            Self::AttachmentPath(i, j) => write!(f, "attachments[{i}].paths[{j}]"),
            Self::External(i) => write!(f, "externals[{i}]"),
        }
    }
}

/// What is wrong with one field of a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}.{field}: {what}")]
pub(crate) struct Invalid {
    pub(crate) place: Place,
    /// The field's name in the proto.
    pub(crate) field: &'static str,
    pub(crate) what: String,
}
