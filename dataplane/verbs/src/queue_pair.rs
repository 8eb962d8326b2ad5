//! Connected queue pairs: work in, completions out.

use std::net::SocketAddr;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use rdma_sys as sys;
use roadstead_ring::IoBuf;

use crate::channel::as_context;
use crate::domain::{CompletionChannel, MemoryRegion};
use crate::error::{VerbsError, check, check_number, last};
use crate::id::{ConnectLimits, Id};
use crate::ledger::{Finished, Kind, Ledger, WorkStatus};
use crate::receives::{RECEIVE, RawReceives, SharedReceives};

/// Most bytes of a message's head: what is copied when it is sent.
pub const HEAD_BYTES_MAX: usize = 64;
/// Completions taken in one go.
const POLL_BATCH: usize = 32;

/// Memory of the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where.
    pub address: u64,
    /// What opens it.
    pub key: u32,
}

/// A message that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The slot of the shared receives, to be given back.
    pub slot: u32,
    /// Bytes; 0 when it did not come whole.
    pub length: u32,
    /// How it came.
    pub status: WorkStatus,
    /// The key that the other end has invalidated with it.
    pub invalidated_key: Option<u32>,
}

/// How large a queue pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSizes {
    /// Work requests in flight.
    pub sends: u32,
    /// Messages that may come before they are looked at.
    pub receives: u32,
}

struct RawCompletions {
    raw: NonNull<sys::ibv_cq>,
    channel: CompletionChannel,
    region: Arc<MemoryRegion>,
}

impl Drop for RawCompletions {
    fn drop(&mut self) {
        let verbs = &self.region.domain().device().api.verbs;
        // SAFETY: the queue pair on it is gone; all its events are acknowledged.
        let _ = unsafe { (verbs.ibv_destroy_cq)(self.raw.as_ptr()) };
    }
}

/// A reliable connection with its own completion queue. It belongs to one thread.
pub struct QueuePair {
    /// None once it is destroyed.
    raw: Option<NonNull<sys::ibv_qp>>,
    id: Id,
    ledger: Ledger<IoBuf>,
    /// Room for heads of messages, one for each request.
    heads: IoBuf,
    heads_address: u64,
    inline_bytes_max: u32,
    sends_max: usize,
    requests: Vec<sys::ibv_send_wr>,
    places: Vec<[sys::ibv_sge; 2]>,
    completions: RawCompletions,
    #[allow(dead_code, reason = "it goes after the queue pair that uses it")]
    receives: Rc<RawReceives>,
    counts: Counts,
}

/// What a queue pair has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Work requests.
    pub requests: u64,
    /// Batches of them that were handed to the device.
    pub doorbells: u64,
    /// Completions of its own work.
    pub completions: u64,
    /// Messages that came.
    pub messages: u64,
}

impl QueuePair {
    /// A queue pair for a connection. Buffers must be of the region's pool. Events of its completions carry the token.
    ///
    /// # Errors
    /// [`VerbsError`]; the connection is refused or ended then.
    pub fn new(
        id: Id,
        region: &Arc<MemoryRegion>,
        receives: &SharedReceives,
        channel: &CompletionChannel,
        sizes: QueueSizes,
        token: u64,
    ) -> Result<Self, VerbsError> {
        let device = region.domain().device();
        let limits = device.limits()?;
        let sends = sizes.sends.min(limits.queue_entries).max(1);
        let entries = sends.saturating_add(sizes.receives).min(limits.completions);
        let create = device.api.verbs.ibv_create_cq;
        let count = i32::try_from(entries).unwrap_or(i32::MAX);
        let context = device.context.as_ptr();
        // SAFETY: the device is open and the channel alive, and kept.
        let raw = unsafe { create(context, count, as_context(token), channel.as_ptr(), 0) };
        let raw = NonNull::new(raw).ok_or_else(|| last("make a completion queue"))?;
        let completions = RawCompletions {
            raw,
            channel: channel.clone(),
            region: Arc::clone(region),
        };
        let sends_max = usize::try_from(sends).unwrap_or(usize::MAX);
        let heads = region
            .pool()
            .alloc(sends_max.saturating_mul(HEAD_BYTES_MAX));
        let heads = heads.ok_or(VerbsError::QueueFull)?;
        let heads_address = region
            .address_of(&heads, 0)
            .ok_or(VerbsError::NotRegistered)?;
        let mut this = Self {
            raw: None,
            id,
            ledger: Ledger::new(sends_max),
            heads,
            heads_address,
            inline_bytes_max: 0,
            sends_max,
            requests: Vec::with_capacity(sends_max),
            places: Vec::with_capacity(sends_max),
            completions,
            receives: receives.shared(),
            counts: Counts::default(),
        };
        this.create(sends)?;
        Ok(this)
    }

    fn create(&mut self, sends: u32) -> Result<(), VerbsError> {
        // SAFETY: a structure of numbers and pointers that may be null.
        let mut attributes: sys::ibv_qp_init_attr = unsafe { std::mem::zeroed() };
        attributes.send_cq = self.completions.raw.as_ptr();
        attributes.recv_cq = self.completions.raw.as_ptr();
        attributes.srq = self.receives.as_ptr();
        attributes.cap.max_send_wr = sends;
        attributes.cap.max_send_sge = 2;
        attributes.cap.max_inline_data = u32::try_from(HEAD_BYTES_MAX).unwrap_or(0);
        attributes.qp_type = sys::ibv_qp_type::IBV_QPT_RC;
        let domain = self.completions.region.domain().as_ptr();
        let create = self.id.api().manager.rdma_create_qp;
        // SAFETY: everything that the attributes name is alive, and kept by `self`.
        let result = unsafe { create(self.id.as_ptr(), domain, &raw mut attributes) };
        check(result, "make a queue pair")?;
        self.inline_bytes_max = attributes.cap.max_inline_data;
        // SAFETY: the identifier is alive; the call has just made its queue pair.
        self.raw = NonNull::new(unsafe { (*self.id.as_ptr()).qp });
        Ok(())
    }

    /// Accepts the connection.
    ///
    /// # Errors
    /// [`VerbsError::Call`].
    pub fn accept(&mut self, limits: ConnectLimits, private_data: &[u8]) -> Result<(), VerbsError> {
        self.id.accept(limits, private_data)
    }

    /// Asks for the connection, after [`crate::CmEventKind::RouteResolved`].
    ///
    /// # Errors
    /// [`VerbsError::Call`].
    pub fn connect(
        &mut self,
        limits: ConnectLimits,
        private_data: &[u8],
    ) -> Result<(), VerbsError> {
        self.id.connect(limits, private_data)
    }

    /// Ends the connection: everything in flight is dropped, and completes.
    pub fn disconnect(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.id.disconnect();
    }

    /// Its own address.
    pub fn local(&self) -> Option<SocketAddr> {
        self.id.local()
    }

    /// The address of the other end.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.id.peer()
    }

    /// Work requests that fit.
    pub fn room(&self) -> usize {
        self.ledger.room()
    }

    /// What it has done.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn place(&self, buffer: &IoBuf, length: u32) -> Result<sys::ibv_sge, VerbsError> {
        let region = &self.completions.region;
        let addr = region
            .address_of(buffer, length)
            .ok_or(VerbsError::NotRegistered)?;
        let lkey = region.local_key();
        Ok(sys::ibv_sge { addr, length, lkey })
    }

    /// Reads the other end's memory into a buffer, which comes back by [`Self::poll`].
    ///
    /// # Errors
    /// [`VerbsError::QueueFull`], [`VerbsError::NotRegistered`].
    pub fn read(
        &mut self,
        token: u64,
        buffer: IoBuf,
        length: u32,
        remote: Remote,
    ) -> Result<(), VerbsError> {
        self.transfer(token, Kind::Read, buffer, length, remote)
    }

    /// Writes the first bytes of a buffer to the other end's memory.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn write(
        &mut self,
        token: u64,
        buffer: IoBuf,
        length: u32,
        remote: Remote,
    ) -> Result<(), VerbsError> {
        self.transfer(token, Kind::Write, buffer, length, remote)
    }

    fn transfer(
        &mut self,
        token: u64,
        kind: Kind,
        buffer: IoBuf,
        length: u32,
        remote: Remote,
    ) -> Result<(), VerbsError> {
        let place = self.place(&buffer, length)?;
        let opcode = match kind {
            Kind::Read => sys::ibv_wr_opcode::IBV_WR_RDMA_READ,
            Kind::Write | Kind::Send => sys::ibv_wr_opcode::IBV_WR_RDMA_WRITE,
        };
        let request = self.request(opcode, 1);
        let request = sys::ibv_send_wr {
            wr: sys::wr_t {
                rdma: sys::rdma_t {
                    remote_addr: remote.address,
                    rkey: remote.key,
                },
            },
            ..request
        };
        self.queue(token, kind, Some(buffer), request, [place, NO_PLACE])
    }

    /// Sends a message: a head, which is copied, and the first bytes of a buffer. It invalidates a key of the other end.
    ///
    /// # Errors
    /// As [`Self::read`]; heads longer than [`HEAD_BYTES_MAX`] are cut.
    pub fn send(
        &mut self,
        token: u64,
        head: &[u8],
        data: Option<(IoBuf, u32)>,
        invalidate: Option<u32>,
    ) -> Result<(), VerbsError> {
        let head = head.get(..HEAD_BYTES_MAX).unwrap_or(head);
        let sends_max = self.sends_max as u64;
        let offset = usize::try_from(self.ledger.next() % sends_max).unwrap_or(0) * HEAD_BYTES_MAX;
        if self.ledger.room() == 0 {
            return Err(VerbsError::QueueFull);
        }
        if let Some(room) = self.heads.get_mut(offset..offset + head.len()) {
            room.copy_from_slice(head);
        }
        let first = sys::ibv_sge {
            addr: self.heads_address + offset as u64,
            length: u32::try_from(head.len()).unwrap_or(0),
            lkey: self.completions.region.local_key(),
        };
        let (opcode, key) = match invalidate {
            Some(key) => (sys::ibv_wr_opcode::IBV_WR_SEND_WITH_INV, key),
            None => (sys::ibv_wr_opcode::IBV_WR_SEND, 0),
        };
        let second = match &data {
            Some((buffer, length)) => Some(self.place(buffer, *length)?),
            None => None,
        };
        let mut request = self.request(opcode, if second.is_some() { 2 } else { 1 });
        request.imm_data_invalidated_rkey_union.invalidated_rkey = key;
        if second.is_none() && first.length <= self.inline_bytes_max {
            request.send_flags = flag(sys::ibv_send_flags::IBV_SEND_INLINE);
        }
        let places = [first, second.unwrap_or(NO_PLACE)];
        let buffer = data.map(|(buffer, _)| buffer);
        self.queue(token, Kind::Send, buffer, request, places)
    }

    fn request(&self, opcode: sys::ibv_wr_opcode::Type, places: i32) -> sys::ibv_send_wr {
        // SAFETY: a structure of numbers and pointers that may be null.
        let zero: sys::ibv_send_wr = unsafe { std::mem::zeroed() };
        sys::ibv_send_wr {
            wr_id: self.ledger.next(),
            opcode,
            num_sge: places,
            ..zero
        }
    }

    fn queue(
        &mut self,
        token: u64,
        kind: Kind,
        buffer: Option<IoBuf>,
        mut request: sys::ibv_send_wr,
        places: [sys::ibv_sge; 2],
    ) -> Result<(), VerbsError> {
        if self.ledger.room() == 0 {
            return Err(VerbsError::QueueFull);
        }
        if self.ledger.push(token, kind, buffer) {
            request.send_flags |= flag(sys::ibv_send_flags::IBV_SEND_SIGNALED);
        }
        self.requests.push(request);
        self.places.push(places);
        Ok(())
    }

    /// Hands everything that was queued to the device, at once.
    ///
    /// # Errors
    /// [`VerbsError::Call`]: the connection is of no use any more.
    pub fn flush(&mut self) -> Result<(), VerbsError> {
        let (Some(raw), Some(last)) = (self.raw, self.requests.last_mut()) else {
            return Ok(());
        };
        if self.ledger.needs_signal() {
            last.send_flags |= flag(sys::ibv_send_flags::IBV_SEND_SIGNALED);
        }
        let mut next = std::ptr::null_mut();
        for (request, places) in self.requests.iter_mut().zip(&mut self.places).rev() {
            request.sg_list = places.as_mut_ptr();
            request.next = next;
            next = request;
        }
        let mut bad = std::ptr::null_mut();
        // SAFETY: the requests and places stay during the call, which copies them. The memory that they name is
        // registered, and its buffers are kept in the ledger until a completion says that they are done with, or the
        // queue pair is destroyed.
        let result =
            unsafe { sys::ibv_post_send(raw.as_ptr(), self.requests.as_mut_ptr(), &raw mut bad) };
        self.counts.requests += self.requests.len() as u64;
        self.counts.doorbells += 1;
        self.requests.clear();
        self.places.clear();
        check_number(result, "hand work to the device")
    }

    /// Takes completions: messages that came, and work that ended. Returns how many there were; as many as fit one
    /// call at most.
    ///
    /// # Errors
    /// [`VerbsError::Call`].
    pub fn poll(
        &mut self,
        receives: &mut SharedReceives,
        received: &mut Vec<Received>,
        finished: &mut Vec<Finished<IoBuf>>,
    ) -> Result<usize, VerbsError> {
        // SAFETY: structures of numbers.
        let mut batch: [sys::ibv_wc; POLL_BATCH] = unsafe { std::mem::zeroed() };
        let count = i32::try_from(POLL_BATCH).unwrap_or(1);
        let queue = self.completions.raw.as_ptr();
        // SAFETY: the queue is alive, and there is room for so many completions.
        let count = unsafe { sys::ibv_poll_cq(queue, count, batch.as_mut_ptr()) };
        let Ok(count) = usize::try_from(count) else {
            return Err(last("take completions"));
        };
        for completion in batch.iter().take(count) {
            let status = WorkStatus(completion.status);
            if completion.wr_id & RECEIVE == 0 {
                self.counts.completions += 1;
                self.ledger.completed(completion.wr_id, status, finished);
                continue;
            }
            self.counts.messages += 1;
            let slot = u32::try_from(completion.wr_id & !RECEIVE).unwrap_or(u32::MAX);
            receives.take(slot);
            let with_key = completion.wc_flags & sys::ibv_wc_flags::IBV_WC_WITH_INV.0 != 0;
            // SAFETY: the flag says which field of the union it is; both are numbers.
            let key = unsafe { completion.imm_data_invalidated_rkey_union.invalidated_rkey };
            received.push(Received {
                slot,
                length: if status.is_success() {
                    completion.byte_len
                } else {
                    0
                },
                status,
                invalidated_key: (with_key && status.is_success()).then_some(key),
            });
        }
        Ok(count)
    }

    /// Has the completion channel tell of the next completion. Look with [`Self::poll`] once more after it: what came
    /// before is not told.
    ///
    /// # Errors
    /// [`VerbsError::Call`].
    pub fn arm(&mut self) -> Result<(), VerbsError> {
        // SAFETY: the queue is alive.
        let result = unsafe { sys::ibv_req_notify_cq(self.completions.raw.as_ptr(), 0) };
        check_number(result, "ask to be told of completions")
    }

    /// The channel that tells.
    pub fn channel(&self) -> &CompletionChannel {
        &self.completions.channel
    }

    /// Destroys the queue pair, and gives the receives back that it had used: its buffers are free after that.
    pub fn end(mut self, receives: &mut SharedReceives) {
        let (mut received, mut finished) = (Vec::new(), Vec::new());
        let mut drain = |this: &mut Self| {
            while this
                .poll(receives, &mut received, &mut finished)
                .is_ok_and(|count| count > 0)
            {
                for one in received.drain(..) {
                    receives.give_back(one.slot);
                }
                finished.clear();
            }
        };
        self.disconnect();
        drain(&mut self);
        self.destroy();
        drain(&mut self);
    }

    fn destroy(&mut self) {
        if self.raw.take().is_some() {
            // SAFETY: the identifier is alive, and its queue pair is destroyed once, here.
            unsafe { (self.id.api().manager.rdma_destroy_qp)(self.id.as_ptr()) };
        }
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        // Before the buffers of the ledger, the completion queue and the identifier, which go with the fields.
        self.destroy();
    }
}

/// No memory.
const NO_PLACE: sys::ibv_sge = sys::ibv_sge {
    addr: 0,
    length: 0,
    lkey: 0,
};

fn flag(flag: sys::ibv_send_flags) -> u32 {
    flag.0
}
