//! From what the target's core asks for to work of the queue pair.

use std::collections::VecDeque;

use roadstead_nvme::Cqe;
use roadstead_rdma::Remote;
use roadstead_ring::{BufPool, IoBuf};
use roadstead_target::{IoRequest, IoResult, Rim, Tag, VolumeKey, rdma};
use roadstead_verbs::{QueuePair, VerbsError};
use zerocopy::IntoBytes;

use super::super::rim::{Data, Storage};

/// Something that is to be done in its order.
#[derive(Debug)]
pub(super) enum Work {
    Fetch(Tag, Remote, IoBuf),
    Write(Remote, IoBuf),
    Respond(Cqe, Option<u32>),
}

/// The way to one queue pair.
pub(super) struct Way {
    pub(super) pair: QueuePair,
    /// What found no room in its send queue.
    backlog: VecDeque<Work>,
    /// Bytes of buffers that are here or with the device.
    pending_bytes: usize,
    failure: Option<VerbsError>,
}

impl Way {
    pub(super) fn new(pair: QueuePair) -> Self {
        Self {
            pair,
            backlog: VecDeque::new(),
            pending_bytes: 0,
            failure: None,
        }
    }

    fn put(&mut self, work: Work) {
        if let Work::Fetch(_, _, buffer) | Work::Write(_, buffer) = &work {
            self.pending_bytes += buffer.capacity();
        }
        if self.backlog.is_empty() && self.pair.room() > 0 {
            self.post(work);
        } else {
            self.backlog.push_back(work);
        }
    }

    fn post(&mut self, work: Work) {
        let place = |remote: Remote| roadstead_verbs::Remote {
            address: remote.address,
            key: remote.key,
        };
        let result = match work {
            Work::Fetch(tag, remote, buffer) => {
                let length = remote.length;
                self.pair
                    .read(u64::from(tag.0), buffer, length, place(remote))
            }
            Work::Write(remote, buffer) => self.pair.write(0, buffer, remote.length, place(remote)),
            Work::Respond(cqe, invalidate) => self.pair.send(0, cqe.as_bytes(), None, invalidate),
        };
        if let Err(error) = result {
            self.failure.get_or_insert(error);
        }
    }

    /// A buffer came back from the device.
    pub(super) fn returned(&mut self, buffer: &IoBuf) {
        self.pending_bytes = self.pending_bytes.saturating_sub(buffer.capacity());
    }

    /// Posts what found no room before, and hands everything to the device.
    pub(super) fn flush(&mut self) {
        while self.pair.room() > 0
            && let Some(work) = self.backlog.pop_front()
        {
            self.post(work);
        }
        if let Err(error) = self.pair.flush() {
            self.failure.get_or_insert(error);
        }
    }

    /// Why it is of no use any more.
    pub(super) fn take_failure(&mut self) -> Option<VerbsError> {
        self.failure.take()
    }

    /// Whether everything is with the device.
    pub(super) fn is_quiet(&self) -> bool {
        self.backlog.is_empty() && self.pending_bytes == 0
    }
}

impl rdma::Port<Data> for Way {
    fn pending(&self) -> usize {
        self.pending_bytes
    }

    fn fetch(&mut self, tag: Tag, remote: Remote, buffer: Data) {
        if let Some(buffer) = buffer.into_buffer() {
            self.put(Work::Fetch(tag, remote, buffer));
        }
    }

    fn write(&mut self, remote: Remote, buffer: Data) {
        if let Some(buffer) = buffer.into_buffer() {
            self.put(Work::Write(remote, buffer));
        }
    }

    fn respond(&mut self, cqe: &Cqe, invalidate: Option<u32>) {
        self.put(Work::Respond(*cqe, invalidate));
    }
}

/// Storage with buffers that RDMA devices know.
pub(super) struct Registered<'a> {
    pub(super) storage: &'a mut Storage,
    pub(super) pool: &'a BufPool,
}

impl Rim for Registered<'_> {
    type Buffer = Data;

    fn allocate(&mut self, length_bytes: usize) -> Option<Data> {
        self.pool.alloc(length_bytes).map(Data::Buffer)
    }

    fn is_immediate(&self, volume: VolumeKey) -> bool {
        self.storage.is_immediate(volume)
    }

    fn read_now(&mut self, request: &IoRequest, into: &mut [u8]) -> Option<IoResult> {
        self.storage.read_now(request, into)
    }

    fn write_now(&mut self, request: &IoRequest, data: &[u8]) -> Option<IoResult> {
        self.storage.write_now(request, data)
    }

    fn submit(&mut self, tag: Tag, request: IoRequest, buffer: Option<Data>) {
        self.storage.submit(tag, request, buffer);
    }
}
