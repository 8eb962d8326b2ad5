//! Reads and writes: buffers in, completions out.

use roadstead_nvme::Status;

use super::slot::Slot;
use super::{Connection, Output, Sink};
use crate::io::{IoOp, IoRequest, IoResult};
use crate::io_queue::status;
use crate::limits;
use crate::queue::{Completion, Tag};
use crate::rim::{Rim, Turn};

/// Lengths of I/O, at most 1 MiB.
pub(super) fn size(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Connection<B> {
    /// An I/O ended that [`Rim::submit`] got. Reads that succeeded give their buffer back, filled.
    /// A tag that is not in flight is ignored, and so is everything once the connection is to be closed.
    pub fn complete<R, O>(
        &mut self,
        tag: Tag,
        result: IoResult,
        buffer: Option<B>,
        turn: &mut Turn<'_, R, O>,
    ) where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        if self.is_closed || !matches!(self.slots.get_mut(tag), Some(Slot::Io { .. })) {
            return;
        }
        let Slot::Io {
            cid,
            is_read,
            length,
            phase,
        } = self.slots.take(tag)
        else {
            return;
        };
        self.queue.io_ends(phase);
        self.buffered = self.buffered.saturating_sub(size(length));
        match (result, buffer) {
            (result, _) if length == 0 && !is_read => {
                self.end(tag, cid, status(result), turn.out);
            }
            (Ok(()), Some(buffer)) if is_read => {
                self.reply_buffer(tag, cid, buffer, length, turn.out)
            }
            (Ok(()), None) if is_read => {
                self.complete_command(tag, cid, Status::INTERNAL.into(), turn.out)
            }
            (Ok(()), _) => self.complete_command(tag, cid, Completion::SUCCESS, turn.out),
            (Err(error), _) => self.complete_command(tag, cid, error.status().into(), turn.out),
        }
        if self.is_waiting() {
            self.resume(turn);
        }
    }

    /// Starts commands that waited, as far as buffers and room in the output go.
    pub fn resume<R, O>(&mut self, turn: &mut Turn<'_, R, O>)
    where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        // What a controller that ended has waiting must not start any more.
        self.queue.enter();
        let is_over = self.is_closed || self.queue.refresh().is_err();
        if !is_over {
            self.report_events(turn);
        }
        self.resume_waiting(is_over, turn);
        self.queue.leave();
    }

    fn resume_waiting<R, O>(&mut self, is_over: bool, turn: &mut Turn<'_, R, O>)
    where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        while let (Some(&tag), false) = (self.waiting.front(), is_over) {
            let Slot::Waiting { cid, request, data } = self.slots.take(tag) else {
                self.waiting.pop_front();
                continue;
            };
            if let Err(status) = self.queue.may_start(&request) {
                self.waiting.pop_front();
                self.complete_command(tag, cid, status.into(), turn.out);
                continue;
            }
            if let Err((request, data)) = self.start(tag, cid, request, data, turn) {
                self.slots.set(tag, Slot::Waiting { cid, request, data });
                return;
            }
            self.waiting.pop_front();
        }
    }

    /// Starts a read or a write, or hands it back when there is no buffer for it now.
    fn start<R, O>(
        &mut self,
        tag: Tag,
        cid: u16,
        request: IoRequest,
        data: Option<Vec<u8>>,
        turn: &mut Turn<'_, R, O>,
    ) -> Result<(), (IoRequest, Option<Vec<u8>>)>
    where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        if !self.has_room(request.length, turn.out) {
            return Err((request, data));
        }
        let is_read = request.op == IoOp::Read;
        if is_read && self.read_now(tag, cid, &request, turn) {
            return Ok(());
        }
        let Some(mut buffer) = turn.rim.allocate(size(request.length)) else {
            return Err((request, data));
        };
        self.buffered += size(request.length);
        match data {
            Some(data) => {
                copy_to(&mut buffer, 0, &data);
                self.submit(tag, cid, request, Some(buffer), turn);
            }
            None if is_read => self.submit(tag, cid, request, Some(buffer), turn),
            None => {
                let length = request.length;
                self.slots.set(
                    tag,
                    Slot::Collect {
                        cid,
                        request,
                        buffer,
                        received: 0,
                        asked: true,
                        intact: true,
                    },
                );
                self.ask(tag, cid, length, turn.out);
            }
        }
        Ok(())
    }

    fn has_room<O: Output<B>>(&self, length: u32, out: &O) -> bool {
        let used = self.buffered.saturating_add(out.pending());
        used.saturating_add(size(length)) <= limits::BUFFERED_BYTES_MAX
    }

    /// A read or a write whose data is to be asked for.
    fn start_or_wait<R, O>(
        &mut self,
        tag: Tag,
        cid: u16,
        request: IoRequest,
        data: Option<Vec<u8>>,
        turn: &mut Turn<'_, R, O>,
    ) where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        let started = if self.is_waiting() {
            Err((request, data))
        } else {
            self.start(tag, cid, request, data, turn)
        };
        if let Err((request, data)) = started {
            self.slots.set(tag, Slot::Waiting { cid, request, data });
            self.waiting.push_back(tag);
        }
    }

    pub(super) fn read<R, O>(
        &mut self,
        tag: Tag,
        cid: u16,
        request: IoRequest,
        turn: &mut Turn<'_, R, O>,
    ) where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        self.start_or_wait(tag, cid, request, None, turn);
    }

    pub(super) fn write<R, O>(
        &mut self,
        tag: Tag,
        cid: u16,
        request: IoRequest,
        turn: &mut Turn<'_, R, O>,
    ) where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        self.start_or_wait(tag, cid, request, None, turn);
    }

    /// Sends what the rim lends, or reads straight into the output, when the rim can. True when the command was completed.
    fn read_now<R, O>(
        &mut self,
        tag: Tag,
        cid: u16,
        request: &IoRequest,
        turn: &mut Turn<'_, R, O>,
    ) -> bool
    where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        if self.writer.data_digest_bytes() == 0
            && let Some(lent) = turn.rim.lend(request)
        {
            let (head, success) = self.data_head(cid, request.length, 0);
            self.send(&head, turn.out);
            turn.out.buffer(lent, size(request.length));
            self.finish_data(tag, cid, success, Completion::SUCCESS, turn.out);
            return true;
        }
        if !turn.rim.reads_now(request) {
            return false;
        }
        let (head, success) = self.data_head(cid, request.length, 0);
        let head_length = self.writer.data_head_bytes();
        let digest_length = self.writer.data_digest_bytes();
        let total = head_length + size(request.length) + digest_length;
        let area = turn.out.area(total);
        let (head_area, rest) = area.split_at_mut(head_length.min(total));
        let (data, digest_area) = rest.split_at_mut(size(request.length).min(rest.len()));
        let result = turn.rim.read_now(request, data);
        if result == Some(Ok(())) {
            self.writer.head(&head, head_area);
            if let Some(digest) = self.writer.data_digest(data) {
                digest_area.copy_from_slice(&digest);
            }
            self.finish_data(tag, cid, success, Completion::SUCCESS, turn.out);
            return true;
        }
        turn.out.retract(total);
        if let Some(Err(error)) = result {
            self.complete_command(tag, cid, error.status().into(), turn.out);
            return true;
        }
        false
    }

    /// A write whose data is in its capsule. The data must be taken now, whether there is a buffer or not.
    pub(super) fn write_in_capsule<R>(
        &mut self,
        tag: Tag,
        cid: u16,
        request: IoRequest,
        at_hand: usize,
        rim: &mut R,
    ) where
        R: Rim<Buffer = B>,
    {
        self.sink = Sink::Slot(tag);
        let length = size(request.length);
        let whole = length + self.writer.data_digest_bytes();
        let is_direct = at_hand >= whole && request.op == IoOp::Write;
        let slot = if is_direct && rim.is_immediate(request.volume) {
            Slot::Direct { cid, request }
        } else if let Some(buffer) = rim.allocate(length) {
            self.buffered += length;
            Slot::Collect {
                cid,
                request,
                buffer,
                received: 0,
                asked: false,
                intact: true,
            }
        } else {
            Slot::Stash {
                cid,
                request,
                data: Vec::with_capacity(length),
                intact: true,
            }
        };
        self.slots.set(tag, slot);
    }

    /// All data of a write in state `Direct` is here.
    pub(super) fn write_directly<R, O>(
        &mut self,
        tag: Tag,
        cid: u16,
        request: IoRequest,
        data: &[u8],
        turn: &mut Turn<'_, R, O>,
    ) where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        match turn.rim.write_now(&request, data) {
            Some(Ok(())) => self.complete_command(tag, cid, Completion::SUCCESS, turn.out),
            Some(Err(error)) => self.complete_command(tag, cid, error.status().into(), turn.out),
            None => {
                let Some(mut buffer) = turn.rim.allocate(size(request.length)) else {
                    self.start_or_wait(tag, cid, request, Some(data.to_vec()), turn);
                    return;
                };
                self.buffered += size(request.length);
                copy_to(&mut buffer, 0, data);
                self.submit(tag, cid, request, Some(buffer), turn);
            }
        }
    }

    /// A write whose data came without a buffer.
    pub(super) fn write_stashed<R, O>(
        &mut self,
        tag: Tag,
        cid: u16,
        request: IoRequest,
        data: Vec<u8>,
        turn: &mut Turn<'_, R, O>,
    ) where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        self.start_or_wait(tag, cid, request, Some(data), turn);
    }

    /// Hands an I/O to the rim, unless its host has lost the right to it. The bytes of its buffer are counted already.
    pub(super) fn submit<R, O>(
        &mut self,
        tag: Tag,
        cid: u16,
        request: IoRequest,
        buffer: Option<B>,
        turn: &mut Turn<'_, R, O>,
    ) where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        let is_read = request.op == IoOp::Read;
        // What carries no data has no buffer to count.
        let length = if buffer.is_some() { request.length } else { 0 };
        if let Err(status) = self.queue.may_start(&request) {
            self.buffered = self.buffered.saturating_sub(size(length));
            self.end(tag, cid, status, turn.out);
            return;
        }
        let phase = self.queue.io_begins();
        self.slots.set(
            tag,
            Slot::Io {
                cid,
                is_read,
                length,
                phase,
            },
        );
        turn.rim.submit(tag, request, buffer);
    }

    /// A command's I/O without data ended, or both commands' of a fused pair.
    fn end<O: Output<B>>(&mut self, tag: Tag, cid: u16, status: Status, out: &mut O) {
        let Some(halves) = self.queue.pair_end(tag, status) else {
            self.complete_command(tag, cid, status.into(), out);
            return;
        };
        self.slots.set(tag, Slot::Held { cid });
        for (half, status) in halves {
            if let Slot::Held { cid } = self.slots.take(half) {
                self.complete_command(half, cid, status.into(), out);
            }
        }
    }
}

/// Copies into a buffer at an offset.
pub(super) fn copy_to<B: AsMut<[u8]>>(buffer: &mut B, offset: usize, bytes: &[u8]) {
    if let Some(room) = buffer.as_mut().get_mut(offset..offset + bytes.len()) {
        room.copy_from_slice(bytes);
    }
}
