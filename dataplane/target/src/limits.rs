//! Every bound of the target.

/// Most bytes that a command moves: 2^8 pages of 4 KiB.
pub const TRANSFER_BYTES_MAX: u32 = 1 << 20;
/// The same as Identify says it.
pub const TRANSFER_MAX_SHIFT: u8 = 8;
/// Most bytes that a Write Zeroes clears: 2^13 pages of 4 KiB.
pub const WRITE_ZEROES_BYTES_MAX: u32 = 32 << 20;
/// The same as Identify says it.
pub const WRITE_ZEROES_MAX_SHIFT: u8 = 13;
const _: () = assert!(4096 << TRANSFER_MAX_SHIFT == TRANSFER_BYTES_MAX);
const _: () = assert!(4096 << WRITE_ZEROES_MAX_SHIFT == WRITE_ZEROES_BYTES_MAX);

/// Most entries of a queue, hence commands in flight on a connection.
pub const QUEUE_ENTRIES_MAX: u16 = 128;
/// Most I/O queues of a controller.
pub const IO_QUEUES_MAX: u16 = 128;
/// Data bytes that a command capsule may carry. Admin queues need 8192.
pub const IN_CAPSULE_BYTES_MAX: u32 = 16384;
/// Most data bytes of commands that are not I/O: the ranges of Dataset Management.
pub const CONTROL_BYTES_MAX: u32 = 4096;
/// Asynchronous Event Requests that a controller holds.
pub const EVENT_REQUESTS_MAX: u8 = 4;

/// Largest ANA group identifier, and most groups.
pub const ANA_GROUPS_MAX: u32 = 128;
/// Longest time that hosts let an ANA group be in the state "change", s.
pub const ANA_TRANSITION_S: u8 = 10;

/// Time to connect a queue after the connection was accepted.
pub const CONNECT_MS_MAX: u64 = 10_000;
/// Time without a byte from a host that was asked for data.
pub const DATA_MS_MAX: u64 = 60_000;
/// A discovery controller without keep alive ends when its host is silent for this long.
pub const DISCOVERY_IDLE_MS_MAX: u64 = 120_000;
/// Granularity of the keep alive timer, in the unit of Identify.
pub const KEEP_ALIVE_GRANULARITY_100MS: u16 = 10;
/// The same, and what a deadline has on top of the host's time-out.
pub const KEEP_ALIVE_GRACE_MS: u64 = 1000;

/// Buffers of I/O and unsent output of a connection, bytes. New I/O waits when it would not fit.
pub const BUFFERED_BYTES_MAX: usize = 8 << 20;
/// Unsent output at which a connection takes no more commands, bytes.
pub const OUTPUT_BYTES_MAX: usize = 8 << 20;
