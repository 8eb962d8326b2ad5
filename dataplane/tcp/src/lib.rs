//! NVMe/TCP as bytes: the PDUs of the NVM Express TCP Transport Specification 1.0c, for both ends.
//!
//! * [`pdu`]: the typed PDUs.
//! * [`PduReader`]: bytes in, PDUs and pieces of their data out; nothing is copied but heads that arrive in parts.
//! * [`PduWriter`]: heads of PDUs out; the caller sends the data behind them itself, without a copy here.
//! * [`fatal`]: what ends a connection, and the termination request that says so.
//!
//! # Use
//! ```
//! use roadstead_tcp::{Event, Pdu, PduReader, PduWriter, Role, Settings, pdu::IcReq};
//!
//! // The host starts; the controller reads.
//! let request = Pdu::IcReq(IcReq { version: 0, alignment: 0, header_digest: false, data_digest: false, max_r2t: 1 });
//! let mut head = [0; PduWriter::HEAD_MAX];
//! let length = PduWriter::new(Settings::default()).head(&request, &mut head);
//! let mut reader = PduReader::new(Role::Controller);
//! let mut input = &head[..length];
//! assert_eq!(reader.next(&mut input), Ok(Some(Event::Pdu(request))));
//! // What both agreed on holds for everything after it.
//! reader.settle(Settings { max_in_capsule: 8192, max_data: 131_072, ..Settings::default() });
//! assert_eq!(reader.next(&mut input), Ok(None));
//! ```
//! After [`Event::Pdu`] for a PDU with data come [`Event::Data`] pieces, together exactly the length that the PDU
//! announced, then one [`Event::DataEnd`], which tells whether the data digest was right.
//!
//! Guaranteed: no input panics; memory is bounded (one head, 255 bytes); every field that the specification
//! fixes is checked and the error carries the offset of the field. Assumed: the caller checks what needs its
//! own state: that identifiers, offsets and lengths fit the command. Left out: TLS (it is below), KDReq.

mod decode;
pub mod fatal;
pub mod pdu;
mod reader;
mod writer;

pub use fatal::{Fatal, FatalStatus};
pub use pdu::Pdu;
pub use reader::{Event, PduReader};
pub use writer::PduWriter;

/// Which end of the connection reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The reader is a controller: it takes what hosts send.
    Controller,
    /// The reader is a host: it takes what controllers send.
    Host,
}

/// What the two ends agreed on in ICReq and ICResp, from one end's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Heads carry a CRC-32C.
    pub header_digest: bool,
    /// Data carries a CRC-32C.
    pub data_digest: bool,
    /// Data starts at a multiple of this many bytes in the PDU: for a reader what it asked its peer for (4 unless
    /// it asked), for a writer what the peer asked for: see [`pdu::alignment_bytes`].
    pub alignment_bytes: u8,
    /// Data bytes that a command capsule may carry; nothing by default.
    pub max_in_capsule: u32,
    /// Data bytes that one H2CData or C2HData may carry.
    pub max_data: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            header_digest: false,
            data_digest: false,
            alignment_bytes: 4,
            max_in_capsule: 0,
            max_data: u32::MAX,
        }
    }
}
