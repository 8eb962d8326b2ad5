//! What a command in flight waits for.

use roadstead_nvme::Sqe;

use crate::io::IoRequest;
use crate::work::Phase;

/// A command in flight.
#[derive(Debug, Default)]
pub(super) enum Slot<B> {
    /// None.
    #[default]
    Free,
    /// The queue keeps it.
    Held { cid: u16 },
    /// Data of a command that is no I/O comes.
    Control(Box<Control>),
    /// A read or a write that waits for a buffer; a write's data came with the command, or will be asked for.
    Waiting {
        cid: u16,
        request: IoRequest,
        data: Option<Vec<u8>>,
    },
    /// A write whose data is whole in the input that is being worked on.
    Direct { cid: u16, request: IoRequest },
    /// A write's data comes, and there was no buffer for it.
    Stash {
        cid: u16,
        request: IoRequest,
        data: Vec<u8>,
        intact: bool,
    },
    /// A write's data comes.
    Collect {
        cid: u16,
        request: IoRequest,
        buffer: B,
        received: u32,
        asked: bool,
        intact: bool,
    },
    /// The rim works on it.
    Io {
        cid: u16,
        is_read: bool,
        length: u32,
        phase: Phase,
    },
}

/// Data of a command that is no I/O.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) cid: u16,
    pub(super) sqe: Sqe,
    pub(super) data: Vec<u8>,
    pub(super) length: u32,
    pub(super) asked: bool,
    pub(super) intact: bool,
}
