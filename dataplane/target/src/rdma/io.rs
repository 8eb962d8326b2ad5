//! Buffers in, data and completions out.

use roadstead_nvme::Status;

use super::{Connection, Fetched, Head, Port, Slot, Want};
use crate::io::{IoOp, IoRequest, IoResult};
use crate::io_queue::status;
use crate::limits;
use crate::queue::{Completion, Tag};
use crate::rim::{Rim, Turn};

/// Lengths of I/O, at most 1 MiB.
fn size(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// The bytes of a buffer that a command uses.
fn used<B: AsMut<[u8]>>(buffer: &mut B, length: u32) -> &mut [u8] {
    buffer.as_mut().get_mut(..size(length)).unwrap_or_default()
}

impl Connection {
    /// An I/O ended that [`Rim::submit`] got. Reads that succeeded give their buffer back, filled.
    /// A tag that is not in flight is ignored, and so is everything once the connection is to be closed.
    pub fn complete<R, P>(
        &mut self,
        tag: Tag,
        result: IoResult,
        buffer: Option<R::Buffer>,
        turn: &mut Turn<'_, R, P>,
    ) where
        R: Rim,
        P: Port<R::Buffer>,
    {
        if self.is_closed || !matches!(self.slots.get_mut(tag), Some(Slot::Io { .. })) {
            return;
        }
        let Slot::Io {
            head,
            is_read,
            length,
            phase,
        } = self.slots.take(tag)
        else {
            return;
        };
        self.queue.io_ends(phase);
        self.buffered = self.buffered.saturating_sub(size(length));
        let completion = match (result, buffer) {
            (Ok(()), Some(buffer)) if is_read => {
                turn.out.write(head.remote, buffer);
                Completion::SUCCESS
            }
            (Ok(()), None) if is_read => Status::INTERNAL.into(),
            (result, _) => status(result).into(),
        };
        match length {
            0 => self.end(tag, head, completion.status, turn.out),
            _ => self.complete_command(tag, head, completion, turn.out),
        }
        if self.is_waiting() {
            self.resume(turn);
        }
    }

    /// Data came that was fetched.
    pub fn fetched<R, P>(&mut self, tag: Tag, buffer: R::Buffer, turn: &mut Turn<'_, R, P>)
    where
        R: Rim,
        P: Port<R::Buffer>,
    {
        if self.is_closed || !matches!(self.slots.get_mut(tag), Some(Slot::Fetch(..))) {
            return;
        }
        let Slot::Fetch(head, fetched) = self.slots.take(tag) else {
            return;
        };
        let mut buffer = buffer;
        // What a controller that ended has fetched must not be written any more.
        self.queue.enter();
        let is_over = self.queue.refresh().is_err();
        match fetched {
            Fetched::Io(request) if is_over => {
                self.buffered = self.buffered.saturating_sub(size(request.length));
            }
            Fetched::Io(request) => self.write(tag, head, request, buffer, turn),
            Fetched::Control { sqe, length } => {
                self.buffered = self.buffered.saturating_sub(size(length));
                let data = used(&mut buffer, length);
                let decision = self.queue.control(tag, &sqe, data, turn.now_ms);
                drop(buffer);
                self.go_on(tag, head, decision, turn);
            }
        }
        self.queue.leave();
        if self.is_waiting() {
            self.resume(turn);
        }
    }

    /// Starts commands that waited, as far as buffers go.
    pub fn resume<R, P>(&mut self, turn: &mut Turn<'_, R, P>)
    where
        R: Rim,
        P: Port<R::Buffer>,
    {
        // What a controller that ended has waiting must not start any more.
        self.queue.enter();
        if !self.is_closed && self.queue.refresh().is_ok() {
            self.report_events(turn);
            self.resume_waiting(turn);
        }
        self.queue.leave();
    }

    fn resume_waiting<R, P>(&mut self, turn: &mut Turn<'_, R, P>)
    where
        R: Rim,
        P: Port<R::Buffer>,
    {
        while let Some(&tag) = self.waiting.front() {
            let Slot::Waiting(head, want) = self.slots.take(tag) else {
                self.waiting.pop_front();
                continue;
            };
            if let Err(status) = self.may_start(&want) {
                self.waiting.pop_front();
                self.complete_command(tag, head, status.into(), turn.out);
                continue;
            }
            if let Err(want) = self.start(tag, head, want, turn) {
                self.slots.set(tag, Slot::Waiting(head, want));
                return;
            }
            self.waiting.pop_front();
        }
    }

    fn may_start(&mut self, want: &Want) -> Result<(), Status> {
        match want {
            Want::Read(request) | Want::Write(request, _) | Want::Fetch(Fetched::Io(request)) => {
                self.queue.may_start(request)
            }
            Want::Fetch(Fetched::Control { .. }) | Want::Reply(..) => Ok(()),
        }
    }

    pub(super) fn start_or_wait<R, P>(
        &mut self,
        tag: Tag,
        head: Head,
        want: Want,
        turn: &mut Turn<'_, R, P>,
    ) where
        R: Rim,
        P: Port<R::Buffer>,
    {
        let started = if self.is_waiting() {
            Err(want)
        } else {
            self.start(tag, head, want, turn)
        };
        if let Err(want) = started {
            self.slots.set(tag, Slot::Waiting(head, want));
            self.waiting.push_back(tag);
        }
    }

    /// Gets a command its buffer and starts it, or hands it back when there is no buffer now.
    fn start<R, P>(
        &mut self,
        tag: Tag,
        head: Head,
        want: Want,
        turn: &mut Turn<'_, R, P>,
    ) -> Result<(), Want>
    where
        R: Rim,
        P: Port<R::Buffer>,
    {
        let length = want.length();
        let in_use = self.buffered.saturating_add(turn.out.pending());
        if in_use.saturating_add(size(length)) > limits::BUFFERED_BYTES_MAX {
            return Err(want);
        }
        let Some(mut buffer) = turn.rim.allocate(size(length)) else {
            return Err(want);
        };
        match want {
            Want::Reply(data, result) => {
                used(&mut buffer, length).copy_from_slice(&data);
                turn.out.write(head.remote, buffer);
                self.complete_command(tag, head, Completion::result(result), turn.out);
            }
            Want::Read(request) => self.read(tag, head, request, buffer, turn),
            Want::Write(request, data) => {
                self.buffered += size(length);
                used(&mut buffer, length).copy_from_slice(&data);
                self.submit(tag, head, request, Some(buffer), turn);
            }
            Want::Fetch(fetched) => {
                self.buffered += size(length);
                self.slots.set(tag, Slot::Fetch(head, fetched));
                turn.out.fetch(tag, head.remote, buffer);
            }
        }
        Ok(())
    }

    fn read<R, P>(
        &mut self,
        tag: Tag,
        head: Head,
        request: IoRequest,
        mut buffer: R::Buffer,
        turn: &mut Turn<'_, R, P>,
    ) where
        R: Rim,
        P: Port<R::Buffer>,
    {
        let now = if turn.rim.is_immediate(request.volume) {
            let into = used(&mut buffer, request.length);
            turn.rim.read_now(&request, into)
        } else {
            None
        };
        match now {
            Some(Ok(())) => {
                turn.out.write(head.remote, buffer);
                self.complete_command(tag, head, Completion::SUCCESS, turn.out);
            }
            Some(Err(error)) => {
                self.complete_command(tag, head, error.status().into(), turn.out);
            }
            None => {
                self.buffered += size(request.length);
                self.submit(tag, head, request, Some(buffer), turn);
            }
        }
    }

    /// A write whose data is in a buffer, which is counted already.
    fn write<R, P>(
        &mut self,
        tag: Tag,
        head: Head,
        request: IoRequest,
        mut buffer: R::Buffer,
        turn: &mut Turn<'_, R, P>,
    ) where
        R: Rim,
        P: Port<R::Buffer>,
    {
        let is_now = request.op == IoOp::Write && turn.rim.is_immediate(request.volume);
        if let (true, Ok(())) = (is_now, self.queue.may_start(&request)) {
            let data = used(&mut buffer, request.length);
            if let Some(result) = turn.rim.write_now(&request, data) {
                self.buffered = self.buffered.saturating_sub(size(request.length));
                self.complete_command(tag, head, status(result).into(), turn.out);
                return;
            }
        }
        self.submit(tag, head, request, Some(buffer), turn);
    }

    /// A write whose data came in its capsule.
    pub(super) fn write_here<R, P>(
        &mut self,
        tag: Tag,
        head: Head,
        request: IoRequest,
        data: &[u8],
        turn: &mut Turn<'_, R, P>,
    ) where
        R: Rim,
        P: Port<R::Buffer>,
    {
        if request.op == IoOp::Write
            && turn.rim.is_immediate(request.volume)
            && let Some(result) = turn.rim.write_now(&request, data)
        {
            self.complete_command(tag, head, status(result).into(), turn.out);
            return;
        }
        if !self.is_waiting()
            && let Some(mut buffer) = turn.rim.allocate(size(request.length))
        {
            self.buffered += size(request.length);
            used(&mut buffer, request.length).copy_from_slice(data);
            self.submit(tag, head, request, Some(buffer), turn);
            return;
        }
        self.start_or_wait(tag, head, Want::Write(request, data.to_vec()), turn);
    }

    /// Hands an I/O to the rim, unless its host has lost the right to it. The bytes of its buffer are counted already.
    pub(super) fn submit<R, P>(
        &mut self,
        tag: Tag,
        head: Head,
        request: IoRequest,
        buffer: Option<R::Buffer>,
        turn: &mut Turn<'_, R, P>,
    ) where
        R: Rim,
        P: Port<R::Buffer>,
    {
        let length = if buffer.is_some() { request.length } else { 0 };
        if let Err(status) = self.queue.may_start(&request) {
            self.buffered = self.buffered.saturating_sub(size(length));
            self.end(tag, head, status, turn.out);
            return;
        }
        let phase = self.queue.io_begins();
        let slot = Slot::Io {
            head,
            is_read: request.op == IoOp::Read,
            length,
            phase,
        };
        self.slots.set(tag, slot);
        turn.rim.submit(tag, request, buffer);
    }

    /// A command's I/O without data ended, or both commands' of a fused pair.
    fn end<B>(&mut self, tag: Tag, head: Head, status: Status, out: &mut impl Port<B>) {
        let Some(halves) = self.queue.pair_end(tag, status) else {
            self.complete_command(tag, head, status.into(), out);
            return;
        };
        self.slots.set(tag, Slot::Held(head));
        for (half, status) in halves {
            if let Slot::Held(head) = self.slots.take(half) {
                self.complete_command(half, head, status.into(), out);
            }
        }
    }
}
