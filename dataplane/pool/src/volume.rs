//! What a reactor holds of a volume.

use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use uuid::Uuid;

use crate::error::Fault;
use crate::fence::Fences;
use crate::grace::Slot;
use crate::map::ExtentMap;
use crate::reader::VolumeReader;
use crate::shared::{PoolShared, SyncTicket};

/// Size of a logical block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockSize {
    /// 512 bytes.
    B512,
    /// 4096 bytes.
    B4096,
}

impl BlockSize {
    /// In bytes.
    pub fn bytes(self) -> u32 {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }
}

impl TryFrom<u32> for BlockSize {
    type Error = u32;

    fn try_from(bytes: u32) -> Result<Self, u32> {
        match bytes {
            512 => Ok(Self::B512),
            4096 => Ok(Self::B4096),
            other => Err(other),
        }
    }
}

/// What a new volume is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Identifies it for ever.
    pub uuid: Uuid,
    /// For people; 1 to 255 bytes.
    pub name: String,
    /// A multiple of the block size, not 0.
    pub size_bytes: u64,
    /// Size of its logical blocks.
    pub block_size: BlockSize,
    /// Seconds since 1970.
    pub created_unix_s: u64,
}

/// Who may look a volume up.
pub(crate) mod access {
    /// Everybody.
    pub(crate) const OPEN: u8 = 0;
    /// The holder of an [`crate::Exclusive`].
    pub(crate) const CLOSED: u8 = 1;
    /// Nobody.
    pub(crate) const DELETED: u8 = 2;
}

/// A volume of a pool. It can be read as long as anyone holds it, deleted or not; see [`Volume::is_deleted`].
#[derive(Debug)]
pub struct Volume {
    uuid: Uuid,
    name: String,
    block_size: BlockSize,
    created_unix_s: u64,
    pub(crate) extent_shift: u32,
    pub(crate) data_offset: u64,
    size_bytes: AtomicU64,
    pub(crate) mapped: AtomicU32,
    /// One of [`access`].
    access: AtomicU8,
    /// The counters of its readers, for [`Exclusive`].
    pub(crate) slots: Mutex<Vec<Weak<Slot>>>,
    pub(crate) fences: Fences,
    note: Mutex<Vec<u8>>,
    pub(crate) map: ExtentMap,
    pub(crate) pool: Arc<PoolShared>,
}

impl Volume {
    pub(crate) fn new(spec: &VolumeSpec, pool: Arc<PoolShared>) -> Self {
        Self {
            uuid: spec.uuid,
            name: spec.name.clone(),
            block_size: spec.block_size,
            created_unix_s: spec.created_unix_s,
            extent_shift: pool.geometry.extent_bytes.trailing_zeros(),
            data_offset: pool.geometry.data_offset,
            size_bytes: AtomicU64::new(spec.size_bytes),
            mapped: AtomicU32::new(0),
            access: AtomicU8::new(access::OPEN),
            slots: Mutex::default(),
            fences: Fences::default(),
            note: Mutex::default(),
            map: ExtentMap::default(),
            pool,
        }
    }

    /// Its UUID.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Its name for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Size of its logical blocks.
    pub fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// When it was made, seconds since 1970.
    pub fn created_unix_s(&self) -> u64 {
        self.created_unix_s
    }

    /// Its size; it grows when the volume is grown, and never shrinks.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes.load(SeqCst)
    }

    pub(crate) fn set_size(&self, size_bytes: u64) {
        self.size_bytes.store(size_bytes, SeqCst);
    }

    /// Bytes an extent of its pool.
    pub fn extent_bytes(&self) -> u64 {
        1 << self.extent_shift
    }

    /// Bytes of the drive in use by it.
    pub fn allocated_bytes(&self) -> u64 {
        u64::from(self.mapped.load(SeqCst)) << self.extent_shift
    }

    /// True once it was deleted: every lookup is refused from then on.
    pub fn is_deleted(&self) -> bool {
        self.access.load(SeqCst) == access::DELETED
    }

    pub(crate) fn set_deleted(&self) {
        self.access.store(access::DELETED, SeqCst);
    }

    pub(crate) fn access(&self) -> u8 {
        self.access.load(SeqCst)
    }

    /// Changes from one kind of access to another; false when it was a third.
    pub(crate) fn change_access(&self, from: u8, to: u8) -> bool {
        let changed = self.access.compare_exchange(from, to, SeqCst, SeqCst);
        changed.is_ok()
    }

    /// What the layer above keeps with the volume; empty as long as it kept nothing.
    pub fn note(&self) -> Vec<u8> {
        let note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        note.clone()
    }

    pub(crate) fn set_note(&self, bytes: &[u8]) {
        let mut note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        note.clear();
        note.extend_from_slice(bytes);
    }

    pub(crate) fn spec(&self) -> VolumeSpec {
        VolumeSpec {
            uuid: self.uuid,
            name: self.name.clone(),
            size_bytes: self.size_bytes(),
            block_size: self.block_size,
            created_unix_s: self.created_unix_s,
        }
    }

    /// How many extents it has, mapped or not; the last may be partly past its end.
    pub fn extent_count(&self) -> u32 {
        extents_for(self.size_bytes(), self.extent_shift)
    }

    /// The extents that the bytes touch: what to ask the drive's thread for before a write.
    pub fn extents_of(&self, offset: u64, len: u64) -> Range<u32> {
        let end = offset.saturating_add(len).min(self.size_bytes());
        let first = u32::try_from(offset >> self.extent_shift).unwrap_or(u32::MAX);
        first..extents_for(end, self.extent_shift).max(first)
    }

    /// The extents that lie wholly inside the bytes: what a deallocate of them can give back. The last
    /// extent counts as whole when the bytes reach the volume's end.
    pub fn whole_extents(&self, offset: u64, len: u64) -> Range<u32> {
        let end = offset.saturating_add(len);
        let first = extents_for(offset, self.extent_shift);
        let last = if end >= self.size_bytes() {
            self.extent_count()
        } else {
            u32::try_from(end >> self.extent_shift).unwrap_or(u32::MAX)
        };
        first..last.max(first)
    }

    /// A reader of this volume, for one thread (a connection, or a reactor).
    pub fn reader(self: &Arc<Self>) -> VolumeReader {
        let slot = self.pool.grace.register();
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|slot| slot.strong_count() > 0);
        slots.push(Arc::downgrade(&slot));
        drop(slots);
        VolumeReader::new(Arc::clone(self), slot)
    }

    /// A reader whose I/O an [`crate::Exclusive`] does not wait for, as it may take as long as a host likes. Only for
    /// reading.
    pub fn lender(self: &Arc<Self>) -> VolumeReader {
        VolumeReader::new(Arc::clone(self), self.pool.grace.register())
    }

    /// Take this before a sync of the drive, hand it to [`Volume::synced`] when the sync has succeeded.
    ///
    /// **Flush**: ticket, `fdatasync` of the drive, `synced`, acknowledge. It makes durable every write that
    /// was acknowledged before, and the map entries behind it, of all volumes of the drive.
    ///
    /// **FUA**: when [`Volume::map_is_durable`] holds after the lookup, a write with `RWF_DSYNC` is enough.
    /// Otherwise treat it as a write followed by a Flush: `RWF_DSYNC` covers the data alone, not the journal.
    pub fn sync_ticket(&self) -> SyncTicket {
        self.pool.sync_ticket()
    }

    /// The sync that was started after `ticket` was taken has succeeded. Never call it after one that failed.
    pub fn synced(&self, ticket: SyncTicket) {
        self.pool.synced(ticket);
    }

    /// Whether every map entry published so far is known to be durable.
    pub fn map_is_durable(&self) -> bool {
        self.pool.is_durable()
    }

    /// Why its pool takes no more changes. Writes and Flush must fail then; reads may be tried.
    pub fn fault(&self) -> Option<&Fault> {
        self.pool.fault()
    }

    /// A reactor's own I/O to the drive failed. A failed sync must be reported; the system may have thrown
    /// the data away and would let the next sync succeed.
    pub fn report_fault(&self, fault: Fault) {
        self.pool.set_fault(fault);
    }
}

pub(crate) fn extents_for(bytes: u64, extent_shift: u32) -> u32 {
    u32::try_from(bytes.div_ceil(1 << extent_shift)).unwrap_or(u32::MAX)
}
