//! One queue's connection over NVMe/TCP: PDUs to and from the host's state machine.

use roadstead_host::{Command, Epoch, Payload, Transfer};
use roadstead_nvme::{Cqe, DataPointer, Sqe, Status};
use roadstead_ring::{Output, SocketId};
use roadstead_tcp::pdu::{H2cData, IcReq, IcResp, R2t, alignment_bytes};
use roadstead_tcp::{Event, Fatal, FatalStatus, Pdu, PduReader, PduWriter, Role, Settings};

use crate::buffers::Buffers;
use crate::spec::Spec;
use crate::surroundings::Surroundings;

/// R2Ts that the target may have in flight for a command.
const R2T_MAX: u64 = 16;
/// Data of one C2HData that is accepted, in bytes: more than any command has.
const DATA_MAX: u32 = 1 << 24;

/// Data that is at least this long is sent from where it lies: below, a copy costs less than sharing.
const SHARE_MIN_BYTES: usize = 16 << 10;

/// Why a connection has to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The target sent what it must not; it is told so.
    #[error("the target violates the protocol: {0}")]
    Fatal(#[from] Fatal),
    /// The target said that we sent what we must not.
    #[error("the target ended the connection: {0}")]
    Terminated(FatalStatus),
    /// The settings that the target answered cannot be used.
    #[error("the target answers the connection request with {0}")]
    Settings(&'static str),
    /// Data of an admin command came with a wrong checksum; of an I/O command it costs the command a repetition.
    #[error("data came with a wrong checksum")]
    DataDigest,
}

/// Where the data of the PDU that is being received goes.
#[derive(Clone, Copy, Debug)]
enum Sink {
    None,
    Control,
    Request {
        cid: u16,
        transfer: Transfer,
        offset: u32,
    },
}

/// One queue's connection.
pub(crate) struct Connection {
    pub(crate) socket: SocketId,
    pub(crate) epoch: Epoch,
    pub(crate) qid: u16,
    reader: PduReader,
    writer: PduWriter,
    /// Most data of one H2CData.
    max_data: u32,
    sink: Sink,
    /// A completion that is due when the PDU's data has come.
    success: Option<u16>,
    /// The control command in flight whose data comes.
    control_cid: Option<u16>,
    control: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(socket: SocketId, epoch: Epoch, qid: u16) -> Self {
        Self {
            socket,
            epoch,
            qid,
            reader: PduReader::new(Role::Host),
            writer: PduWriter::new(Settings::default()),
            max_data: 0,
            sink: Sink::None,
            success: None,
            control_cid: None,
            control: Vec::new(),
        }
    }

    /// The first PDU.
    pub(crate) fn request(&self, spec: &Spec, out: &mut Output) {
        let request = Pdu::IcReq(IcReq {
            version: 0,
            alignment: 0,
            header_digest: spec.header_digest,
            data_digest: spec.data_digest,
            max_r2t: R2T_MAX,
        });
        self.head(&request, out);
    }

    /// Sends a command that is no request.
    pub(crate) fn send_control(&mut self, sqe: &Sqe, data: &[u8], data_in: u32, out: &mut Output) {
        if data_in > 0 {
            self.control_cid = Some(sqe.cid.get());
            self.control.clear();
            self.control.reserve(data_in as usize);
        }
        self.capsule(sqe, data, out);
    }

    /// Sends a command of a request.
    pub(crate) fn send(&self, command: &Command, buffers: &mut Buffers, out: &mut Output) {
        let mut sqe = command.sqe;
        match &command.payload {
            Payload::None => self.capsule(&sqe, &[], out),
            Payload::Read(transfer) => {
                let length = transfer.length_bytes;
                sqe.dptr = DataPointer::Transport { length }.encode();
                self.capsule(&sqe, &[], out);
            }
            Payload::Write(transfer) => {
                let length = transfer.length_bytes;
                if length <= command.in_capsule_bytes
                    && buffers.slice(transfer, 0, length).is_some()
                {
                    sqe.dptr = DataPointer::InCapsule { offset: 0, length }.encode();
                    let data_length = length;
                    self.head(&Pdu::CapsuleCmd { sqe, data_length }, out);
                    self.payload(transfer, 0, length, buffers, out);
                } else {
                    sqe.dptr = DataPointer::Transport { length }.encode();
                    self.capsule(&sqe, &[], out);
                }
            }
        }
    }

    /// A piece of a write's data, which is within its buffer: short ones copied, others sent from where they lie.
    fn payload(
        &self,
        transfer: &Transfer,
        offset: u32,
        length: u32,
        buffers: &mut Buffers,
        out: &mut Output,
    ) {
        let slice = buffers.slice(transfer, offset, length).unwrap_or_default();
        if slice.len() < SHARE_MIN_BYTES {
            return self.data(slice, out);
        }
        let (bytes, digest) = (slice.len(), self.writer.data_digest(slice));
        if let Some((shared, from)) = buffers.share(transfer, offset) {
            out.put_shared(shared, from, bytes);
        }
        if let Some(digest) = digest {
            out.put(&digest);
        }
    }

    fn capsule(&self, sqe: &Sqe, data: &[u8], out: &mut Output) {
        let data_length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.head(
            &Pdu::CapsuleCmd {
                sqe: *sqe,
                data_length,
            },
            out,
        );
        self.data(data, out);
    }

    fn head(&self, pdu: &Pdu, out: &mut Output) {
        let mut head = [0; PduWriter::HEAD_MAX];
        let length = self.writer.head(pdu, &mut head);
        out.put(head.get(..length).unwrap_or_default());
    }

    fn data(&self, data: &[u8], out: &mut Output) {
        if data.is_empty() {
            return;
        }
        out.put(data);
        if let Some(digest) = self.writer.data_digest(data) {
            out.put(&digest);
        }
    }

    /// Takes in what came. Answers go to `out`.
    pub(crate) fn receive(
        &mut self,
        mut input: &[u8],
        around: &mut Surroundings<'_>,
        out: &mut Output,
    ) -> Result<(), Broken> {
        // A completion may end the attempt that this connection belongs to.
        while around.host.is_current(self.epoch) {
            let Some(event) = self.reader.next(&mut input)? else {
                break;
            };
            match event {
                Event::Pdu(pdu) => self.pdu(pdu, around, out)?,
                Event::Data(bytes) => self.data_came(bytes, around)?,
                Event::DataEnd { intact } => {
                    match std::mem::replace(&mut self.sink, Sink::None) {
                        Sink::Request { cid, .. } if !intact => {
                            around.host.damaged(self.epoch, self.qid, cid);
                        }
                        _ if !intact => return Err(Broken::DataDigest),
                        _ => {}
                    }
                    if let Some(cid) = self.success.take() {
                        self.completed(&Cqe::new(cid, Status::SUCCESS, 0), around);
                    }
                }
            }
        }
        Ok(())
    }

    fn pdu(
        &mut self,
        pdu: Pdu,
        around: &mut Surroundings<'_>,
        out: &mut Output,
    ) -> Result<(), Broken> {
        match pdu {
            Pdu::IcResp(response) => {
                self.settle(&response, around.spec)?;
                around.host.ready(self.epoch, self.qid);
            }
            Pdu::CapsuleResp(cqe) => self.completed(&cqe, around),
            Pdu::C2hData(data) => {
                self.success = data.success.then_some(data.cid);
                let (offset, length) = (data.offset, data.length);
                self.sink = if self.control_cid == Some(data.cid) {
                    let next = usize::try_from(offset).ok() == Some(self.control.len());
                    if !next || self.control.len() + length as usize > self.control.capacity() {
                        return Err(out_of_range("data of an admin command is not the next").into());
                    }
                    Sink::Control
                } else {
                    let transfer = around
                        .host
                        .received(self.epoch, self.qid, data.cid, offset, length)
                        .ok_or_else(|| out_of_range("data for no read in flight"))?;
                    Sink::Request {
                        cid: data.cid,
                        transfer,
                        offset,
                    }
                };
            }
            Pdu::R2t(r2t) => self.ready_to_transfer(&r2t, around, out)?,
            Pdu::C2hTermReq(term) => return Err(Broken::Terminated(term.status)),
            // The reader lets no host see these.
            Pdu::IcReq(_) | Pdu::H2cTermReq(_) | Pdu::CapsuleCmd { .. } | Pdu::H2cData(_) => {}
        }
        Ok(())
    }

    fn settle(&mut self, response: &IcResp, spec: &Spec) -> Result<(), Broken> {
        if response.version != 0 {
            return Err(Broken::Settings("a version that does not exist"));
        }
        if (response.header_digest && !spec.header_digest)
            || (response.data_digest && !spec.data_digest)
        {
            return Err(Broken::Settings("digests that were not asked for"));
        }
        let both = Settings {
            header_digest: response.header_digest,
            data_digest: response.data_digest,
            ..Settings::default()
        };
        self.reader.settle(Settings {
            max_data: DATA_MAX,
            ..both
        });
        self.writer = PduWriter::new(Settings {
            alignment_bytes: alignment_bytes(response.alignment),
            ..both
        });
        self.max_data = response.max_data;
        Ok(())
    }

    fn data_came(&mut self, bytes: &[u8], around: &mut Surroundings<'_>) -> Result<(), Broken> {
        match &mut self.sink {
            Sink::None => {}
            Sink::Control => self.control.extend_from_slice(bytes),
            Sink::Request {
                transfer, offset, ..
            } => {
                let place = around.buffers.slice_mut(transfer, *offset, bytes.len());
                place
                    .ok_or_else(|| out_of_range("data beyond its buffer"))?
                    .copy_from_slice(bytes);
                *offset = offset.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            }
        }
        Ok(())
    }

    fn completed(&mut self, cqe: &Cqe, around: &mut Surroundings<'_>) {
        let is_control = self.control_cid == Some(cqe.cid.get());
        let data = if is_control {
            self.control.as_slice()
        } else {
            &[]
        };
        around
            .host
            .completed(self.epoch, self.qid, cqe, data, around.now);
    }

    /// Sends the data that the target asks for.
    fn ready_to_transfer(
        &self,
        r2t: &R2t,
        around: &mut Surroundings<'_>,
        out: &mut Output,
    ) -> Result<(), Broken> {
        let transfer = around
            .host
            .asked(self.epoch, self.qid, r2t.cid, r2t.offset, r2t.length)
            .ok_or_else(|| out_of_range("data asked for that no write has, or again"))?;
        let end = r2t.offset + r2t.length;
        let mut offset = r2t.offset;
        while offset < end {
            let length = self.max_data.min(end - offset);
            around
                .buffers
                .slice(&transfer, offset, length)
                .ok_or_else(|| out_of_range("data asked for beyond its buffer"))?;
            let head = H2cData {
                cid: r2t.cid,
                tag: r2t.tag,
                offset,
                length,
                last: offset + length == end,
            };
            self.head(&Pdu::H2cData(head), out);
            self.payload(&transfer, offset, length, around.buffers, out);
            offset += length;
        }
        Ok(())
    }
}

fn out_of_range(what: &'static str) -> Fatal {
    Fatal::new(FatalStatus::DATA_OUT_OF_RANGE, 0, what, &[])
}
