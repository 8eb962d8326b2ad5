//! What is served, as the control side says it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use roadstead_pool::{DriveHandle, Media, Volume};
use roadstead_ring::{OutOfRange, SharedMemory};
use uuid::Uuid;

/// All that is served. Namespaces that cannot be served now are left out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exports {
    /// NQNs are unique.
    pub(crate) subsystems: Vec<ExportedSubsystem>,
}

/// One NVM subsystem.
#[derive(Debug, Clone)]
pub(crate) struct ExportedSubsystem {
    pub(crate) nqn: String,
    /// Serial number of its controllers, at most 20 characters.
    pub(crate) serial: String,
    pub(crate) hosts: HostAccess,
    /// By namespace identifier.
    pub(crate) namespaces: BTreeMap<u32, ExportedNamespace>,
    /// ANA groups of the namespaces that are not in group 1, by namespace identifier.
    pub(crate) ana_groups: BTreeMap<u32, u32>,
}

/// Who may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostAccess {
    Any,
    /// Host NQNs.
    Listed(BTreeSet<String>),
}

/// One namespace: a volume, and how to reach its drive.
#[derive(Clone)]
pub(crate) struct ExportedNamespace {
    pub(crate) volume: Arc<Volume>,
    /// The drive's thread, for allocations.
    pub(crate) drive: DriveHandle,
    /// The drive itself, for reads and writes.
    pub(crate) io: DriveIo,
    /// Of its drive; see [`roadstead_target::Namespace`].
    pub(crate) cache_epoch: Option<Uuid>,
}

impl std::fmt::Debug for ExportedNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ExportedNamespace({})", self.volume.uuid())
    }
}

/// How reactors read and write a drive. Clones of one drive must share the `Arc`, which identifies it.
#[derive(Debug, Clone)]
pub(crate) enum DriveIo {
    /// A file or a block device: the same open file that the pool uses (`try_clone` of `FileMedia::file`).
    File { fd: Arc<OwnedFd> },
    /// Memory, shared with the pool through [`MemoryDrive`].
    Memory(Arc<SharedMemory>),
}

/// A memory drive as the pool's medium; reactors use the same memory through [`DriveIo::Memory`].
#[derive(Debug, Clone)]
pub(crate) struct MemoryDrive(pub(crate) Arc<SharedMemory>);

/// Blocks of a memory drive could be of any size; this lets both kinds of volumes be on it.
const MEMORY_BLOCK_BYTES: u32 = 512;

fn outside(error: OutOfRange) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, error)
}

impl Media for MemoryDrive {
    fn path(&self) -> &str {
        "memory"
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.0.size_bytes())
    }

    fn block_bytes(&self) -> u32 {
        MEMORY_BLOCK_BYTES
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, buffer).map_err(outside)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data).map_err(outside)
    }

    fn zero_range(&self, offset: u64, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.0.zero(offset, len).map_err(outside)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
