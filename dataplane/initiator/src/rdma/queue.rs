//! One queue's connection over NVMe/RDMA.

use std::collections::VecDeque;
use std::time::Duration;

use roadstead_host::{Command, Epoch, Payload, slot_of};
use roadstead_nvme::wire::CQE_BYTES;
use roadstead_nvme::{Cqe, Sqe};
use roadstead_rdma::private::Request;
use roadstead_rdma::{DataPointer, Remote};
use roadstead_ring::IoBuf;
use roadstead_verbs::{
    Adapter, Attention, ConnectLimits, Finished, Id, Next, QueuePair, QueueSizes, Received,
    VerbsError, WorkStatus,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::buffers::Buffers;
use crate::surroundings::Surroundings;

/// How long the network has to find the way to an address.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(2);
/// Sends that a queue entry may have with the device: its command, and one whose end was not told yet.
const SENDS_PER_ENTRY: u32 = 2;
/// Responses that may come beyond the commands in flight.
const RECEIVES_MORE: u32 = 8;

/// Why a connection has to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// RDMA said no.
    #[error(transparent)]
    Verbs(#[from] VerbsError),
    /// Its work failed.
    #[error("the connection failed: {0}")]
    Work(WorkStatus),
    /// What the target sent is no response.
    #[error("the target sent a response of {0} bytes")]
    ShortResponse(u32),
}

/// Data of a command that is in flight, where the target reaches it.
struct Held {
    cid: u16,
    buffer: IoBuf,
    /// Bytes that the target writes.
    data_in: u32,
}

/// Something to be sent.
enum Work {
    Request(Command),
    Control {
        sqe: Box<Sqe>,
        data_out: Vec<u8>,
        data_in: u32,
    },
}

enum Stage {
    /// The connection manager looks for the way.
    Seeking(Id),
    /// The target was asked, or has accepted.
    Paired(Box<QueuePair>),
    /// It failed between the two.
    Over,
}

/// Completions, taken in one go.
#[derive(Default)]
pub(crate) struct Taken {
    received: Vec<Received>,
    finished: Vec<Finished<IoBuf>>,
}

/// One queue's connection.
pub(crate) struct Queue {
    pub(crate) epoch: Epoch,
    pub(crate) qid: u16,
    pub(crate) attention: Attention,
    /// The number of its adapter, once it has one.
    pub(crate) adapter: usize,
    entries: u16,
    token: u64,
    stage: Stage,
    /// Of requests, by slot.
    held: Vec<Option<Held>>,
    /// Of the control command in flight that has any.
    control: Option<Held>,
    /// What found no buffer or no room. Bounded by the queue's entries.
    waiting: VecDeque<Work>,
}

impl Queue {
    pub(crate) fn new(id: Id, epoch: Epoch, qid: u16, entries: u16, token: u64) -> Self {
        Self {
            epoch,
            qid,
            attention: Attention::default(),
            adapter: 0,
            entries,
            token,
            stage: Stage::Seeking(id),
            held: std::iter::repeat_with(|| None)
                .take(usize::from(entries))
                .collect(),
            control: None,
            waiting: VecDeque::new(),
        }
    }

    /// The address is known.
    pub(crate) fn resolve_route(&mut self) -> Result<(), VerbsError> {
        match &mut self.stage {
            Stage::Seeking(id) => id.resolve_route(ROUTE_TIMEOUT),
            Stage::Paired(_) | Stage::Over => Ok(()),
        }
    }

    /// The identifier, until it is given to [`Self::ask`].
    pub(crate) fn seeking(&self) -> Option<&Id> {
        match &self.stage {
            Stage::Seeking(id) => Some(id),
            Stage::Paired(_) | Stage::Over => None,
        }
    }

    /// The way is known: asks the target for the connection.
    pub(crate) fn ask(&mut self, number: usize, adapter: &Adapter) -> Result<(), VerbsError> {
        let Stage::Seeking(id) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Ok(());
        };
        let entries = u32::from(self.entries);
        let sizes = QueueSizes {
            sends: entries.saturating_mul(SENDS_PER_ENTRY),
            receives: entries.saturating_add(RECEIVES_MORE),
        };
        let (receives, events) = (&adapter.receives, &adapter.events);
        let mut pair = QueuePair::new(id, &adapter.region, receives, events, sizes, self.token)?;
        let limits = ConnectLimits {
            reads_outbound: 0,
            // The target reads what is written.
            reads_inbound: adapter.limits.reads_inbound,
        };
        let request = Request {
            qid: self.qid,
            receive_entries: self.entries,
            send_entries: entries,
            cntlid: 0,
        };
        pair.connect(limits, &request.encode())?;
        self.adapter = number;
        self.stage = Stage::Paired(Box::new(pair));
        Ok(())
    }

    /// Sends a command that is no request.
    pub(crate) fn send_control(
        &mut self,
        sqe: Box<Sqe>,
        data_out: Vec<u8>,
        data_in: u32,
        adapter: &Adapter,
        buffers: &Buffers,
    ) -> Result<(), VerbsError> {
        let work = Work::Control {
            sqe,
            data_out,
            data_in,
        };
        self.waiting.push_back(work);
        self.resume(adapter, buffers)
    }

    /// Sends a command of a request.
    pub(crate) fn send(
        &mut self,
        command: Command,
        adapter: &Adapter,
        buffers: &Buffers,
    ) -> Result<(), VerbsError> {
        self.waiting.push_back(Work::Request(command));
        self.resume(adapter, buffers)
    }

    /// Sends what waits and finds buffers and room now.
    pub(crate) fn resume(
        &mut self,
        adapter: &Adapter,
        buffers: &Buffers,
    ) -> Result<(), VerbsError> {
        while let Some(work) = self.waiting.pop_front() {
            if !self.post(&work, adapter, buffers)? {
                self.waiting.push_front(work);
                break;
            }
        }
        Ok(())
    }

    /// False: there is no room or no buffer for it now.
    fn post(
        &mut self,
        work: &Work,
        adapter: &Adapter,
        buffers: &Buffers,
    ) -> Result<bool, VerbsError> {
        let Stage::Paired(pair) = &mut self.stage else {
            // Its end is under way, and requests will be sent again.
            return Ok(true);
        };
        if pair.room() == 0 {
            return Ok(false);
        }
        let (mut sqe, data, data_in, in_capsule_bytes) = match work {
            Work::Request(command) => {
                let (data, data_in) = match &command.payload {
                    Payload::None => (&[][..], 0),
                    Payload::Read(transfer) => (&[][..], transfer.length_bytes),
                    Payload::Write(transfer) => {
                        let data = buffers.slice(transfer, 0, transfer.length_bytes);
                        (data.unwrap_or_default(), 0)
                    }
                };
                (command.sqe, data, data_in, command.in_capsule_bytes)
            }
            // Capsules are taken to have no room for the data of these.
            Work::Control {
                sqe,
                data_out,
                data_in,
            } => (**sqe, data_out.as_slice(), *data_in, 0),
        };
        let data_out = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let length = data_out.max(data_in);
        if length == 0 {
            sqe.dptr = DataPointer::Remote(Remote::NONE).encode();
            pair.send(0, sqe.as_bytes(), None, None)?;
            return Ok(true);
        }
        let Some(mut buffer) = adapter.region.pool().alloc(length as usize) else {
            return Ok(false);
        };
        match buffer.get_mut(..data.len()) {
            Some(room) if data_in == 0 => room.copy_from_slice(data),
            // What the target does not write of the answer is zero.
            _ if slot_of(sqe.cid.get()).is_none() => buffer.fill(0),
            _ => {}
        }
        if data_in == 0 && length <= in_capsule_bytes {
            sqe.dptr = DataPointer::InCapsule { offset: 0, length }.encode();
            pair.send(0, sqe.as_bytes(), Some((buffer, length)), None)?;
            return Ok(true);
        }
        let place = adapter.region.remote(&buffer, length);
        let place = place.ok_or(VerbsError::NotRegistered)?;
        let remote = Remote {
            address: place.address,
            key: place.key,
            length,
            invalidate: false,
        };
        sqe.dptr = DataPointer::Remote(remote).encode();
        pair.send(0, sqe.as_bytes(), None, None)?;
        self.hold(Held {
            cid: sqe.cid.get(),
            buffer,
            data_in,
        });
        Ok(true)
    }

    fn hold(&mut self, held: Held) {
        match slot_of(held.cid) {
            None => self.control = Some(held),
            Some(slot) => {
                if let Some(place) = self.held.get_mut(slot) {
                    *place = Some(held);
                }
            }
        }
    }

    /// Takes what the device has done. False: there was nothing.
    pub(crate) fn poll(
        &mut self,
        adapter: &mut Adapter,
        taken: &mut Taken,
        around: &mut Surroundings<'_>,
    ) -> Result<bool, Broken> {
        let Stage::Paired(pair) = &mut self.stage else {
            return Ok(false);
        };
        let Taken { received, finished } = taken;
        let count = pair.poll(&mut adapter.receives, received, finished)?;
        let mut result = Ok(count > 0);
        for one in finished.drain(..) {
            if !one.status.is_success() {
                result = result.and(Err(Broken::Work(one.status)));
            }
        }
        for one in received.drain(..) {
            if result.is_ok()
                && let Err(broken) = self.response(adapter, &one, around)
            {
                result = Err(broken);
            }
            adapter.receives.give_back(one.slot);
        }
        result
    }

    fn response(
        &mut self,
        adapter: &Adapter,
        one: &Received,
        around: &mut Surroundings<'_>,
    ) -> Result<(), Broken> {
        if !one.status.is_success() {
            return Err(Broken::Work(one.status));
        }
        let bytes = adapter.receives.bytes(one.slot, one.length);
        let cqe = bytes.get(..CQE_BYTES);
        let cqe = cqe.and_then(|bytes| Cqe::read_from_bytes(bytes).ok());
        let cqe = cqe.ok_or(Broken::ShortResponse(one.length))?;
        let cid = cqe.cid.get();
        let place = match slot_of(cid) {
            None => Some(&mut self.control),
            Some(slot) => self.held.get_mut(slot),
        };
        let held = place.and_then(|place| place.take_if(|held| held.cid == cid));
        let mut data = &[][..];
        if let Some(held) = &held
            && held.data_in > 0
            && cqe.status().is_success()
        {
            let came = held.buffer.get(..held.data_in as usize);
            data = came.unwrap_or_default();
            let (epoch, qid) = (self.epoch, self.qid);
            if slot_of(cid).is_some()
                && let Some(transfer) = around.host.received(epoch, qid, cid, 0, held.data_in)
                && let Some(place) = around.buffers.slice_mut(&transfer, 0, data.len())
            {
                place.copy_from_slice(data);
            }
        }
        around
            .host
            .completed(self.epoch, self.qid, &cqe, data, around.now);
        Ok(())
    }

    /// Hands what was queued to the device.
    pub(crate) fn flush(&mut self) -> Result<(), VerbsError> {
        match &mut self.stage {
            Stage::Paired(pair) => pair.flush(),
            Stage::Seeking(_) | Stage::Over => Ok(()),
        }
    }

    /// The device tells of its next completion.
    pub(crate) fn arm(&mut self) -> Result<(), VerbsError> {
        match &mut self.stage {
            Stage::Paired(pair) => pair.arm(),
            Stage::Seeking(_) | Stage::Over => Ok(()),
        }
    }

    /// After a poll that found something or did not.
    pub(crate) fn polled(&mut self, worked: bool) -> Result<(), VerbsError> {
        match self.attention.polled(worked) {
            Next::Arm => self.arm(),
            Next::Poll | Next::Wait => Ok(()),
        }
    }

    /// Ends it. The target reaches no buffer of it after that.
    pub(crate) fn end(self, adapters: &mut [Adapter]) {
        if let Stage::Paired(pair) = self.stage
            && let Some(adapter) = adapters.get_mut(self.adapter)
        {
            pair.end(&mut adapter.receives);
        }
    }
}
