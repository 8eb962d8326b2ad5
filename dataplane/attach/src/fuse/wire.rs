//! The kernel's FUSE protocol (linux/fuse.h, version 7.36): the part that one file needs.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version spoken here.
pub(super) const MAJOR: u32 = 7;
/// Minor version spoken here: the first with a second word of INIT flags.
pub(super) const MINOR: u32 = 36;

/// The root directory's node.
pub(super) const NODE_ROOT: u64 = 1;
/// The file's node.
pub(super) const NODE_FILE: u64 = 2;

/// Bytes of an [`OutHeader`].
pub(super) const HEADER_BYTES: u32 = 16;

/// In the place of an error, with no request's number: resend what is unanswered (`FUSE_NOTIFY_RESEND`).
pub(super) const NOTIFY_RESEND: i32 = 7;

/// Request codes.
pub(super) mod op {
    pub(in super::super) const LOOKUP: u32 = 1;
    pub(in super::super) const FORGET: u32 = 2;
    pub(in super::super) const GETATTR: u32 = 3;
    pub(in super::super) const OPEN: u32 = 14;
    pub(in super::super) const READ: u32 = 15;
    pub(in super::super) const WRITE: u32 = 16;
    pub(in super::super) const STATFS: u32 = 17;
    pub(in super::super) const RELEASE: u32 = 18;
    pub(in super::super) const FSYNC: u32 = 20;
    pub(in super::super) const FLUSH: u32 = 25;
    pub(in super::super) const INIT: u32 = 26;
    pub(in super::super) const INTERRUPT: u32 = 36;
    pub(in super::super) const DESTROY: u32 = 38;
    pub(in super::super) const BATCH_FORGET: u32 = 42;
    pub(in super::super) const FALLOCATE: u32 = 43;
}

/// Flags of INIT.
pub(super) mod init {
    /// Reads need not come in order.
    pub(in super::super) const ASYNC_READ: u32 = 1 << 0;
    /// Writes larger than a page.
    pub(in super::super) const BIG_WRITES: u32 = 1 << 5;
    /// Direct I/O need not come in order.
    pub(in super::super) const ASYNC_DIO: u32 = 1 << 15;
    /// `max_pages` is set.
    pub(in super::super) const MAX_PAGES: u32 = 1 << 22;
}

/// Flags of the answer to OPEN.
pub(super) mod open {
    /// No page cache.
    pub(in super::super) const DIRECT_IO: u32 = 1 << 0;
    /// Direct writes to one file side by side.
    pub(in super::super) const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
}

/// Modes of FALLOCATE.
pub(super) mod falloc {
    pub(in super::super) const KEEP_SIZE: u32 = 0x01;
    pub(in super::super) const PUNCH_HOLE: u32 = 0x02;
    pub(in super::super) const ZERO_RANGE: u32 = 0x10;
}

/// Before every request.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct InHeader {
    pub(super) len: u32,
    pub(super) opcode: u32,
    pub(super) unique: u64,
    pub(super) nodeid: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) pid: u32,
    pub(super) extensions: u32,
}

/// Before every answer.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct OutHeader {
    pub(super) len: u32,
    /// 0 or a negative errno.
    pub(super) error: i32,
    pub(super) unique: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct InitIn {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) max_readahead: u32,
    pub(super) flags: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct InitOut {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) max_readahead: u32,
    pub(super) flags: u32,
    pub(super) max_background: u16,
    pub(super) congestion_threshold: u16,
    pub(super) max_write: u32,
    pub(super) time_granularity_ns: u32,
    pub(super) max_pages: u16,
    pub(super) map_alignment: u16,
    pub(super) flags2: u32,
    pub(super) reserved: [u32; 7],
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct Attr {
    pub(super) node: u64,
    pub(super) size: u64,
    pub(super) blocks: u64,
    pub(super) times: [u64; 3],
    pub(super) times_ns: [u32; 3],
    pub(super) mode: u32,
    pub(super) links: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) rdev: u32,
    pub(super) block_size: u32,
    pub(super) flags: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct AttrOut {
    pub(super) valid_s: u64,
    pub(super) valid_ns: u32,
    pub(super) reserved: u32,
    pub(super) attr: Attr,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct EntryOut {
    pub(super) node: u64,
    pub(super) generation: u64,
    pub(super) entry_valid_s: u64,
    pub(super) attr_valid_s: u64,
    pub(super) valid_ns: [u32; 2],
    pub(super) attr: Attr,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct OpenOut {
    pub(super) handle: u64,
    pub(super) flags: u32,
    pub(super) reserved: u32,
}

/// READ and WRITE; a write's data follows.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct TransferIn {
    pub(super) handle: u64,
    pub(super) offset: u64,
    pub(super) size: u32,
    pub(super) transfer_flags: u32,
    pub(super) lock_owner: u64,
    pub(super) flags: u32,
    pub(super) reserved: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct WriteOut {
    pub(super) size: u32,
    pub(super) reserved: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct FallocateIn {
    pub(super) handle: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) mode: u32,
    pub(super) reserved: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct StatfsOut {
    pub(super) blocks: [u64; 5],
    pub(super) block_size: u32,
    pub(super) name_max: u32,
    pub(super) fragment_size: u32,
    pub(super) reserved: [u32; 7],
}

const _: () = assert!(size_of::<InHeader>() == 40);
const _: () = assert!(size_of::<OutHeader>() == 16);
const _: () = assert!(size_of::<InitIn>() == 16);
const _: () = assert!(size_of::<InitOut>() == 64);
const _: () = assert!(size_of::<Attr>() == 88);
const _: () = assert!(size_of::<AttrOut>() == 104);
const _: () = assert!(size_of::<EntryOut>() == 128);
const _: () = assert!(size_of::<OpenOut>() == 16);
const _: () = assert!(size_of::<TransferIn>() == 40);
const _: () = assert!(size_of::<WriteOut>() == 8);
const _: () = assert!(size_of::<FallocateIn>() == 32);
const _: () = assert!(size_of::<StatfsOut>() == 80);
