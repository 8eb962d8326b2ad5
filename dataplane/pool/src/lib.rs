//! The pool: one drive, its on-medium format, and the thin volumes on it.
//!
//! # Parts
//! - [`media`]: what a pool lies on: a file, a block device, memory, or a simulated drive that loses power.
//! - [`format`](mod@format): label, checkpoint, journal; byte layouts and nothing else.
//! - [`Pool`]: the core. One thread owns it; every call is blocking and rare.
//! - [`DriveThread`] and [`DriveHandle`]: the thread that owns a pool and the handle that everyone else uses.
//! - [`Volume`] and [`VolumeReader`]: what a reactor holds; lookups take no lock and no allocation.
//! - [`probe`]: what is on a device before we take it, and which devices there are.
//!
//! # Guarantees
//! - **A write that was acknowledged and flushed is there after a power cut at any moment.** The journal
//!   batch that maps an extent is written (completed, in the drive's cache at least) before the extent is
//!   published to reactors. So every data write into a new extent is issued after its journal write, and one
//!   `fdatasync` of the drive after both covers both. See [`Volume::sync_ticket`] for Flush and FUA.
//! - **No volume ever shows another's data.** An extent is given to a volume only after it was zeroed and
//!   the zeroes were synced by this process. Whether an extent was clean is never taken from the medium.
//! - **Freed space is reused only when nobody can still reach it**: the free record is durable, and every
//!   I/O that may have looked the extent up has ended (two counters a reader).
//! - **No leak**: free space is what no map mentions; there is no second list that could disagree.
//! - **Any one 4 KiB block of metadata may rot**: labels have three copies, journal batches two, and a
//!   damaged checkpoint is rebuilt from its predecessor. More damage than that is an error, never a guess.
//! - **One I/O alone**: an [`Exclusive`] lets nobody else look a volume up, and waits for those who did before.
//! - **Notes**: bytes that the layer above keeps with a volume ([`Command::Note`]), durable like the volume itself.
//! - **No overcommit**: the sizes of all volumes together fit the drive.
//!
//! # Assumed
//! A sector of 512 bytes is written whole or not at all; a completed sync means durable; the drive returns
//! what was written or an error (checksums of data are a layer above).
//!
//! # How a reactor uses it
//! ```
//! # use std::sync::Arc;
//! # use roadstead_pool::{BlockSize, Command, DriveThread, OpenOptions, Pool, VolumeSpec, media::MemoryMedia};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let media = Arc::new(MemoryMedia::new(64 << 20));
//! let pool = Pool::open_or_format(media, &OpenOptions::new("target-1"))?;
//! let drive = DriveThread::start(pool, "drive")?;
//! let volume = drive.handle().create_volume(VolumeSpec {
//!     uuid: uuid::Uuid::new_v4(),
//!     name: "data".to_owned(),
//!     size_bytes: 16 << 20,
//!     block_size: BlockSize::B4096,
//!     created_unix_s: 0,
//! })?;
//! // A write into a hole: ask for extents; the answer wakes the reactor (here the caller waits).
//! let extents = volume.extents_of(8192, 4096);
//! drive.handle().call(|reply| Command::Allocate(volume.uuid(), extents, reply))?;
//! // Then, as for every I/O: count in, look up, read or write the drive, count out.
//! let reader = volume.reader();
//! let io = reader.begin();
//! for piece in reader.lookup(&io, 8192, 4096)? {
//!     assert!(piece.drive_offset.is_some());
//! }
//! reader.end(io);
//! // Flush: ticket, sync the drive, hand the ticket back.
//! let ticket = volume.sync_ticket();
//! volume.synced(ticket);
//! assert!(volume.map_is_durable());
//! # drive.close();
//! # Ok(())
//! # }
//! ```
//!
//! # Left out
//! Snapshots, shrinking, moving volumes between drives, pools over several drives.

mod bitmap;
mod blocks;
mod drive;
mod error;
mod exclusive;
mod fence;
pub mod format;
mod grace;
mod map;
pub mod media;
mod open;
mod pool;
pub mod probe;
mod reader;
mod recover;
mod reserve;
mod shared;
mod space;
mod state;
mod store;
mod volume;

pub use blocks::{BLOCK_BYTES, Blocks};
pub use drive::{Command, DriveHandle, DriveThread, NoteSource, Rejected, Reply};
pub use error::{Fault, FaultKind, OpenError, PoolError};
pub use exclusive::Exclusive;
pub use fence::Fence;
pub use format::record::MAX_NOTE_BYTES;
pub use media::Media;
pub use open::OpenOptions;
pub use pool::Pool;
pub use reader::{InFlight, LookupError, Segment, Segments, VolumeReader};
pub use reserve::GraceToken;
pub use shared::{PoolStats, SyncTicket};
pub use space::{ExtentRequest, Outcome};
pub use volume::{BlockSize, Volume, VolumeSpec};
