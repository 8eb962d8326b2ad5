//! Memory for messages, shared by queue pairs.

use std::ptr::NonNull;
use std::rc::Rc;

use rdma_sys as sys;
use roadstead_ring::{BUF_MAX_BYTES, BufPool};

use crate::domain::{Access, Device, Domain, MemoryRegion};
use crate::error::{VerbsError, check_number, last};

pub(crate) struct RawReceives {
    domain: Domain,
    raw: NonNull<sys::ibv_srq>,
    /// Where messages go; kept until the queue is gone.
    region: MemoryRegion,
}

impl RawReceives {
    pub(crate) fn as_ptr(&self) -> *mut sys::ibv_srq {
        self.raw.as_ptr()
    }
}

impl Drop for RawReceives {
    fn drop(&mut self) {
        // SAFETY: queue pairs that use it hold on to it, so none is left; the memory goes after it.
        let _ = unsafe { (self.domain.device().api.verbs.ibv_destroy_srq)(self.raw.as_ptr()) };
    }
}

/// A shared receive queue with its memory: slots of one size. It belongs to one thread.
pub struct SharedReceives {
    raw: Rc<RawReceives>,
    slot_bytes: usize,
    /// Whether this end has the slot: its message came, and it was not given back.
    held: Vec<bool>,
    /// Slots to be given back.
    returned: Vec<u32>,
    requests: Vec<sys::ibv_recv_wr>,
    places: Vec<sys::ibv_sge>,
}

impl SharedReceives {
    /// A queue of so many slots, or as many as the device can have, all ready for messages.
    ///
    /// # Errors
    /// [`VerbsError`].
    pub fn new(domain: &Domain, slots: u32, slot_bytes: u32) -> Result<Self, VerbsError> {
        let slots = slots.min(domain.device().limits()?.shared_receives).max(1);
        let slot_bytes = usize::try_from(slot_bytes).unwrap_or(usize::MAX);
        let count = usize::try_from(slots).unwrap_or(usize::MAX);
        let bytes = count
            .saturating_mul(slot_bytes)
            .next_multiple_of(BUF_MAX_BYTES);
        let pool = BufPool::in_arena(bytes).map_err(|error| VerbsError::Call {
            what: "get memory for messages",
            source: std::io::Error::other(error),
        })?;
        let region = MemoryRegion::new(domain, &pool, Access::Local)?;
        // SAFETY: a structure of numbers and a pointer that may be null.
        let mut attributes: sys::ibv_srq_init_attr = unsafe { std::mem::zeroed() };
        attributes.attr.max_wr = slots;
        attributes.attr.max_sge = 1;
        let create = domain.device().api.verbs.ibv_create_srq;
        // SAFETY: the domain is alive, and kept; the attributes stay during the call.
        let raw = unsafe { create(domain.as_ptr(), &raw mut attributes) };
        let raw = NonNull::new(raw).ok_or_else(|| last("make a shared receive queue"))?;
        let mut this = Self {
            raw: Rc::new(RawReceives {
                domain: domain.clone(),
                raw,
                region,
            }),
            slot_bytes,
            held: vec![true; count],
            returned: Vec::with_capacity(count),
            requests: Vec::with_capacity(count),
            places: Vec::with_capacity(count),
        };
        for slot in 0..slots {
            this.give_back(slot);
        }
        this.flush()?;
        Ok(this)
    }

    /// Whether these are the ones.
    pub(crate) fn is(&self, raw: &Rc<RawReceives>) -> bool {
        Rc::ptr_eq(&self.raw, raw)
    }

    pub(crate) fn device(&self) -> Device {
        self.raw.domain.device()
    }

    pub(crate) fn shared(&self) -> Rc<RawReceives> {
        Rc::clone(&self.raw)
    }

    fn start(&self) -> Option<NonNull<u8>> {
        Some(self.raw.region.pool().range()?.0)
    }

    /// A message came into a slot: it is this end's until [`Self::give_back`].
    pub(crate) fn take(&mut self, slot: u32) {
        if let Some(held) = self.held.get_mut(slot as usize) {
            *held = true;
        }
    }

    /// The first `length` bytes of a slot whose message came; nothing of others.
    pub fn bytes(&self, slot: u32, length: u32) -> &[u8] {
        let (index, length) = (slot as usize, length as usize);
        let (Some(true), Some(start)) = (self.held.get(index), self.start()) else {
            return &[];
        };
        // SAFETY: the slot lies within the memory, which is initialised; the device does not write to it between its
        // completion and `flush`, which needs the queue for itself.
        unsafe {
            let place = start.add(index * self.slot_bytes);
            std::slice::from_raw_parts(place.as_ptr(), length.min(self.slot_bytes))
        }
    }

    /// Gives a slot back, to be used again after [`Self::flush`].
    pub fn give_back(&mut self, slot: u32) {
        if let Some(held) = self.held.get_mut(slot as usize)
            && std::mem::replace(held, false)
        {
            self.returned.push(slot);
        }
    }

    /// Hands all slots that were given back to the device, at once.
    ///
    /// # Errors
    /// [`VerbsError::Call`].
    pub fn flush(&mut self) -> Result<(), VerbsError> {
        let Some(start) = self.start().filter(|_| !self.returned.is_empty()) else {
            return Ok(());
        };
        self.requests.clear();
        self.places.clear();
        let key = self.raw.region.local_key();
        for slot in self.returned.drain(..) {
            let offset = slot as usize * self.slot_bytes;
            self.places.push(sys::ibv_sge {
                addr: (start.as_ptr().addr() + offset) as u64,
                length: u32::try_from(self.slot_bytes).unwrap_or(u32::MAX),
                lkey: key,
            });
            self.requests.push(sys::ibv_recv_wr {
                wr_id: u64::from(slot) | RECEIVE,
                next: std::ptr::null_mut(),
                sg_list: std::ptr::null_mut(),
                num_sge: 1,
            });
        }
        link(&mut self.requests, &mut self.places);
        let mut bad = std::ptr::null_mut();
        // SAFETY: the requests and what they point to stay during the call, which copies them; the memory that they name
        // is registered and kept as long as the queue.
        let result = unsafe {
            sys::ibv_post_srq_recv(self.raw.as_ptr(), self.requests.as_mut_ptr(), &raw mut bad)
        };
        if result != 0 {
            // What the device did not take stays to be handed over. It is the first that it names, and all after it.
            let refused = self.requests.iter().position(|one| std::ptr::eq(one, bad));
            let refused = self.requests.iter().skip(refused.unwrap_or(usize::MAX));
            let slots = refused.map(|one| u32::try_from(one.wr_id & !RECEIVE).unwrap_or(u32::MAX));
            self.returned.extend(slots);
        }
        check_number(result, "hand memory for messages to the device")
    }
}

/// In the number of a completion: it is that of a receive, whose slot the rest is.
pub(crate) const RECEIVE: u64 = 1 << 63;

/// Makes a chain of requests, each with one place.
fn link(requests: &mut [sys::ibv_recv_wr], places: &mut [sys::ibv_sge]) {
    let mut next = std::ptr::null_mut();
    for (request, place) in requests.iter_mut().zip(places).rev() {
        request.sg_list = place;
        request.next = next;
        next = request;
    }
}
