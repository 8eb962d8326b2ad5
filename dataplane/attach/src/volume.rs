//! What a server of block requests needs of a namespace, so that it can be tested without one.

use roadstead_initiator::{IoError, Namespace, NamespaceRequest, Op};

/// Called once with the outcome and the memory of the request.
pub(crate) type Done = Box<dyn FnOnce(Result<(), IoError>, Vec<u8>) + Send>;

/// A block device with many requests in flight.
pub(crate) trait Volume: Send + Sync + 'static {
    /// Bytes of a block.
    fn block_bytes(&self) -> u32;
    /// Its size, in bytes, as last seen.
    fn size_bytes(&self) -> u64;
    /// Starts a request; `done` may be called on another thread, and must not block.
    fn submit(&self, op: Op, lba: u64, blocks: u32, bytes: Vec<u8>, done: Done);
}

impl Volume for Namespace {
    fn block_bytes(&self) -> u32 {
        self.info().block_bytes
    }

    fn size_bytes(&self) -> u64 {
        let info = self.info();
        info.blocks.saturating_mul(u64::from(info.block_bytes))
    }

    fn submit(&self, op: Op, lba: u64, blocks: u32, bytes: Vec<u8>, done: Done) {
        let request = NamespaceRequest {
            op,
            lba,
            blocks,
            bytes,
            start: 0,
            done,
        };
        if let Err(back) = Namespace::submit(self, request) {
            (back.done)(Err(IoError::Closed), back.bytes);
        }
    }
}
