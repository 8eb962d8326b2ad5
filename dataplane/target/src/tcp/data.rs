//! Data from the host.

use roadstead_nvme::Status;
use roadstead_tcp::pdu::{H2cData, offset};
use roadstead_tcp::{FatalStatus, Pdu};

use super::io::{copy_to, size};
use super::slot::{Control, Slot};
use super::{Close, Connection, Output, Sink};
use crate::queue::Tag;
use crate::rim::{Rim, Turn};

impl<B: AsRef<[u8]> + AsMut<[u8]>> Connection<B> {
    /// Data that was asked for comes.
    pub(super) fn host_data(&mut self, data: &H2cData) -> Result<(), Close> {
        let tag = Tag(data.tag);
        let expected = match self.slots.get_mut(tag) {
            Some(Slot::Collect {
                cid,
                request,
                received,
                asked: true,
                ..
            }) => Some((*cid, *received, request.length)),
            Some(Slot::Control(control)) if control.asked => {
                let received = u32::try_from(control.data.len()).unwrap_or(u32::MAX);
                Some((control.cid, received, control.length))
            }
            _ => None,
        };
        let pdu = Pdu::H2cData(*data);
        let field = FatalStatus::INVALID_HEADER_FIELD;
        let Some((cid, received, length)) = expected else {
            return Err(self.fatal(
                field,
                offset::TAG,
                "data for a transfer that was not asked for",
                &pdu,
            ));
        };
        if cid != data.cid {
            return Err(self.fatal(
                field,
                offset::CID,
                "data for another command than the transfer's",
                &pdu,
            ));
        }
        let range = FatalStatus::DATA_OUT_OF_RANGE;
        if data.offset != received {
            let what = "data does not follow what came before";
            return Err(self.fatal(range, 0, what, &pdu));
        }
        let left = length.saturating_sub(received);
        if data.length > left {
            let what = "more data than was asked for";
            return Err(self.fatal(range, 0, what, &pdu));
        }
        if data.last && data.length != left {
            return Err(self.fatal(field, offset::FLAGS, "the last data comes too early", &pdu));
        }
        self.sink = Sink::Slot(tag);
        Ok(())
    }

    /// Whether data is left where it is until it is whole.
    pub(super) fn takes_directly(&mut self) -> bool {
        match self.sink {
            Sink::Slot(tag) => matches!(self.slots.get_mut(tag), Some(Slot::Direct { .. })),
            Sink::Discard => false,
        }
    }

    /// A piece of data.
    pub(super) fn data(&mut self, bytes: &[u8]) {
        let Sink::Slot(tag) = self.sink else {
            return;
        };
        match self.slots.get_mut(tag) {
            Some(Slot::Collect {
                buffer, received, ..
            }) => {
                copy_to(buffer, size(*received), bytes);
                *received = received.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            }
            Some(Slot::Control(control)) => control.data.extend_from_slice(bytes),
            Some(Slot::Stash { data, .. }) => data.extend_from_slice(bytes),
            _ => {}
        }
    }

    /// The data of a PDU is whole; `direct` is it, for a command in state `Direct`.
    pub(super) fn data_end<R, O>(&mut self, intact: bool, direct: &[u8], turn: &mut Turn<'_, R, O>)
    where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        let Sink::Slot(tag) = std::mem::replace(&mut self.sink, Sink::Discard) else {
            return;
        };
        match self.slots.take(tag) {
            Slot::Direct { cid, .. } if !intact => self.digest_error(tag, cid, turn.out),
            Slot::Direct { cid, request } => self.write_directly(tag, cid, request, direct, turn),
            Slot::Stash {
                cid,
                request,
                data,
                intact: before,
            } => {
                if intact && before {
                    self.write_stashed(tag, cid, request, data, turn);
                } else {
                    self.digest_error(tag, cid, turn.out);
                }
            }
            Slot::Collect {
                cid,
                request,
                buffer,
                received,
                asked,
                intact: before,
            } => {
                let intact = intact && before;
                if received < request.length {
                    self.slots.set(
                        tag,
                        Slot::Collect {
                            cid,
                            request,
                            buffer,
                            received,
                            asked,
                            intact,
                        },
                    );
                    return;
                }
                self.asked = self.asked.saturating_sub(usize::from(asked));
                if intact {
                    self.submit(tag, cid, request, Some(buffer), turn);
                } else {
                    self.buffered = self.buffered.saturating_sub(size(request.length));
                    self.digest_error(tag, cid, turn.out);
                }
            }
            Slot::Control(mut control) => {
                control.intact &= intact;
                if control.data.len() < size(control.length) {
                    self.slots.set(tag, Slot::Control(control));
                } else {
                    self.control_end(tag, &control, turn);
                }
            }
            other => self.slots.set(tag, other),
        }
    }

    fn digest_error<O: Output<B>>(&mut self, tag: Tag, cid: u16, out: &mut O) {
        self.complete_command(tag, cid, Status::TRANSIENT_TRANSPORT.into(), out);
    }

    /// All data of a command that is no I/O is here.
    fn control_end<R, O>(&mut self, tag: Tag, control: &Control, turn: &mut Turn<'_, R, O>)
    where
        R: Rim<Buffer = B>,
        O: Output<B>,
    {
        let cid = control.cid;
        self.asked = self.asked.saturating_sub(usize::from(control.asked));
        if !control.intact {
            self.queue.lose(tag);
            self.digest_error(tag, cid, turn.out);
            return;
        }
        let (sqe, data) = (&control.sqe, &control.data);
        let decision = self.queue.control(tag, sqe, data, turn.now_ms);
        self.go_on(tag, cid, decision, turn);
    }
}
