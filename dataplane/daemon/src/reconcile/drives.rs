//! Opens the drives that a state names: finds the device, makes sure that it is the right one, takes it.

use std::fs::Metadata;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use roadstead_api::v1::{self, DriveState};
use roadstead_pool::format::Geometry;
use roadstead_pool::media::FileMedia;
use roadstead_pool::probe::{Claim, Device, Machine, Wanted};
use roadstead_pool::{DriveHandle, DriveThread, FaultKind, Media, OpenError, OpenOptions, Pool};
use roadstead_ring::SharedMemory;
use uuid::Uuid;

use crate::desired::{DriveSpec, Source};
use crate::serve::{DriveIo, MemoryDrive};
use crate::status::DriveAbout;

/// Linux's limit for the name of a thread.
const THREAD_NAME_LENGTH_MAX: usize = 15;
/// Media sizes that are tried to find one with the room asked for.
const SIZING_STEPS_MAX: usize = 8;

/// A drive that was taken.
pub(crate) struct Drive {
    thread: DriveThread,
    pub(crate) io: DriveIo,
    pub(crate) about: DriveAbout,
    place: Option<Place>,
    /// See [`super::caches`].
    pub(crate) cache_epoch: Uuid,
}

/// Where the drive's file or device node was found, and which it was.
struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// The device that the node stands for; 0 for a file.
    special: u64,
}

impl Place {
    fn of(path: &Path, metadata: &Metadata) -> Self {
        let path = path.to_owned();
        Self {
            path,
            device: metadata.dev(),
            inode: metadata.ino(),
            special: metadata.rdev(),
        }
    }

    fn is_device(&self) -> bool {
        self.special != 0
    }

    /// Whether it is still there. A device node may be made anew; it is the device that counts.
    fn is_there(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|now| match self.special {
            0 => (now.dev(), now.ino()) == (self.device, self.inode),
            special => now.rdev() == special,
        })
    }
}

/// Why a drive was not taken. Nothing was written to it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriveError {
    /// The pool said no.
    #[error(transparent)]
    Pool(#[from] OpenError),
    /// The drive carried a pool for us before; what is there now is blank.
    #[error(
        "{path} carried the pool {known} and is blank now; bring the right drive back, or set `force: true` \
         to begin anew: the volumes of the old pool are lost then"
    )]
    PoolLost { path: String, known: Uuid },
    /// It carries another pool than before.
    #[error(
        "{path} carries the pool {found}, but this drive's pool is {known}: two drives have changed places. \
         Name drives by serial number"
    )]
    OtherPool {
        path: String,
        known: Uuid,
        found: Uuid,
    },
    /// The memory cannot be had.
    #[error("no memory for a drive of {size_bytes} bytes: {source}")]
    Memory {
        size_bytes: u64,
        source: roadstead_ring::RingError,
    },
    /// A system call failed.
    #[error("{path}: {doing} failed: {source}")]
    Io {
        path: String,
        doing: &'static str,
        source: io::Error,
    },
}

impl DriveError {
    /// The word and the state for the report.
    pub(crate) fn verdict(&self) -> (&'static str, DriveState) {
        match self {
            Self::Pool(error) => {
                let state = match error {
                    OpenError::NotFound { .. } => DriveState::Missing,
                    OpenError::Corrupt { .. } | OpenError::Io { .. } => DriveState::Failed,
                    _ => DriveState::Refused,
                };
                (error.reason(), state)
            }
            Self::PoolLost { .. } => ("PoolLost", DriveState::Refused),
            Self::OtherPool { .. } => ("OtherPool", DriveState::Refused),
            Self::Memory { .. } => ("NoMemory", DriveState::Failed),
            Self::Io { .. } => ("IoError", DriveState::Failed),
        }
    }
}

/// Takes a drive. `known` is the pool that it carried when it was open last.
///
/// # Errors
/// [`DriveError`]: the drive is as it was.
pub(crate) fn open(spec: &DriveSpec, known: Option<Uuid>) -> Result<Drive, DriveError> {
    match &spec.source {
        Source::Memory { size_bytes } => open_memory(spec, *size_bytes),
        Source::File { path, size_bytes } => {
            if known.is_some() && !spec.force && !path.exists() {
                let what = format!("{}, which carried a pool,", path.display());
                return Err(OpenError::NotFound { what }.into());
            }
            let media = FileMedia::open_file(path, *size_bytes).map_err(|e| refused(path, e))?;
            let about = DriveAbout {
                path: path.display().to_string(),
                ..DriveAbout::default()
            };
            take(spec, known, media, path, about)
        }
        Source::Path(path) => open_device(spec, Wanted::Path(path.clone()), known),
        Source::Serial(serial) => open_device(spec, Wanted::Serial(serial.clone()), known),
        Source::Model(model) => open_device(spec, Wanted::Model(model.clone()), known),
    }
}

fn open_device(spec: &DriveSpec, wanted: Wanted, known: Option<Uuid>) -> Result<Drive, DriveError> {
    let claim = Claim {
        owner: &spec.owner,
        known,
        force: spec.force,
    };
    let device = Machine::default().find(&wanted, &claim)?;
    let media = FileMedia::open_device(&device.path).map_err(|e| refused(&device.path, e))?;
    let about = DriveAbout {
        path: device.path.display().to_string(),
        serial: device.serial,
        model: device.model,
    };
    // Links to it may come and go; the device's own node tells whether it is there.
    let node = device.path.canonicalize().unwrap_or(device.path);
    take(spec, known, media, &node, about)
}

/// The blank drives of this machine that nothing uses.
pub(crate) fn unused() -> Vec<v1::UnusedDrive> {
    let unused = Machine::default().unused_drives();
    let report = |device: Device| v1::UnusedDrive {
        path: device.path.display().to_string(),
        serial: device.serial,
        model: device.model,
        size_bytes: device.size_bytes,
    };
    unused.into_iter().map(report).collect()
}

/// A memory drive of `size_bytes` has that much room for volumes; the pool's own tables come on top.
fn open_memory(spec: &DriveSpec, size_bytes: u64) -> Result<Drive, DriveError> {
    let options = options(spec);
    let whole = media_bytes_for(size_bytes, options.extent_bytes);
    let no_memory = |source| DriveError::Memory { size_bytes, source };
    let length = usize::try_from(whole).unwrap_or(usize::MAX);
    let memory = Arc::new(SharedMemory::new(length).map_err(no_memory)?);
    let media = Arc::new(MemoryDrive(Arc::clone(&memory)));
    let about = DriveAbout {
        path: "memory".to_owned(),
        ..DriveAbout::default()
    };
    start(
        spec,
        Pool::open_or_format(media, &options)?,
        DriveIo::Memory(memory),
        about,
        None,
    )
}

/// The size of a medium on which a new pool has room for `room_bytes`.
fn media_bytes_for(room_bytes: u64, extent_bytes: u64) -> u64 {
    let extents = room_bytes.div_ceil(extent_bytes);
    let mut media_bytes = extents.saturating_mul(extent_bytes);
    for _ in 0..SIZING_STEPS_MAX {
        let lacking = match Geometry::plan(media_bytes, extent_bytes, None) {
            Ok(geometry) => extents.saturating_sub(u64::from(geometry.extent_count)) * extent_bytes,
            Err(least_bytes) => least_bytes.saturating_sub(media_bytes),
        };
        if lacking == 0 {
            break;
        }
        media_bytes = media_bytes.saturating_add(lacking);
    }
    media_bytes
}

fn options(spec: &DriveSpec) -> OpenOptions {
    OpenOptions {
        force: spec.force,
        ..OpenOptions::new(spec.owner.clone())
    }
}

fn take(
    spec: &DriveSpec,
    known: Option<Uuid>,
    media: FileMedia,
    path: &Path,
    about: DriveAbout,
) -> Result<Drive, DriveError> {
    let failed = |doing| {
        let path = path.display().to_string();
        move |source| DriveError::Io {
            path,
            doing,
            source,
        }
    };
    let file = media
        .file()
        .try_clone()
        .map_err(failed("opening for I/O"))?;
    let place = Place::of(path, &file.metadata().map_err(failed("looking at it"))?);
    let io = DriveIo::File {
        fd: Arc::new(OwnedFd::from(file)),
    };
    let media: Arc<dyn Media> = Arc::new(media);
    if let Some(known) = known.filter(|_| !spec.force) {
        let path = path.display().to_string();
        match Pool::read_label(Arc::clone(&media))? {
            None => return Err(DriveError::PoolLost { path, known }),
            Some(label) if label.owner == spec.owner && label.pool_uuid != known => {
                return Err(DriveError::OtherPool {
                    path,
                    known,
                    found: label.pool_uuid,
                });
            }
            Some(_) => {}
        }
    }
    let pool = Pool::open_or_format(media, &options(spec))?;
    start(spec, pool, io, about, Some(place))
}

fn start(
    spec: &DriveSpec,
    pool: Pool,
    io: DriveIo,
    about: DriveAbout,
    place: Option<Place>,
) -> Result<Drive, DriveError> {
    let name: String = spec
        .name
        .chars()
        .rev()
        .take(THREAD_NAME_LENGTH_MAX)
        .collect();
    let name: String = name.chars().rev().collect();
    let path = about.path.clone();
    let failed = |source| DriveError::Io {
        path,
        doing: "starting its thread",
        source,
    };
    let thread = DriveThread::start(pool, &name).map_err(failed)?;
    Ok(Drive {
        thread,
        io,
        about,
        place,
        // Memory is another each time; what is on a device is looked up.
        cache_epoch: Uuid::new_v4(),
    })
}

/// The error of opening as the pool's, where that has a word for it.
fn refused(path: &Path, source: io::Error) -> DriveError {
    let path = path.display().to_string();
    let error = match source
        .raw_os_error()
        .map(rustix::io::Errno::from_raw_os_error)
    {
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::NXIO | rustix::io::Errno::NODEV) => {
            OpenError::NotFound { what: path }
        }
        Some(rustix::io::Errno::BUSY | rustix::io::Errno::WOULDBLOCK) => OpenError::InUse {
            path,
            holder: "another program".to_owned(),
        },
        _ => OpenError::Io {
            path,
            doing: "opening",
            source,
        },
    };
    error.into()
}

impl Drive {
    pub(crate) fn handle(&self) -> &DriveHandle {
        self.thread.handle()
    }

    /// The file or device node that it was opened by.
    pub(crate) fn node(&self) -> Option<&Path> {
        self.place.as_ref().map(|place| place.path.as_path())
    }

    /// Ends the drive's thread; the device is free when the last I/O has ended.
    pub(crate) fn close(self) {
        self.thread.close();
    }

    /// The same after the last host has gone. The pool, if everything that was acknowledged is durable now.
    pub(crate) fn close_clean(self) -> Option<Uuid> {
        let (pool, io) = (self.handle().stats().pool_uuid, self.io.clone());
        let handle = self.handle().clone();
        self.close();
        let DriveIo::File { fd } = io else {
            return None;
        };
        let is_synced = rustix::fs::fdatasync(&fd).is_ok() && handle.fault().is_none();
        is_synced.then_some(pool)
    }

    /// Whether the device has gone away.
    pub(crate) fn is_gone(&self) -> bool {
        let is_gone = self
            .handle()
            .fault()
            .is_some_and(|fault| fault.kind == FaultKind::Gone);
        is_gone
            || self
                .place
                .as_ref()
                .is_some_and(|place| place.is_device() && !place.is_there())
    }

    /// A sentence if the drive's file was removed although it is still open.
    pub(crate) fn removed_file(&self) -> Option<String> {
        let place = self.place.as_ref()?;
        (!place.is_device() && !place.is_there()).then(|| {
            format!(
                "{} was removed while it is in use; what it holds is served until the daemon stops, \
                 and lost then. Copy the data now",
                place.path.display()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_exactly_the_room_asked_for() {
        for room in [1 << 20, 64 << 20, 1 << 30, 1 << 40, (1 << 30) + 1] {
            let whole = media_bytes_for(room, 1 << 20);
            let geometry = Geometry::plan(whole, 1 << 20, None).unwrap();
            assert_eq!(
                u64::from(geometry.extent_count),
                u64::div_ceil(room, 1 << 20),
                "{room}"
            );
        }
    }
}
