//! One NVMe/TCP connection on the controller's side.

mod data;
mod io;
mod reply;
mod rim;
mod slot;

use std::collections::VecDeque;
use std::sync::Arc;

use roadstead_nvme::{DataPointer, Portal, Sqe, Status};
use roadstead_tcp::pdu::{IcReq, IcResp, alignment_bytes, offset};
use roadstead_tcp::{Event, Fatal, FatalStatus, Pdu, PduReader, PduWriter, Role, Settings};

pub use rim::{Close, Flow, Output};

use crate::io::IoOp;
use crate::limits;
use crate::queue::{Completion, Decision, Queue, Tag};
use crate::registry::Registry;
use crate::rim::{Rim, Turn};
use crate::slots::{NoSlot, Slots};
use crate::work::Abandoned;
use slot::{Control, Slot};

/// One connection: one queue. Owned by one reactor; see the crate's documentation for how to drive it.
#[derive(Debug)]
pub struct Connection<B> {
    reader: PduReader,
    writer: PduWriter,
    queue: Queue,
    slots: Slots<Slot<B>>,
    /// Where the data that the reader gives goes.
    sink: Sink,
    /// Reads and writes that wait for a buffer, oldest first.
    waiting: VecDeque<Tag>,
    /// Bytes of buffers in use by commands.
    buffered: usize,
    /// Commands that wait for data that was asked for.
    asked: usize,
    created_ms: u64,
    received_ms: u64,
    is_closed: bool,
    /// Room for heads of PDUs.
    head: [u8; PduWriter::HEAD_MAX],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sink {
    Discard,
    Slot(Tag),
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Connection<B> {
    /// A connection that was just accepted. `local` is what the host reached: an address of ours, or
    /// [`Portal::LOCAL`].
    #[must_use]
    pub fn new(registry: Arc<Registry>, local: impl Into<Portal>, now_ms: u64) -> Self {
        Self {
            reader: PduReader::new(Role::Controller),
            writer: PduWriter::new(Settings::default()),
            queue: Queue::new(registry, local.into()),
            slots: Slots::new(),
            sink: Sink::Discard,
            waiting: VecDeque::new(),
            buffered: 0,
            asked: 0,
            created_ms: now_ms,
            received_ms: now_ms,
            is_closed: false,
            head: [0; PduWriter::HEAD_MAX],
        }
    }

    /// Whether commands wait for a buffer or for room in the output, or [`Self::is_draining`]: call [`Self::resume`]
    /// when there may be some.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.is_draining()
    }

    /// Whether a command waits for the end of other hosts' I/O, which nothing tells about: call [`Self::resume`] every
    /// millisecond or so.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.queue.is_draining()
    }

    /// Commands in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.slots.used()
    }

    /// Ends the connection: call this when its socket is closed or to be closed. Keep what is returned until all I/O
    /// ended that [`Rim::submit`] got from it; its completions are not wanted any more.
    pub fn abandon(self) -> Abandoned {
        self.queue.abandon()
    }

    /// Takes bytes from the front of `input` and does what they say.
    ///
    /// # Errors
    /// The connection must be closed.
    pub fn receive<R, O>(
        &mut self,
        input: &mut &[u8],
        turn: &mut Turn<'_, R, O>,
    ) -> Result<Flow, Close>
    where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        if self.is_closed {
            return Err(Close::Closed);
        }
        self.received_ms = turn.now_ms;
        self.queue.enter();
        let result = self.receive_events(input, turn);
        self.queue.leave();
        self.close_on_error(result, turn)
    }

    /// Checks time-outs, reports events, notices what the control side changed. Call about once a second, and at once
    /// after [`Registry::apply`].
    ///
    /// # Errors
    /// The connection must be closed.
    pub fn tick<R, O>(&mut self, turn: &mut Turn<'_, R, O>) -> Result<(), Close>
    where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        if self.is_closed {
            return Err(Close::Closed);
        }
        let result = self.check_time(turn.now_ms);
        let result = result.and_then(|()| self.queue.tick(turn.now_ms).map_err(Close::Ended));
        if result.is_ok() {
            self.report_events(turn);
        }
        self.close_on_error(result, turn)
    }

    fn check_time(&self, now_ms: u64) -> Result<(), Close> {
        if !self.queue.is_connected()
            && now_ms.saturating_sub(self.created_ms) > limits::CONNECT_MS_MAX
        {
            return Err(Close::ConnectTimeout);
        }
        if self.asked > 0 && now_ms.saturating_sub(self.received_ms) > limits::DATA_MS_MAX {
            return Err(Close::DataTimeout);
        }
        Ok(())
    }

    fn close_on_error<T, R, O: Output<B>>(
        &mut self,
        result: Result<T, Close>,
        turn: &mut Turn<'_, R, O>,
    ) -> Result<T, Close> {
        if let Err(close) = &result {
            self.is_closed = true;
            if let Close::Protocol(fatal) = close {
                turn.out.bytes(&PduWriter::term(Role::Controller, fatal));
            }
        }
        result
    }

    fn receive_events<R, O>(
        &mut self,
        input: &mut &[u8],
        turn: &mut Turn<'_, R, O>,
    ) -> Result<Flow, Close>
    where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        self.queue.refresh().map_err(Close::Ended)?;
        // The data of a command in state `Direct`.
        let mut direct: &[u8] = &[];
        loop {
            if turn.out.pending() >= limits::OUTPUT_BYTES_MAX && self.reader.is_between_pdus() {
                self.report_events(turn);
                let flow = if input.is_empty() {
                    Flow::Open
                } else {
                    Flow::Blocked
                };
                return Ok(flow);
            }
            match self.reader.next(input).map_err(Close::Protocol)? {
                None => break,
                Some(Event::Pdu(Pdu::CapsuleCmd { sqe, data_length })) => {
                    self.command(&sqe, data_length, input.len(), turn)?;
                }
                Some(Event::Pdu(Pdu::H2cData(data))) => self.host_data(&data)?,
                Some(Event::Pdu(Pdu::IcReq(request))) => self.initialise(&request, turn.out)?,
                Some(Event::Pdu(Pdu::H2cTermReq(term))) => return Err(Close::Host(term)),
                Some(Event::Pdu(pdu)) => {
                    // The reader does not let them pass; should it ever, this ends the connection.
                    return Err(self.fatal(FatalStatus::SEQUENCE, 0, "PDU of the other end", &pdu));
                }
                Some(Event::Data(bytes)) => {
                    if self.takes_directly() {
                        direct = bytes;
                    } else {
                        self.data(bytes);
                    }
                }
                Some(Event::DataEnd { intact }) => self.data_end(intact, direct, turn),
            }
        }
        self.report_events(turn);
        Ok(Flow::Open)
    }

    fn initialise<O: Output<B>>(&mut self, request: &IcReq, out: &mut O) -> Result<(), Close> {
        if request.version != 0 {
            let what = "PDU format version is unknown";
            return Err(self.fatal(
                FatalStatus::UNSUPPORTED_PARAMETER,
                offset::VERSION,
                what,
                &Pdu::IcReq(*request),
            ));
        }
        let agreed = Settings {
            header_digest: request.header_digest,
            data_digest: request.data_digest,
            alignment_bytes: 4,
            max_in_capsule: limits::IN_CAPSULE_BYTES_MAX,
            max_data: limits::TRANSFER_BYTES_MAX,
        };
        let response = IcResp {
            version: 0,
            alignment: 0,
            header_digest: request.header_digest,
            data_digest: request.data_digest,
            max_data: limits::TRANSFER_BYTES_MAX,
        };
        self.send(&Pdu::IcResp(response), out);
        self.reader.settle(agreed);
        self.writer = PduWriter::new(Settings {
            alignment_bytes: alignment_bytes(request.alignment),
            ..agreed
        });
        Ok(())
    }

    /// The error about a PDU whose head was well-formed.
    fn fatal(&self, status: FatalStatus, information: u32, what: &'static str, pdu: &Pdu) -> Close {
        let mut head = [0; PduWriter::HEAD_MAX];
        // Written by the same rules, it has the bytes that came.
        let writer = PduWriter::new(Settings {
            alignment_bytes: 4,
            ..*self.writer.settings()
        });
        let length = writer.head(pdu, &mut head);
        Close::Protocol(Fatal::new(
            status,
            information,
            what,
            head.get(..length).unwrap_or(&head),
        ))
    }

    /// A command came; `data_length` bytes of data follow in its capsule, of which `at_hand` or fewer are in the input.
    fn command<R, O>(
        &mut self,
        sqe: &Sqe,
        data_length: u32,
        at_hand: usize,
        turn: &mut Turn<'_, R, O>,
    ) -> Result<(), Close>
    where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        self.sink = Sink::Discard;
        let cid = sqe.cid.get();
        let tag = match self.slots.allocate(self.queue.entries(), cid) {
            Ok(tag) => tag,
            Err(NoSlot::Conflict) => {
                let conflict = Status::COMMAND_ID_CONFLICT.dnr();
                let cqe = self.queue.cqe(Tag::NONE, cid, conflict.into());
                self.send(&Pdu::CapsuleResp(cqe), turn.out);
                return Ok(());
            }
            Err(NoSlot::Full) => {
                let pdu = Pdu::CapsuleCmd {
                    sqe: *sqe,
                    data_length,
                };
                let what = "more commands than the queue has entries";
                return Err(self.fatal(FatalStatus::SEQUENCE, 0, what, &pdu));
            }
        };
        let pointer = match check_pointer(sqe, data_length) {
            Ok(pointer) => pointer,
            Err(status) => {
                let status = self.queue.skip(tag, sqe, status);
                self.complete_command(tag, cid, status.into(), turn.out);
                return Ok(());
            }
        };
        let is_in_capsule = matches!(pointer, DataPointer::InCapsule { .. });
        match self.queue.begin(tag, sqe, pointer.length(), turn.now_ms) {
            Decision::Complete(completion) => self.complete_command(tag, cid, completion, turn.out),
            Decision::Hold => self.slots.set(tag, Slot::Held { cid }),
            Decision::Reply { .. } if is_in_capsule => {
                self.complete_command(tag, cid, Status::SGL_TYPE_INVALID.dnr().into(), turn.out);
            }
            Decision::Reply { data, result } => self.reply(tag, cid, &data, result, turn.out),
            Decision::Control { length } => {
                let asked = !is_in_capsule;
                let data = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
                let control = Control {
                    cid,
                    sqe: *sqe,
                    data,
                    length,
                    asked,
                    intact: true,
                };
                self.slots.set(tag, Slot::Control(Box::new(control)));
                if asked {
                    self.ask(tag, cid, length, turn.out);
                } else {
                    self.sink = Sink::Slot(tag);
                }
            }
            Decision::Io(request) => match (&request.op, is_in_capsule) {
                (IoOp::Read, true) => {
                    let status = Status::SGL_TYPE_INVALID.dnr();
                    self.complete_command(tag, cid, status.into(), turn.out);
                }
                (IoOp::Read, false) => self.read(tag, cid, request, turn),
                (IoOp::Write | IoOp::Compare, true) => {
                    self.write_in_capsule(tag, cid, request, at_hand, turn.rim);
                }
                (IoOp::Write | IoOp::Compare, false) => self.write(tag, cid, request, turn),
                _ => self.submit(tag, cid, request, None, turn),
            },
        }
        Ok(())
    }

    fn report_events<R, O>(&mut self, turn: &mut Turn<'_, R, O>)
    where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        while let Some((tag, decision)) = self.queue.next_event() {
            if let Slot::Held { cid } = self.slots.take(tag) {
                self.go_on(tag, cid, decision, turn);
            }
        }
    }

    /// Goes on with a command that was held, or whose data came.
    fn go_on<R, O>(&mut self, tag: Tag, cid: u16, decision: Decision, turn: &mut Turn<'_, R, O>)
    where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        match decision {
            Decision::Complete(completion) => self.complete_command(tag, cid, completion, turn.out),
            Decision::Hold => self.slots.set(tag, Slot::Held { cid }),
            Decision::Io(request)
                if !matches!(request.op, IoOp::Read | IoOp::Write | IoOp::Compare) =>
            {
                self.submit(tag, cid, request, None, turn);
            }
            Decision::Io(_) | Decision::Reply { .. } | Decision::Control { .. } => {
                self.complete_command(tag, cid, Status::INTERNAL.into(), turn.out);
            }
        }
    }

    /// Completes a command and frees its place.
    fn complete_command<O: Output<B>>(
        &mut self,
        tag: Tag,
        cid: u16,
        completion: Completion,
        out: &mut O,
    ) {
        self.slots.release(tag);
        let cqe = self.queue.cqe(tag, cid, completion);
        self.send(&Pdu::CapsuleResp(cqe), out);
    }
}

/// Where a command's data is, if that fits the capsule's data.
fn check_pointer(sqe: &Sqe, data_length: u32) -> Result<DataPointer, Status> {
    let pointer = DataPointer::parse(&sqe.dptr).map_err(Status::dnr)?;
    match pointer {
        DataPointer::InCapsule { offset, .. } if offset != 0 => {
            Err(Status::SGL_OFFSET_INVALID.dnr())
        }
        DataPointer::InCapsule { length, .. } if length == data_length => Ok(pointer),
        DataPointer::Transport { .. } if data_length == 0 => Ok(pointer),
        _ => Err(Status::SGL_LENGTH_INVALID.dnr()),
    }
}
