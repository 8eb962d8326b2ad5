//! What can go wrong, one meaning each, with a word for status fields and a sentence for people.

use std::io;
use thiserror::Error;
use uuid::Uuid;

/// Why a pool takes no more changes. What was acknowledged stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the drive failed while {doing}: {detail}; nothing more is written to it. Check the drive and its cabling, then restart the daemon to open it again"
)]
pub struct Fault {
    /// The kind, for decisions.
    pub kind: FaultKind,
    /// What was tried, as in "syncing the journal".
    pub doing: &'static str,
    /// The system's words.
    pub detail: String,
}

/// Kinds of [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The device is not there any more.
    Gone,
    /// A read, write or sync failed. After a failed sync nothing that was not synced before is trusted.
    Io,
    /// The pool's own books disagree; going on could hurt data.
    Inconsistent,
}

impl Fault {
    /// A fault from a failed system call.
    pub fn io(doing: &'static str, error: &io::Error) -> Self {
        let gone = [
            rustix::io::Errno::NODEV,
            rustix::io::Errno::NXIO,
            rustix::io::Errno::NOTCONN,
        ];
        let kind = match error.raw_os_error() {
            Some(code) if gone.iter().any(|e| e.raw_os_error() == code) => FaultKind::Gone,
            _ => FaultKind::Io,
        };
        Self {
            kind,
            doing,
            detail: error.to_string(),
        }
    }

    /// The word for status fields.
    pub fn reason(&self) -> &'static str {
        match self.kind {
            FaultKind::Gone => "Gone",
            FaultKind::Io => "IoError",
            FaultKind::Inconsistent => "Inconsistent",
        }
    }
}

/// Why a change to a pool was not made. Nothing of it was made then.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PoolError {
    /// A volume of this UUID is there.
    #[error("volume {uuid} exists already")]
    VolumeExists {
        /// The volume.
        uuid: Uuid,
    },
    /// No volume of this UUID is there.
    #[error("the pool has no volume {uuid}")]
    VolumeUnknown {
        /// The volume.
        uuid: Uuid,
    },
    /// The sizes of all volumes would exceed the drive.
    #[error(
        "{asked_bytes} bytes more were asked for, the drive has room for {free_bytes}; ask for less, or add a drive"
    )]
    NoRoom {
        /// Additional bytes asked for, in whole extents.
        asked_bytes: u64,
        /// Bytes free for volumes.
        free_bytes: u64,
    },
    /// The metadata has no room for a volume's note.
    #[error(
        "the drive has no room for more that is kept with its volumes (reservations); remove registrations of other volumes"
    )]
    NoRoomForNote,
    /// The file system that the drive's file is on has no room for another extent.
    #[error(
        "the file system of {path} is full; make room on it. What is allocated already goes on working"
    )]
    MediumFull {
        /// The file.
        path: String,
    },
    /// Volumes never shrink.
    #[error("the volume has {size_bytes} bytes and cannot shrink to {asked_bytes}")]
    ShrinkRefused {
        /// Its size.
        size_bytes: u64,
        /// The size asked for.
        asked_bytes: u64,
    },
    /// A property of the new volume is not possible.
    #[error("the volume cannot be made: {what}")]
    BadVolume {
        /// What is wrong with it.
        what: String,
    },
    /// The pool's table of volumes is full.
    #[error("the pool holds its maximum of {max} volumes; delete some, or use another drive")]
    TooManyVolumes {
        /// The maximum.
        max: u32,
    },
    /// Extents past the end of the volume.
    #[error("extents {first}+{count} are not all inside the volume's {extents}")]
    OutOfRange {
        /// First extent asked for.
        first: u32,
        /// How many.
        count: u32,
        /// How many the volume has.
        extents: u32,
    },
    /// The drive failed, now or earlier.
    #[error(transparent)]
    Faulted(#[from] Fault),
    /// The drive's thread has ended; the command was not carried out.
    #[error("the drive was closed before the command was carried out")]
    Stopped,
}

impl PoolError {
    /// The word for status fields.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::VolumeExists { .. } => "VolumeExists",
            Self::VolumeUnknown { .. } => "VolumeUnknown",
            Self::NoRoom { .. } | Self::NoRoomForNote => "NoRoom",
            Self::MediumFull { .. } => "MediumFull",
            Self::ShrinkRefused { .. } => "ShrinkRefused",
            Self::BadVolume { .. } => "BadVolume",
            Self::TooManyVolumes { .. } => "TooManyVolumes",
            Self::OutOfRange { .. } => "OutOfRange",
            Self::Faulted(_) | Self::Stopped => "DriveOffline",
        }
    }
}

/// Why a drive was not taken. Nothing was written to it then, unless the variant says otherwise.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is no such device or file.
    #[error("{what} was not found; check the name, and that the drive is plugged in")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The device, or a partition of it, is mounted.
    #[error("{path} is mounted at {at}; unmount it first, `force` does not help against a mount")]
    Mounted {
        /// The device.
        path: String,
        /// The mount point.
        at: String,
    },
    /// Something else holds the device.
    #[error("{path} is in use by {holder}; stop that first, `force` does not help against a user")]
    InUse {
        /// The device.
        path: String,
        /// Who holds it.
        holder: String,
    },
    /// It holds something that is not ours.
    #[error("{path} holds {kind}; write `force: true` for this drive to overwrite it")]
    ForeignFilesystem {
        /// The device or file.
        path: String,
        /// What was found on it.
        kind: String,
    },
    /// It holds a pool of another owner.
    #[error(
        "{path} holds the Roadstead pool {pool} of owner {owner:?}; write `force: true` for this drive to overwrite it, its volumes are lost then"
    )]
    ForeignLabel {
        /// The device or file.
        path: String,
        /// The pool's UUID.
        pool: Uuid,
        /// Who owns it.
        owner: String,
    },
    /// Not enough room for a pool.
    #[error("{path} has {size_bytes} bytes, a pool needs at least {needed_bytes}")]
    TooSmall {
        /// The device or file.
        path: String,
        /// Its size.
        size_bytes: u64,
        /// The least size.
        needed_bytes: u64,
    },
    /// The medium is smaller than the pool on it.
    #[error(
        "{path} has {size_bytes} bytes, the pool on it was made for {label_bytes}; give it its size back"
    )]
    MediaShrunk {
        /// The device or file.
        path: String,
        /// Its size now.
        size_bytes: u64,
        /// The size in the label.
        label_bytes: u64,
    },
    /// A later version made this pool.
    #[error(
        "the pool on {path} has format version {version}, this program knows up to {known}; use the newer program"
    )]
    FutureVersion {
        /// The device or file.
        path: String,
        /// Its format version.
        version: u32,
        /// The newest version known here.
        known: u32,
    },
    /// Ours, but damaged beyond what the copies can repair. Never formatted, not even by force.
    #[error(
        "the pool on {path} is damaged: {what}. Nothing was changed. To give its data up, zero the first and the last MiB of it"
    )]
    Corrupt {
        /// The device or file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A setting of the pool is not possible.
    #[error("the pool cannot be made: {what}")]
    BadOption {
        /// What is wrong.
        what: String,
    },
    /// A system call failed.
    #[error("{path}: {doing} failed: {source}")]
    Io {
        /// The device or file.
        path: String,
        /// What was tried.
        doing: &'static str,
        /// The system's words.
        source: io::Error,
    },
}

impl OpenError {
    /// The word for status fields.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "NotFound",
            Self::Mounted { .. } => "Mounted",
            Self::InUse { .. } => "InUse",
            Self::ForeignFilesystem { .. } => "ForeignFilesystem",
            Self::ForeignLabel { .. } => "ForeignLabel",
            Self::TooSmall { .. } => "TooSmall",
            Self::MediaShrunk { .. } => "MediaShrunk",
            Self::FutureVersion { .. } => "FutureVersion",
            Self::Corrupt { .. } => "Corrupt",
            Self::BadOption { .. } => "BadOption",
            Self::Io { .. } => "IoError",
        }
    }
}
