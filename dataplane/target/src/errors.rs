//! The error log of a controller (section 5.16.1.2).

use std::collections::VecDeque;

use roadstead_nvme::log::{ErrorEntry, transport};
use roadstead_nvme::{Sqe, Status, opcode};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use crate::limits;
use crate::queue::Tag;

/// What the log keeps of a command.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    lba: u64,
    nsid: u32,
    opcode: u8,
}

impl Mark {
    /// Fabrics commands are the transport's affair and have no entries.
    pub(crate) fn is_fabrics(self) -> bool {
        self.opcode == opcode::FABRICS
    }
}

/// The commands in flight of a queue, by tag. Grows with use up to the queue's size.
#[derive(Debug, Default)]
pub(crate) struct Marks(Vec<Mark>);

impl Marks {
    /// A command begins.
    pub(crate) fn set(&mut self, tag: Tag, sqe: &Sqe) {
        let index = usize::from(tag.0);
        if index >= self.0.len() {
            self.0.resize(index + 1, Mark::default());
        }
        if let Some(mark) = self.0.get_mut(index) {
            *mark = Mark {
                lba: sqe.cdw10_11(),
                nsid: sqe.nsid.get(),
                opcode: sqe.opcode,
            };
        }
    }

    pub(crate) fn get(&self, tag: Tag) -> Mark {
        self.0.get(usize::from(tag.0)).copied().unwrap_or_default()
    }
}

/// Whether a command with this status gets an entry: one that failed by its own or by the medium's fault, not one whose
/// path is at fault or that was taken back.
pub(crate) fn is_logged(status: Status) -> bool {
    !status.is_success()
        && !status.is_path_related()
        && status.code() != Status::ABORT_REQUESTED.code()
}

/// The last errors.
#[derive(Debug, Default)]
pub(crate) struct ErrorLog {
    /// Newest first, at most [`limits::ERROR_ENTRIES`].
    entries: VecDeque<ErrorEntry>,
    pub(crate) count: u64,
    pub(crate) media_errors: u64,
}

impl ErrorLog {
    /// A command of a queue failed. Its completion has this status.
    pub(crate) fn note(&mut self, qid: u16, cid: u16, status: Status, mark: Mark) {
        self.count = self.count.saturating_add(1);
        if status.is_media_error() {
            self.media_errors = self.media_errors.saturating_add(1);
        }
        self.entries.truncate(limits::ERROR_ENTRIES - 1);
        let is_io = qid != 0;
        self.entries.push_front(ErrorEntry {
            count: U64::new(self.count),
            sqid: U16::new(qid),
            cid: U16::new(cid),
            status: U16::new(status.0 << 1),
            location: U16::new(ErrorEntry::NOWHERE),
            lba: U64::new(if is_io { mark.lba } else { 0 }),
            nsid: U32::new(mark.nsid),
            transport: transport::TCP,
            opcode: mark.opcode,
            version: 1,
            ..ErrorEntry::new_zeroed()
        });
    }

    /// The log page, whole.
    pub(crate) fn page(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(limits::ERROR_ENTRIES * size_of::<ErrorEntry>());
        for entry in &self.entries {
            page.extend_from_slice(entry.as_bytes());
        }
        page.resize(limits::ERROR_ENTRIES * size_of::<ErrorEntry>(), 0);
        page
    }
}
