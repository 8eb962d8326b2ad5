//! Work for a queue pair: queued one by one, handed to the device together.

use rdma_sys as sys;
use roadstead_ring::IoBuf;

use crate::error::{VerbsError, check_number};
use crate::ledger::Kind;
use crate::queue_pair::QueuePair;

/// Most bytes of a message's head: what is copied when it is sent.
pub const HEAD_BYTES_MAX: usize = 64;

/// Memory of the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where.
    pub address: u64,
    /// What opens it.
    pub key: u32,
}

impl QueuePair {
    /// Work requests that fit.
    pub fn room(&self) -> usize {
        self.ledger.room()
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
        if self.is_broken {
            return Err(VerbsError::Broken);
        }
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
    /// [`VerbsError::Call`], and [`VerbsError::Broken`] from then on: the connection must be ended. What the device did
    /// not take is never said to be done: its buffers are free when the queue pair is.
    pub fn flush(&mut self) -> Result<(), VerbsError> {
        if self.is_broken {
            return Err(VerbsError::Broken);
        }
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
        // A later request that is done would tell that those are, too, which the device did not take.
        self.is_broken = result != 0;
        check_number(result, "hand work to the device")
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
