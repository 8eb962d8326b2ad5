//! Bytes in, PDUs and pieces of data out.

use zerocopy::FromBytes;

use crate::decode::decode;
use crate::pdu::{
    COMMON_BYTES, CommandWire, Common, IcWire, Pdu, ResponseWire, TermWire, TransferWire, flag,
    kind, offset,
};
use crate::writer::DIGEST_BYTES;
use crate::{Fatal, FatalStatus, Role, Settings};

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The head of a PDU. When [`Pdu::data_length`] is not zero, data follows.
    Pdu(Pdu),
    /// A piece of the data of the last PDU, never empty.
    Data(&'a [u8]),
    /// All data of the last PDU came.
    DataEnd {
        /// The data digest was right, or digests are off.
        intact: bool,
    },
}

/// Longest head: data may start no later than the largest value of the one-byte offset.
const HEAD_MAX: usize = 255;

#[derive(Clone, Copy, Debug)]
enum State {
    /// Collecting a head.
    Head,
    /// In the data of a PDU.
    Data { left: u32, crc: u32 },
    /// In the digest behind data.
    Digest { crc: u32 },
    /// A fatal error was returned.
    Dead,
}

/// Reads the bytes of one direction of one connection.
#[derive(Clone, Debug)]
pub struct PduReader {
    role: Role,
    settings: Settings,
    settled: bool,
    state: State,
    /// The start of a head (or digest) that did not come whole.
    stash: [u8; HEAD_MAX],
    stashed: usize,
}

/// What the common header says about the rest.
pub(crate) struct Shape {
    pub(crate) common: Common,
    /// Header, digest and padding, bytes.
    pub(crate) head: usize,
    /// Data without digest, bytes.
    pub(crate) data: u32,
}

impl PduReader {
    /// A reader for a fresh connection. Until [`Self::settle`] it takes nothing but ICReq or ICResp, and
    /// termination requests.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self {
            role,
            settings: Settings::default(),
            settled: false,
            state: State::Head,
            stash: [0; HEAD_MAX],
            stashed: 0,
        }
    }

    /// From now on the connection is initialised and these settings hold.
    pub fn settle(&mut self, settings: Settings) {
        self.settings = settings;
        self.settled = true;
    }

    /// Whether the reader stands between two PDUs: the only place where a peer may close the connection.
    #[must_use]
    pub fn is_between_pdus(&self) -> bool {
        matches!(self.state, State::Head) && self.stashed == 0
    }

    /// Takes bytes from the front of `input` up to the next event. `Ok(None)`: all of `input` was taken and more
    /// is needed.
    ///
    /// # Errors
    /// The connection must end; every further call returns an error too.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, Fatal> {
        let event = match self.state {
            State::Head => self.next_head(input),
            State::Data { left, crc } => Ok(self.next_data(input, left, crc)),
            State::Digest { crc } => Ok(self.next_digest(input, crc)),
            State::Dead => Err(Fatal::new(
                FatalStatus::SEQUENCE,
                0,
                "the connection has ended",
                &[],
            )),
        };
        if event.is_err() {
            self.state = State::Dead;
        }
        event
    }

    fn next_head<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, Fatal> {
        if self.stashed == 0 {
            // The common case: the whole head is in the input and need not be copied.
            let bytes = *input;
            if let Some(shape) = self.shape(bytes)?
                && let Some((head, rest)) = bytes.split_at_checked(shape.head)
            {
                let event = self.head(&shape, head)?;
                *input = rest;
                return Ok(Some(event));
            }
        }
        if !self.fill(input, COMMON_BYTES) {
            return Ok(None);
        }
        let stash = self.stash;
        let Some(shape) = self.shape(&stash)? else {
            return Ok(None);
        };
        if !self.fill(input, shape.head) {
            return Ok(None);
        }
        let stash = self.stash;
        let head = stash.get(..shape.head).unwrap_or(&stash);
        self.stashed = 0;
        self.head(&shape, head).map(Some)
    }

    /// Moves input to the stash until it has `target` bytes; false when more input is needed.
    fn fill(&mut self, input: &mut &[u8], target: usize) -> bool {
        let wanted = target.saturating_sub(self.stashed);
        let taken = wanted.min(input.len());
        let (bytes, rest) = input.split_at(taken);
        if let Some(room) = self.stash.get_mut(self.stashed..self.stashed + taken) {
            room.copy_from_slice(bytes);
        }
        self.stashed += taken;
        *input = rest;
        taken == wanted
    }

    fn next_data<'a>(&mut self, input: &mut &'a [u8], left: u32, crc: u32) -> Option<Event<'a>> {
        if left == 0 {
            if self.settings.data_digest {
                self.state = State::Digest { crc };
                return self.next_digest(input, crc);
            }
            self.state = State::Head;
            return Some(Event::DataEnd { intact: true });
        }
        if input.is_empty() {
            return None;
        }
        let taken = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let (bytes, rest) = input.split_at(taken);
        *input = rest;
        let crc = if self.settings.data_digest {
            crc32c::crc32c_append(crc, bytes)
        } else {
            0
        };
        let left = left.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
        self.state = State::Data { left, crc };
        Some(Event::Data(bytes))
    }

    fn next_digest<'a>(&mut self, input: &mut &'a [u8], crc: u32) -> Option<Event<'a>> {
        if !self.fill(input, DIGEST_BYTES) {
            return None;
        }
        self.stashed = 0;
        self.state = State::Head;
        let [a, b, c, d, ..] = self.stash;
        let intact = u32::from_le_bytes([a, b, c, d]) == crc;
        Some(Event::DataEnd { intact })
    }

    /// Checks the common header at the start of `bytes`. None: fewer than its bytes are there.
    fn shape(&self, bytes: &[u8]) -> Result<Option<Shape>, Fatal> {
        let Ok((common, _)) = Common::read_from_prefix(bytes) else {
            return Ok(None);
        };
        let head = bytes.get(..COMMON_BYTES).unwrap_or(bytes);
        let invalid =
            |offset, what| Fatal::new(FatalStatus::INVALID_HEADER_FIELD, offset, what, head);
        let (hlen, may_have_data) =
            self.kind_rules(common.kind)
                .map_err(|refusal| match refusal {
                    Refusal::Unknown => {
                        invalid(offset::TYPE, "PDU type is unknown, or the other end's")
                    }
                    Refusal::Sequence(what) => Fatal::new(FatalStatus::SEQUENCE, 0, what, head),
                })?;
        if usize::from(common.hlen) != hlen {
            return Err(invalid(
                offset::HLEN,
                "header length does not fit the PDU type",
            ));
        }
        let plen = common.plen.get();
        if hlen == size_of::<TermWire>()
            && matches!(common.kind, kind::H2C_TERM_REQ | kind::C2H_TERM_REQ)
        {
            let length = usize::try_from(plen).unwrap_or(usize::MAX);
            if !(hlen..=Fatal::TERM_MAX).contains(&length) {
                return Err(invalid(
                    offset::PLEN,
                    "termination request has a wrong length",
                ));
            }
            return Ok(Some(Shape {
                common,
                head: length,
                data: 0,
            }));
        }
        let digested = self.settings.header_digest && self.settled;
        if (common.flags & flag::HEADER_DIGEST != 0) != digested {
            return Err(invalid(
                offset::FLAGS,
                "header digest flag differs from what was agreed",
            ));
        }
        let end = hlen + if digested { DIGEST_BYTES } else { 0 };
        let Some(rest) = plen.checked_sub(length32(end)) else {
            return Err(invalid(offset::PLEN, "PDU is shorter than its header"));
        };
        if rest == 0 {
            return Ok(Some(Shape {
                common,
                head: end,
                data: 0,
            }));
        }
        if !may_have_data {
            return Err(invalid(offset::PLEN, "PDU is longer than its type allows"));
        }
        self.data_shape(common, end, plen, invalid).map(Some)
    }

    fn data_shape(
        &self,
        common: Common,
        header_end: usize,
        plen: u32,
        invalid: impl Fn(u32, &'static str) -> Fatal,
    ) -> Result<Shape, Fatal> {
        if (common.flags & flag::DATA_DIGEST != 0) != self.settings.data_digest {
            return Err(invalid(
                offset::FLAGS,
                "data digest flag differs from what was agreed",
            ));
        }
        let start = usize::from(common.pdo);
        if start < header_end
            || !start.is_multiple_of(usize::from(self.settings.alignment_bytes.max(4)))
        {
            return Err(invalid(offset::PDO, "data does not start where it may"));
        }
        let digest = if self.settings.data_digest {
            DIGEST_BYTES
        } else {
            0
        };
        let data = plen
            .checked_sub(length32(start + digest))
            .filter(|data| *data > 0);
        let Some(data) = data else {
            return Err(invalid(offset::PLEN, "PDU ends before its data"));
        };
        let limit = match common.kind {
            kind::CAPSULE_CMD => self.settings.max_in_capsule,
            _ => self.settings.max_data,
        };
        if data > limit {
            let refusal = invalid(offset::PLEN, "PDU carries more data than was agreed");
            return Err(match common.kind {
                kind::H2C_DATA => Fatal {
                    status: FatalStatus::LIMIT_EXCEEDED,
                    information: 0,
                    ..refusal
                },
                _ => refusal,
            });
        }
        Ok(Shape {
            common,
            head: start,
            data,
        })
    }

    /// Header length of a type, and whether data may follow.
    fn kind_rules(&self, kind: u8) -> Result<(usize, bool), Refusal> {
        let rules = match (self.role, kind) {
            (Role::Controller, kind::IC_REQ) | (Role::Host, kind::IC_RESP) => {
                return if self.settled {
                    Err(Refusal::Sequence("connection is initialised already"))
                } else {
                    Ok((size_of::<IcWire>(), false))
                };
            }
            (Role::Controller, kind::H2C_TERM_REQ) | (Role::Host, kind::C2H_TERM_REQ) => {
                return Ok((size_of::<TermWire>(), false));
            }
            (Role::Controller, kind::CAPSULE_CMD) => (size_of::<CommandWire>(), true),
            (Role::Host, kind::CAPSULE_RESP) => (size_of::<ResponseWire>(), false),
            (Role::Controller, kind::H2C_DATA) | (Role::Host, kind::C2H_DATA) => {
                (size_of::<TransferWire>(), true)
            }
            (Role::Host, kind::R2T) => (size_of::<TransferWire>(), false),
            _ => return Err(Refusal::Unknown),
        };
        if self.settled {
            Ok(rules)
        } else {
            Err(Refusal::Sequence("connection is not initialised yet"))
        }
    }

    /// Decodes a whole head and moves to the data behind it.
    fn head<'a>(&mut self, shape: &Shape, head: &[u8]) -> Result<Event<'a>, Fatal> {
        self.check_header_digest(shape, head)?;
        let pdu = decode(shape, head)?;
        self.state = if shape.data > 0 {
            State::Data {
                left: shape.data,
                crc: 0,
            }
        } else {
            State::Head
        };
        Ok(Event::Pdu(pdu))
    }

    fn check_header_digest(&self, shape: &Shape, head: &[u8]) -> Result<(), Fatal> {
        if shape.common.flags & flag::HEADER_DIGEST == 0 || !self.settings.header_digest {
            return Ok(());
        }
        let Some((header, rest)) = head.split_at_checked(usize::from(shape.common.hlen)) else {
            return Ok(());
        };
        let Some(&[a, b, c, d]) = rest.get(..DIGEST_BYTES) else {
            return Ok(());
        };
        let came = u32::from_le_bytes([a, b, c, d]);
        if came == crc32c::crc32c(header) {
            Ok(())
        } else {
            Err(Fatal::new(
                FatalStatus::HEADER_DIGEST,
                came,
                "header digest is wrong",
                header,
            ))
        }
    }
}

enum Refusal {
    Unknown,
    Sequence(&'static str),
}

/// Lengths of heads, all below 512.
fn length32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
