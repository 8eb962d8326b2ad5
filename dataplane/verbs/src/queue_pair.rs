//! Connected queue pairs, from their making to their end.

use std::net::SocketAddr;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use rdma_sys as sys;
use roadstead_ring::IoBuf;

use crate::completion_channel::CompletionChannel;
use crate::completions::RawCompletions;
use crate::domain::MemoryRegion;
use crate::error::{VerbsError, check};
use crate::id::{ConnectLimits, Id};
use crate::ledger::Ledger;
use crate::receives::{RawReceives, SharedReceives};
use crate::work::HEAD_BYTES_MAX;

/// How large a queue pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSizes {
    /// Work requests in flight.
    pub sends: u32,
    /// Messages that may come before they are looked at.
    pub receives: u32,
}

/// A reliable connection with its own completion queue. It belongs to one thread.
///
/// Dropping it destroys it before its buffers are free, but keeps the slots of messages that were not looked at from the
/// shared receives: [`Self::end`] gives them back.
pub struct QueuePair {
    /// None once it is destroyed.
    pub(crate) raw: Option<NonNull<sys::ibv_qp>>,
    id: Id,
    pub(crate) ledger: Ledger<IoBuf>,
    /// Room for heads of messages, one for each request.
    pub(crate) heads: IoBuf,
    pub(crate) heads_address: u64,
    pub(crate) inline_bytes_max: u32,
    pub(crate) sends_max: usize,
    pub(crate) requests: Vec<sys::ibv_send_wr>,
    pub(crate) places: Vec<[sys::ibv_sge; 2]>,
    /// The device did not take a request: it is not known any more what was done.
    pub(crate) is_broken: bool,
    pub(crate) completions: RawCompletions,
    /// They go after the queue pair that uses them.
    pub(crate) receives: Rc<RawReceives>,
    pub(crate) counts: Counts,
}

/// What a queue pair has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Work requests.
    pub requests: u64,
    /// Batches of them that were handed to the device.
    pub doorbells: u64,
    /// Looks for completions.
    pub polls: u64,
    /// Completions of its own work.
    pub completions: u64,
    /// Messages that came.
    pub messages: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.requests += more.requests;
        self.doorbells += more.doorbells;
        self.polls += more.polls;
        self.completions += more.completions;
        self.messages += more.messages;
    }
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
        for (its, what) in [
            (receives.device(), "the shared receive queue"),
            (channel.device(), "the completion channel"),
        ] {
            if its != device {
                return Err(VerbsError::Foreign { what });
            }
        }
        let limits = device.limits()?;
        let sends = sizes.sends.min(limits.queue_entries).max(1);
        let entries = sends.saturating_add(sizes.receives).min(limits.completions);
        let completions = RawCompletions::new(region, channel, entries, token)?;
        let sends_max = usize::try_from(sends).unwrap_or(usize::MAX);
        let heads = region
            .pool()
            .alloc(sends_max.saturating_mul(HEAD_BYTES_MAX));
        let heads = heads.ok_or(VerbsError::NoBuffer)?;
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
            is_broken: false,
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
        attributes.send_cq = self.completions.as_ptr();
        attributes.recv_cq = self.completions.as_ptr();
        attributes.srq = self.receives.as_ptr();
        attributes.cap.max_send_wr = sends;
        attributes.cap.max_send_sge = 2;
        attributes.cap.max_inline_data = u32::try_from(HEAD_BYTES_MAX).unwrap_or(0);
        attributes.qp_type = sys::ibv_qp_type::IBV_QPT_RC;
        let domain = self.completions.region.domain().as_ptr();
        self.raw = self.id.with(|id, manager| {
            // SAFETY: everything that the attributes name is alive, of one device, and kept by `self`. The library
            // compares the domain's device with the identifier's.
            let result = unsafe { (manager.rdma_create_qp)(id, domain, &raw mut attributes) };
            check(result, "make a queue pair")?;
            // SAFETY: the identifier is alive; the call has just made its queue pair.
            Ok(NonNull::new(unsafe { (*id).qp }))
        })?;
        self.inline_bytes_max = attributes.cap.max_inline_data;
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

    /// What it has done.
    pub fn counts(&self) -> Counts {
        self.counts
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
            self.id
                .with(|id, manager| unsafe { (manager.rdma_destroy_qp)(id) });
        }
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        // Before the buffers of the ledger, the completion queue and the identifier, which go with the fields.
        self.destroy();
    }
}
