//! What a connection of any transport needs from the reactor that drives it.

use crate::io::{IoRequest, IoResult};
use crate::queue::Tag;
use crate::table::VolumeKey;

/// The reactor's storage side.
pub trait Rim {
    /// Memory for the data of one read or write, owned by whoever works on it.
    type Buffer: AsRef<[u8]> + AsMut<[u8]>;

    /// A buffer of at least this many bytes, with any contents. None when there is none now: the command waits until
    /// the connection's `resume`.
    fn allocate(&mut self, length_bytes: usize) -> Option<Self::Buffer>;

    /// Whether [`Self::read_now`] and [`Self::write_now`] are worth trying for a volume.
    fn is_immediate(&self, volume: VolumeKey) -> bool {
        let _ = volume;
        false
    }

    /// Whether [`Self::read_now`] is worth trying for a read: false where a buffer is better, such as for long reads.
    fn reads_now(&self, request: &IoRequest) -> bool {
        self.is_immediate(request.volume)
    }

    /// Reads at once into `into`, which has the request's length. None when that is not possible: the request then
    /// comes by [`Self::submit`], and what is in `into` does not matter.
    fn read_now(&mut self, request: &IoRequest, into: &mut [u8]) -> Option<IoResult> {
        let _ = (request, into);
        None
    }

    /// The data of a read where it lies: a buffer for [`crate::tcp::Output::buffer`] alone, whose bytes this end does not look at.
    /// Not asked for when the data needs a digest. None when that is not possible; [`Self::read_now`] is next then.
    fn lend(&mut self, request: &IoRequest) -> Option<Self::Buffer> {
        let _ = request;
        None
    }

    /// Writes `data`, which has the request's length, at once. None when that is not possible and nothing was written:
    /// the request then comes by [`Self::submit`].
    fn write_now(&mut self, request: &IoRequest, data: &[u8]) -> Option<IoResult> {
        let _ = (request, data);
        None
    }

    /// Starts an I/O that ends with exactly one call of the connection's `complete` with this tag, not before this
    /// returns. Reads come with a buffer to fill, writes with one that holds the data, in its first
    /// `request.length` bytes; others without.
    fn submit(&mut self, tag: Tag, request: IoRequest, buffer: Option<Self::Buffer>);
}

/// One call's view of the reactor.
#[derive(Debug)]
pub struct Turn<'a, R, O> {
    /// Storage.
    pub rim: &'a mut R,
    /// The socket or queue pair.
    pub out: &'a mut O,
    /// A clock that never goes back, ms.
    pub now_ms: u64,
}
