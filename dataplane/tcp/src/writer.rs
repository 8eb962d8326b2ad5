//! Heads of PDUs out.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use crate::pdu::{
    COMMON_BYTES, CommandWire, Common, DIGEST_DATA, DIGEST_HEADER, IcWire, Pdu, ResponseWire,
    TermReq, TermWire, TransferWire, flag, kind,
};
use crate::{Fatal, Role, Settings};

/// Writes PDUs for one end of a connection. The settings are the writer's: `alignment_bytes` is what the peer
/// asked for.
#[derive(Clone, Copy, Debug)]
pub struct PduWriter {
    settings: Settings,
}

/// Bytes of a digest.
pub(crate) const DIGEST_BYTES: usize = 4;

impl PduWriter {
    /// Bytes that are enough for every head.
    pub const HEAD_MAX: usize = 256;

    /// A writer; before the connection is settled the defaults do.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// The settings in use.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Bytes of the head of a data PDU (H2CData, C2HData): header, digest, padding.
    #[must_use]
    pub fn data_head_bytes(&self) -> usize {
        self.data_start(size_of::<TransferWire>())
    }

    /// Bytes of the data digest that follows data; zero when digests are off.
    #[must_use]
    pub fn data_digest_bytes(&self) -> usize {
        if self.settings.data_digest {
            DIGEST_BYTES
        } else {
            0
        }
    }

    /// The digest to send behind data, when digests are on.
    #[must_use]
    pub fn data_digest(&self, data: &[u8]) -> Option<[u8; DIGEST_BYTES]> {
        self.settings
            .data_digest
            .then(|| crc32c::crc32c(data).to_le_bytes())
    }

    /// Writes the head of a PDU: all of it but the data and the data's digest. Returns its length in bytes, at most
    /// [`Self::HEAD_MAX`]. `out` holds that much, or zero is returned and nothing useful written.
    /// A termination request without a repeated head is meant for tests; [`Self::term`] writes real ones.
    pub fn head(&self, pdu: &Pdu, out: &mut [u8]) -> usize {
        match pdu {
            Pdu::IcReq(ic) => {
                let wire = ic_wire(
                    kind::IC_REQ,
                    ic.version,
                    ic.alignment,
                    (ic.header_digest, ic.data_digest),
                    u32::try_from(ic.max_r2t.saturating_sub(1)).unwrap_or(u32::MAX),
                );
                copy(wire.as_bytes(), out)
            }
            Pdu::IcResp(ic) => {
                let digests = (ic.header_digest, ic.data_digest);
                let wire = ic_wire(
                    kind::IC_RESP,
                    ic.version,
                    ic.alignment,
                    digests,
                    ic.max_data,
                );
                copy(wire.as_bytes(), out)
            }
            Pdu::H2cTermReq(term) => copy(term_wire(kind::H2C_TERM_REQ, *term, 0).as_bytes(), out),
            Pdu::C2hTermReq(term) => copy(term_wire(kind::C2H_TERM_REQ, *term, 0).as_bytes(), out),
            Pdu::CapsuleCmd { sqe, data_length } => {
                let common =
                    self.common(kind::CAPSULE_CMD, 0, size_of::<CommandWire>(), *data_length);
                self.finish(CommandWire { common, sqe: *sqe }.as_bytes(), out)
            }
            Pdu::CapsuleResp(cqe) => {
                let common = self.common(kind::CAPSULE_RESP, 0, size_of::<ResponseWire>(), 0);
                self.finish(ResponseWire { common, cqe: *cqe }.as_bytes(), out)
            }
            Pdu::H2cData(data) => {
                let flags = if data.last { flag::LAST } else { 0 };
                let common = self.transfer(kind::H2C_DATA, flags, data.length);
                let (offset, length) = (data.offset, data.length);
                self.finish(
                    transfer(common, data.cid, data.tag, offset, length).as_bytes(),
                    out,
                )
            }
            Pdu::C2hData(data) => {
                let last = if data.last { flag::LAST } else { 0 };
                let success = if data.success { flag::SUCCESS } else { 0 };
                let common = self.transfer(kind::C2H_DATA, last | success, data.length);
                self.finish(
                    transfer(common, data.cid, 0, data.offset, data.length).as_bytes(),
                    out,
                )
            }
            Pdu::R2t(r2t) => {
                let common = self.transfer(kind::R2T, 0, 0);
                self.finish(
                    transfer(common, r2t.cid, r2t.tag, r2t.offset, r2t.length).as_bytes(),
                    out,
                )
            }
        }
    }

    /// The termination request for an error, sent by the end in this role.
    #[must_use]
    pub fn term(role: Role, fatal: &Fatal) -> Vec<u8> {
        let kind = match role {
            Role::Controller => kind::C2H_TERM_REQ,
            Role::Host => kind::H2C_TERM_REQ,
        };
        let term = TermReq {
            status: fatal.status,
            information: fatal.information,
        };
        let head = fatal.head.get(..Fatal::HEAD_MAX).unwrap_or(&fatal.head);
        let mut bytes = term_wire(kind, term, head.len()).as_bytes().to_vec();
        bytes.extend_from_slice(head);
        bytes
    }

    fn transfer(&self, kind: u8, flags: u8, data_length: u32) -> Common {
        self.common(kind, flags, size_of::<TransferWire>(), data_length)
    }

    fn common(&self, kind: u8, mut flags: u8, hlen: usize, data_length: u32) -> Common {
        let mut plen = hlen;
        let mut pdo = 0;
        if self.settings.header_digest {
            flags |= flag::HEADER_DIGEST;
            plen += DIGEST_BYTES;
        }
        if data_length > 0 {
            plen = self.data_start(hlen);
            pdo = plen;
            if self.settings.data_digest {
                flags |= flag::DATA_DIGEST;
                plen += DIGEST_BYTES;
            }
        }
        Common {
            kind,
            flags,
            hlen: narrow(hlen),
            pdo: narrow(pdo),
            plen: U32::new(u32::from(narrow(plen)).saturating_add(data_length)),
        }
    }

    /// Where data starts behind a header of this length.
    fn data_start(&self, hlen: usize) -> usize {
        let digest = if self.settings.header_digest {
            DIGEST_BYTES
        } else {
            0
        };
        (hlen + digest).next_multiple_of(usize::from(self.settings.alignment_bytes.clamp(4, 128)))
    }

    /// Header, its digest, and zeros up to the data.
    fn finish(&self, header: &[u8], out: &mut [u8]) -> usize {
        let mut end = copy(header, out);
        if self.settings.header_digest {
            let digest = crc32c::crc32c(header).to_le_bytes();
            end += out.get_mut(end..).map_or(0, |rest| copy(&digest, rest));
        }
        let pdo = usize::from(header.get(3).copied().unwrap_or(0));
        if pdo > end
            && let Some(padding) = out.get_mut(end..pdo)
        {
            padding.fill(0);
            end = pdo;
        }
        end
    }
}

/// Lengths of heads, all far below 256.
fn narrow(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

fn copy(bytes: &[u8], out: &mut [u8]) -> usize {
    match out.get_mut(..bytes.len()) {
        Some(room) => {
            room.copy_from_slice(bytes);
            bytes.len()
        }
        None => 0,
    }
}

fn ic_wire(kind: u8, version: u16, alignment: u8, digests: (bool, bool), limit: u32) -> IcWire {
    let header = if digests.0 { DIGEST_HEADER } else { 0 };
    let data = if digests.1 { DIGEST_DATA } else { 0 };
    IcWire {
        common: Common {
            kind,
            flags: 0,
            hlen: narrow(size_of::<IcWire>()),
            pdo: 0,
            plen: U32::new(128),
        },
        version: U16::new(version),
        alignment,
        digests: header | data,
        limit: U32::new(limit),
        reserved: [0; 112],
    }
}

fn term_wire(kind: u8, term: TermReq, head_length: usize) -> TermWire {
    let hlen = narrow(size_of::<TermWire>());
    TermWire {
        common: Common {
            kind,
            flags: 0,
            hlen,
            pdo: 0,
            plen: U32::new(u32::from(hlen) + u32::from(narrow(head_length))),
        },
        status: U16::new(term.status.0),
        information: U32::new(term.information),
        reserved: [0; 10],
    }
}

fn transfer(common: Common, cid: u16, tag: u16, offset: u32, length: u32) -> TransferWire {
    TransferWire {
        common,
        cid: U16::new(cid),
        tag: U16::new(tag),
        offset: U32::new(offset),
        length: U32::new(length),
        reserved: [0; 4],
    }
}

const _: () = assert!(COMMON_BYTES <= PduWriter::HEAD_MAX);
