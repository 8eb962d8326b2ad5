//! What is fixed for a run.

use roadstead_initiator::PathPolicy;

use crate::rng::Rng;

pub const SECOND: u64 = 1_000_000;

/// What is broken on purpose, to see that it is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broken {
    /// Nothing.
    #[default]
    No,
    /// The target's rim lets I/O overtake that of lost connections.
    Overtakes,
    /// A connection's reset may reach the target after the host's next connection.
    LateResets,
    /// The drive says that it flushed and did not.
    LazyFlush,
    /// The network changes a byte now and then, and nobody computes digests.
    FlipsBytes,
    /// The target does not tell that it lost its cache.
    HidesLoss,
    /// A write is done twice, the second time when its host knows it done.
    WritesTwice,
    /// A completion is lost now and then: nothing else would notice.
    LosesIo,
}

/// The parameters of a run, drawn from its seed. Times in microseconds.
#[derive(Clone, Debug)]
pub struct Plan {
    pub broken: Broken,
    pub block_bytes: u32,
    pub hosts: usize,
    /// Blocks of each host's own part of the namespace.
    pub blocks: u64,
    /// Blocks that get most of the requests.
    pub hot: u64,
    pub request_blocks_max: u64,
    pub ops: u32,
    pub outstanding_max: usize,
    pub think_us: u64,
    pub header_digest: bool,
    pub data_digest: bool,
    pub io_queues: u16,
    pub queue_depth: u16,
    pub ctrl_loss_us: u64,
    pub fast_io_fail_us: u64,
    pub keep_alive_us: u64,
    pub io_timeout_us: u64,
    pub policy: PathPolicy,
    /// Delay of the network, up to.
    pub net_us: u64,
    /// Bytes under way in a direction of a connection.
    pub pipe_bytes: usize,
    /// Pieces of one delivery that are short, in 1000.
    pub pieces: u64,
    /// The drive's delay, up to.
    pub drive_us: u64,
    /// I/O that takes very long, in 1000.
    pub slow_io: u64,
    /// I/O that fails, in 1000.
    pub failing_io: u64,
    /// The drive is memory, which is read and written at once.
    pub immediate: bool,
    /// Buffers of the target, bytes.
    pub target_buffers: usize,
    /// Time between two troubles, up to; 0 for none.
    pub trouble_us: u64,
}

impl Plan {
    pub fn new(rng: &mut Rng, broken: Broken) -> Self {
        let is_large = rng.permille(30);
        let block_bytes = rng.pick(&[512, 4096]);
        let blocks = if is_large { 640 } else { rng.range(4, 48) };
        let net_us = rng.pick(&[20, 300, 20_000]);
        let calm = rng.permille(60);
        Self {
            broken,
            block_bytes,
            hosts: if rng.permille(250) { 2 } else { 1 },
            blocks,
            hot: rng.range(1, 4),
            request_blocks_max: if is_large {
                600
            } else {
                rng.range(1, blocks.min(24))
            },
            ops: u32::try_from(if is_large { 25 } else { rng.range(40, 160) }).unwrap_or(0),
            outstanding_max: rng.index(if is_large { 12 } else { 24 }) + 1,
            think_us: rng.pick(&[100, 5_000, 60_000]),
            header_digest: rng.permille(500) && broken != Broken::FlipsBytes,
            data_digest: rng.permille(500) && broken != Broken::FlipsBytes,
            io_queues: u16::try_from(rng.range(1, 3)).unwrap_or(1),
            queue_depth: rng.pick(&[1, 2, 7, 32, 127]),
            ctrl_loss_us: rng.pick(&[6, 60, 600, 600]) * SECOND,
            fast_io_fail_us: rng.pick(&[3, 30, 600, 600]) * SECOND,
            keep_alive_us: rng.pick(&[1, 3, 5]) * SECOND,
            io_timeout_us: rng.pick(&[1, 3, 30]) * SECOND,
            policy: rng.pick(&[
                PathPolicy::Nearest,
                PathPolicy::RoundRobin,
                PathPolicy::QueueDepth,
            ]),
            net_us,
            // A link that is slow in every way moves a request in no time that a host waits.
            pipe_bytes: match is_large || net_us > 1000 {
                true => rng.pick(&[70_000, 4_000_000]),
                false => rng.pick(&[300, 5_000, 70_000]),
            },
            pieces: rng.pick(&[0, 100, 500]),
            drive_us: rng.pick(&[10, 200, 10_000]),
            slow_io: rng.pick(&[0, 0, 20, 100]),
            failing_io: rng.pick(&[0, 0, 20]),
            immediate: rng.permille(200),
            target_buffers: rng.pick(&[1 << 20, 3 << 20, 64 << 20]),
            trouble_us: if calm {
                0
            } else {
                rng.pick(&[100_000, 300_000, SECOND, 4 * SECOND])
            },
        }
    }
}
