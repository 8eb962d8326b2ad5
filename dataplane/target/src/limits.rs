//! Every bound of the target.

/// Most bytes that a command moves: 2^8 pages of 4 KiB.
pub const TRANSFER_BYTES_MAX: u32 = 1 << 20;
/// The same as Identify says it.
pub const TRANSFER_MAX_SHIFT: u8 = 8;
/// Most bytes that a Write Zeroes clears: 2^13 pages of 4 KiB.
pub const WRITE_ZEROES_BYTES_MAX: u32 = 32 << 20;
/// The same as Identify says it.
pub const WRITE_ZEROES_MAX_SHIFT: u8 = 13;
/// Most bytes that a Verify reads: 2^13 pages of 4 KiB.
pub const VERIFY_BYTES_MAX: u32 = 32 << 20;
/// The same as Identify says it.
pub const VERIFY_MAX_SHIFT: u8 = 13;
/// Most bytes of one source range of a Copy.
pub const COPY_RANGE_BYTES_MAX: u32 = 4 << 20;
/// Most bytes that a Copy moves.
pub const COPY_BYTES_MAX: u32 = 8 << 20;
/// Most source ranges of a Copy: a page of them.
pub const COPY_RANGES_MAX: u16 = 128;
/// Most blocks of a fused Compare and Write.
pub const COMPARE_WRITE_BLOCKS_MAX: u32 = 1;
const _: () = assert!(4096 << VERIFY_MAX_SHIFT == VERIFY_BYTES_MAX);
const _: () = assert!(COPY_RANGES_MAX as u32 * 32 <= CONTROL_BYTES_MAX);
const _: () = assert!(4096 << TRANSFER_MAX_SHIFT == TRANSFER_BYTES_MAX);
const _: () = assert!(4096 << WRITE_ZEROES_MAX_SHIFT == WRITE_ZEROES_BYTES_MAX);

/// Most entries of a queue, hence commands in flight on a connection, unless [`ControllerLimits`] says otherwise.
pub const QUEUE_ENTRIES_MAX: u16 = 128;
/// Most I/O queues of a controller, unless [`ControllerLimits`] says otherwise.
pub const IO_QUEUES_MAX: u16 = 128;
/// Data bytes that a command capsule may carry. Admin queues need 8192.
pub const IN_CAPSULE_BYTES_MAX: u32 = 16384;
/// Most data in a command capsule of NVMe/RDMA, each of which takes so much of the receive queue.
pub const RDMA_IN_CAPSULE_BYTES_MAX: u32 = 4096;
/// Most data bytes of commands that are not I/O: ranges, keys, a block of a fused pair.
pub const CONTROL_BYTES_MAX: u32 = 4096;
/// Entries of the error log.
pub const ERROR_ENTRIES: usize = 64;
/// The same as Identify says it, zero's based.
pub const ERROR_ENTRIES_ZERO_BASED: u8 = 63;
/// Pairs of subsystem and host whose refusal is remembered, so that it is reported once.
pub const REFUSALS_MAX: usize = 1024;
/// Hosts that may be registered at a namespace.
pub const REGISTRANTS_MAX: usize = 64;
/// Reservation notifications that wait to be read; older ones are dropped, and the count shows it.
pub const NOTICES_MAX: usize = 64;
/// Asynchronous Event Requests that a controller holds.
pub const EVENT_REQUESTS_MAX: u8 = 4;

/// Largest ANA group identifier, and most groups.
pub const ANA_GROUPS_MAX: u32 = 128;
/// Bytes of the ANA log with every group and every namespace.
pub const ANA_LOG_BYTES: usize = 16 + 32 * 128 + 4 * 1024;
const _: () = assert!(ANA_GROUPS_MAX == 128 && crate::NAMESPACE_ID_MAX == 1024);
/// Longest time that hosts let an ANA group be in the state "change", s.
pub const ANA_TRANSITION_S: u8 = 10;

/// Time to connect a queue after the connection was accepted.
pub const CONNECT_MS_MAX: u64 = 10_000;
/// Time without a byte from a host that was asked for data.
pub const DATA_MS_MAX: u64 = 60_000;
/// A discovery controller without keep alive ends when its host is silent for this long.
pub const DISCOVERY_IDLE_MS_MAX: u64 = 120_000;
/// A path that was lost, and is back within [`LOST_PATH_MS`], is not optimized for this long, if its host has another.
pub const PATH_REST_MS: u64 = 5000;
/// A controller that was not heard of for so long counts as lost when its host connects by the same portal again.
pub const SILENT_MS: u64 = 1000;
/// How long a path is known to have been lost.
pub const LOST_PATH_MS: u64 = 600_000;
/// Paths that are known to have been lost, of all hosts.
pub const LOST_PATHS_MAX: usize = 4096;
/// Cross-Controller Resets of a controller that may wait at once.
pub const CROSS_CONTROLLER_RESETS_MAX: u8 = 8;
/// Granularity of the keep alive timer, in the unit of Identify.
pub const KEEP_ALIVE_GRANULARITY_100MS: u16 = 10;
/// The same, and what a deadline has on top of the host's time-out.
pub const KEEP_ALIVE_GRACE_MS: u64 = 1000;

/// Buffers of I/O and unsent output of a connection, bytes. New I/O waits when it would not fit.
pub const BUFFERED_BYTES_MAX: usize = 8 << 20;
/// Unsent output at which a connection takes no more commands, bytes.
pub const OUTPUT_BYTES_MAX: usize = 8 << 20;

/// What controllers offer to hosts, within what the specification has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerLimits {
    queue_entries: u32,
    io_queues: u16,
}

/// Why limits are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Admin queues need 32 entries, and no queue has more than 65536.
    #[error("{0} entries of a queue are not possible; write a number from 32 to 65536")]
    QueueEntries(u32),
    /// A controller without I/O queues is of no use.
    #[error("0 I/O queues are not possible; write a number from 1 to 65535")]
    IoQueues,
}

impl ControllerLimits {
    /// Limits: entries of a queue, 32 to 65536, and I/O queues of a controller, 1 to 65535.
    ///
    /// # Errors
    /// [`LimitError`].
    pub fn new(queue_entries: u32, io_queues: u16) -> Result<Self, LimitError> {
        if !(32..=65536).contains(&queue_entries) {
            return Err(LimitError::QueueEntries(queue_entries));
        }
        if io_queues == 0 {
            return Err(LimitError::IoQueues);
        }
        Ok(Self {
            queue_entries,
            io_queues,
        })
    }

    /// Most entries of a queue.
    #[must_use]
    pub fn queue_entries(self) -> u32 {
        self.queue_entries
    }

    /// Most I/O queues of a controller.
    #[must_use]
    pub fn io_queues(self) -> u16 {
        self.io_queues
    }

    /// Most entries of a queue where 16 bits must do; most hosts ask for far fewer.
    pub(crate) fn queue_entries_16(self) -> u16 {
        u16::try_from(self.queue_entries).unwrap_or(u16::MAX)
    }
}

impl Default for ControllerLimits {
    fn default() -> Self {
        Self {
            queue_entries: u32::from(QUEUE_ENTRIES_MAX),
            io_queues: IO_QUEUES_MAX,
        }
    }
}
