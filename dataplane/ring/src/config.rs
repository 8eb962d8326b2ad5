//! Settings of a reactor.

use std::io;
use std::time::Duration;

/// Settings of a reactor; [`Default`] suits a storage node.
#[derive(Debug, Clone)]
pub struct ReactorConfig {
    /// Entries of the submission queue; rounded up to a power of two by the kernel.
    pub sq_entries: u32,
    /// How long to look for more work before sleeping.
    pub spin: Duration,
    /// Receive buffers shared by all connections of the reactor; a power of two.
    pub recv_buffers: u16,
    /// Bytes of one receive buffer: what one [`Event::Received`](crate::Event) carries at most.
    pub recv_buffer_bytes: u32,
    /// Bytes that all [`IoBuf`](crate::IoBuf)s of the reactor may hold together.
    pub buf_limit_bytes: usize,
    /// TCP congestion control of every connection; `None` or one that the kernel does not have: its default.
    /// (bbr, a common default, paces what a fast local network could carry at once.)
    pub tcp_congestion: Option<String>,
}

impl Default for ReactorConfig {
    fn default() -> Self {
        Self {
            sq_entries: 1024,
            spin: Duration::from_micros(30),
            recv_buffers: 32,
            recv_buffer_bytes: 64 * 1024,
            buf_limit_bytes: 64 << 20,
            tcp_congestion: Some("cubic".to_owned()),
        }
    }
}

/// Binds the calling thread to one core.
///
/// # Errors
/// The core does not exist or is not allowed to this process.
pub fn pin_current_thread(core: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    if core >= rustix::thread::CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    set.set(core);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}
