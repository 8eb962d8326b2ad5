//! The buffers of requests that are not done, by a small number that is the request's token in the host.

use std::sync::Arc;

use roadstead_host::Transfer;

/// A request's data.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// The submitter's token.
    pub(crate) token: u64,
    start: usize,
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    Own(Vec<u8>),
    /// Sent from where it lies, or was.
    Shared(Arc<Vec<u8>>),
}

impl Buffer {
    /// The data begins at `start` in `bytes`.
    pub(crate) fn new(token: u64, bytes: Vec<u8>, start: usize) -> Self {
        Self {
            token,
            start,
            memory: Memory::Own(bytes),
        }
    }

    /// The memory. It is a copy when an ended connection has not let go of it yet.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self.memory {
            Memory::Own(bytes) => bytes,
            Memory::Shared(bytes) => Arc::unwrap_or_clone(bytes),
        }
    }

    fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Own(bytes) => bytes,
            Memory::Shared(bytes) => bytes,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Buffers {
    slots: Vec<Option<Buffer>>,
    free: Vec<usize>,
}

impl Buffers {
    pub(crate) fn insert(&mut self, buffer: Buffer) -> u64 {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(buffer);
        }
        index as u64
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<Buffer> {
        let index = usize::try_from(number).ok()?;
        let buffer = self.slots.get_mut(index)?.take()?;
        self.free.push(index);
        Some(buffer)
    }

    /// `length` bytes of a command's data, `offset` bytes from its start.
    pub(crate) fn slice(&self, transfer: &Transfer, offset: u32, length: u32) -> Option<&[u8]> {
        let buffer = self
            .slots
            .get(usize::try_from(transfer.token).ok()?)?
            .as_ref()?;
        let from = place(buffer, transfer, offset)?;
        buffer
            .bytes()
            .get(from..from.checked_add(usize::try_from(length).ok()?)?)
    }

    /// The memory that [`Self::slice`] is in, to be sent from where it lies, and where in it the bytes are.
    pub(crate) fn share(
        &mut self,
        transfer: &Transfer,
        offset: u32,
    ) -> Option<(Arc<Vec<u8>>, usize)> {
        let index = usize::try_from(transfer.token).ok()?;
        let buffer = self.slots.get_mut(index)?.as_mut()?;
        let from = place(buffer, transfer, offset)?;
        if let Memory::Own(bytes) = &mut buffer.memory {
            buffer.memory = Memory::Shared(Arc::new(std::mem::take(bytes)));
        }
        match &buffer.memory {
            Memory::Shared(bytes) => Some((Arc::clone(bytes), from)),
            Memory::Own(_) => None,
        }
    }

    /// As [`Self::slice`], to be written.
    pub(crate) fn slice_mut(
        &mut self,
        transfer: &Transfer,
        offset: u32,
        length: usize,
    ) -> Option<&mut [u8]> {
        let index = usize::try_from(transfer.token).ok()?;
        let buffer = self.slots.get_mut(index)?.as_mut()?;
        let from = place(buffer, transfer, offset)?;
        match &mut buffer.memory {
            Memory::Own(bytes) => bytes.get_mut(from..from.checked_add(length)?),
            // Only writes are shared.
            Memory::Shared(_) => None,
        }
    }
}

fn place(buffer: &Buffer, transfer: &Transfer, offset: u32) -> Option<usize> {
    let within = transfer.offset_bytes.checked_add(u64::from(offset))?;
    buffer.start.checked_add(usize::try_from(within).ok()?)
}
