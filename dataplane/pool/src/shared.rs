//! What the drive's thread, the reactors and the control plane all see of one pool.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use uuid::Uuid;

use crate::error::Fault;
use crate::format::Geometry;
use crate::grace::GraceClock;

/// Taken before an `fdatasync` of the drive and handed back after it succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "hand it back with `synced` once the sync has succeeded"]
pub struct SyncTicket(pub(crate) u64);

/// Numbers of a pool, all taken without a lock; each is right, together they may be of slightly different times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStats {
    /// The pool.
    pub pool_uuid: Uuid,
    /// The drive.
    pub drive_uuid: Uuid,
    /// Bytes an extent.
    pub extent_bytes: u64,
    /// Room for volumes, bytes.
    pub capacity_bytes: u64,
    /// Room for new volumes: capacity less the sizes of all volumes in whole extents, bytes.
    pub free_bytes: u64,
    /// In use by volumes, bytes.
    pub allocated_bytes: u64,
    /// Zeroed, synced and ready to be given away, bytes.
    pub clean_bytes: u64,
    /// Freed and not yet safe to reuse, bytes.
    pub limbo_bytes: u64,
    /// Volumes in the pool.
    pub volumes: u32,
    /// Why the pool takes no more changes, if it does not.
    pub fault: Option<Fault>,
}

#[derive(Debug)]
pub(crate) struct PoolShared {
    pub(crate) pool_uuid: Uuid,
    pub(crate) drive_uuid: Uuid,
    /// As the pool was opened; the number of extents may have grown since.
    pub(crate) geometry: Geometry,
    extent_count: AtomicU32,
    /// Sequence number of the last journal batch that was written; its extents may be published.
    issued: AtomicU64,
    /// Sequence number of the last journal batch known to be durable.
    durable: AtomicU64,
    fault: OnceLock<Fault>,
    pub(crate) grace: GraceClock,
    pub(crate) reserved_extents: AtomicU64,
    pub(crate) mapped_extents: AtomicU32,
    pub(crate) clean_extents: AtomicU32,
    pub(crate) limbo_extents: AtomicU32,
    pub(crate) volumes: AtomicU32,
}

impl PoolShared {
    pub(crate) fn new(pool_uuid: Uuid, drive_uuid: Uuid, geometry: Geometry) -> Self {
        Self {
            pool_uuid,
            drive_uuid,
            geometry,
            extent_count: AtomicU32::new(geometry.extent_count),
            issued: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            fault: OnceLock::new(),
            grace: GraceClock::default(),
            reserved_extents: AtomicU64::new(0),
            mapped_extents: AtomicU32::new(0),
            clean_extents: AtomicU32::new(0),
            limbo_extents: AtomicU32::new(0),
            volumes: AtomicU32::new(0),
        }
    }

    pub(crate) fn extent_count(&self) -> u32 {
        self.extent_count.load(SeqCst)
    }

    pub(crate) fn set_extent_count(&self, extents: u32) {
        self.extent_count.store(extents, SeqCst);
    }

    pub(crate) fn sync_ticket(&self) -> SyncTicket {
        SyncTicket(self.issued.load(SeqCst))
    }

    pub(crate) fn synced(&self, ticket: SyncTicket) {
        self.durable.fetch_max(ticket.0, SeqCst);
    }

    pub(crate) fn set_issued(&self, seq: u64) {
        self.issued.store(seq, SeqCst);
    }

    pub(crate) fn durable_seq(&self) -> u64 {
        self.durable.load(SeqCst)
    }

    pub(crate) fn is_durable(&self) -> bool {
        // `durable` never exceeds `issued`, so reading it first can only err towards "not yet".
        let durable = self.durable.load(SeqCst);
        durable >= self.issued.load(SeqCst)
    }

    pub(crate) fn fault(&self) -> Option<&Fault> {
        self.fault.get()
    }

    /// The first fault stays.
    pub(crate) fn set_fault(&self, fault: Fault) -> Fault {
        self.fault.get_or_init(|| fault).clone()
    }

    pub(crate) fn stats(&self) -> PoolStats {
        let extent_bytes = self.geometry.extent_bytes;
        let bytes = |extents: u64| extents.saturating_mul(extent_bytes);
        let capacity = u64::from(self.extent_count());
        PoolStats {
            pool_uuid: self.pool_uuid,
            drive_uuid: self.drive_uuid,
            extent_bytes,
            capacity_bytes: bytes(capacity),
            free_bytes: bytes(capacity.saturating_sub(self.reserved_extents.load(SeqCst))),
            allocated_bytes: bytes(self.mapped_extents.load(SeqCst).into()),
            clean_bytes: bytes(self.clean_extents.load(SeqCst).into()),
            limbo_bytes: bytes(self.limbo_extents.load(SeqCst).into()),
            volumes: self.volumes.load(SeqCst),
            fault: self.fault().cloned(),
        }
    }
}
