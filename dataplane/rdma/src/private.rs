//! The private data of connection requests and their answers (RDMA transport specification, section 3.4).

use std::fmt;

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The only format there is.
const FORMAT: u16 = 0;

/// What a host asks for, as bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RequestBytes {
    format: U16,
    qid: U16,
    receive_size: U16,
    send_size: U16,
    cntlid: U16,
    reserved: [u8; 22],
}

/// What a controller grants, as bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct AcceptBytes {
    format: U16,
    receive_size: U16,
    reserved: [u8; 28],
}

/// Why a controller refuses, as bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RejectBytes {
    format: U16,
    status: U16,
}

/// Bytes of a request's private data.
pub const REQUEST_BYTES: usize = size_of::<RequestBytes>();
/// Bytes of the private data of an answer that accepts.
pub const ACCEPT_BYTES: usize = size_of::<AcceptBytes>();
/// Bytes of the private data of an answer that refuses.
pub const REJECT_BYTES: usize = size_of::<RejectBytes>();

const _: () = assert!(REQUEST_BYTES == 32 && ACCEPT_BYTES == 32 && REJECT_BYTES == 4);

/// What a host asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The queue; 0: admin.
    pub qid: u16,
    /// Response capsules that it can take.
    pub receive_entries: u16,
    /// Command capsules that it may send before it has an answer.
    pub send_entries: u32,
    /// The controller of an I/O queue, from hosts that say so; 0 else.
    pub cntlid: u16,
}

impl Request {
    /// Reads private data, which may be longer: connection managers pad it.
    ///
    /// # Errors
    /// What to refuse the request with.
    pub fn parse(bytes: &[u8]) -> Result<Self, Reject> {
        let (request, _) =
            RequestBytes::ref_from_prefix(bytes).map_err(|_| Reject::InvalidLength)?;
        if request.format.get() != FORMAT {
            return Err(Reject::InvalidFormat);
        }
        if request.receive_size.get() == 0 {
            return Err(Reject::InvalidReceiveSize);
        }
        Ok(Self {
            qid: request.qid.get(),
            receive_entries: request.receive_size.get(),
            send_entries: u32::from(request.send_size.get()) + 1,
            cntlid: request.cntlid.get(),
        })
    }

    /// Writes private data. More than 65,536 entries cannot be said and are cut to it.
    #[must_use]
    pub fn encode(self) -> [u8; REQUEST_BYTES] {
        let zero_based = self.send_entries.saturating_sub(1);
        let bytes = RequestBytes {
            format: U16::new(FORMAT),
            qid: U16::new(self.qid),
            receive_size: U16::new(self.receive_entries),
            send_size: U16::new(u16::try_from(zero_based).unwrap_or(u16::MAX)),
            cntlid: U16::new(self.cntlid),
            reserved: [0; 22],
        };
        zerocopy::transmute!(bytes)
    }
}

/// What a controller grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// Command capsules that it can take.
    pub receive_entries: u16,
}

impl Accept {
    /// Reads private data, which may be longer. `None` when it is none of this format.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (accept, _) = AcceptBytes::ref_from_prefix(bytes).ok()?;
        (accept.format.get() == FORMAT).then_some(Self {
            receive_entries: accept.receive_size.get(),
        })
    }

    /// Writes private data.
    #[must_use]
    pub fn encode(self) -> [u8; ACCEPT_BYTES] {
        let bytes = AcceptBytes {
            format: U16::new(FORMAT),
            receive_size: U16::new(self.receive_entries),
            reserved: [0; 28],
        };
        zerocopy::transmute!(bytes)
    }
}

/// Why a controller refuses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// The private data is too short.
    InvalidLength,
    /// The private data has another format.
    InvalidFormat,
    /// There is no such queue.
    InvalidQueue,
    /// The host would send more than can be taken.
    InvalidSendSize,
    /// The host cannot take enough.
    InvalidReceiveSize,
    /// No room for another connection.
    NoResources,
    /// The host cannot serve enough reads of its memory at once.
    InvalidReadsInbound,
    /// The host wants more reads of the controller's memory at once than there can be.
    InvalidReadsOutbound,
    /// There is no such controller.
    InvalidController,
    /// A reason that the specification does not know.
    Other(u16),
}

impl Reject {
    const KNOWN: [(u16, Self, &'static str); 9] = [
        (
            1,
            Self::InvalidLength,
            "the private data has a wrong length",
        ),
        (
            2,
            Self::InvalidFormat,
            "the private data has an unknown format",
        ),
        (3, Self::InvalidQueue, "there is no such queue"),
        (
            4,
            Self::InvalidSendSize,
            "the host's send queue is too large",
        ),
        (
            5,
            Self::InvalidReceiveSize,
            "the host's receive queue is too small",
        ),
        (
            6,
            Self::NoResources,
            "there is no room for another connection",
        ),
        (
            7,
            Self::InvalidReadsInbound,
            "the number of inbound reads is wrong",
        ),
        (
            8,
            Self::InvalidReadsOutbound,
            "the number of outbound reads is wrong",
        ),
        (9, Self::InvalidController, "there is no such controller"),
    ];

    /// Its number.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Other(code) => code,
            known => {
                let mut all = Self::KNOWN.iter();
                all.find(|(_, reject, _)| *reject == known)
                    .map_or(0, |(code, ..)| *code)
            }
        }
    }

    /// Reads private data, which may be longer. `None` when it is none of this format: the network refused.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (reject, _) = RejectBytes::ref_from_prefix(bytes).ok()?;
        let code = reject.status.get();
        if reject.format.get() != FORMAT || code == 0 {
            return None;
        }
        let known = Self::KNOWN.iter().find(|(known, ..)| *known == code);
        Some(known.map_or(Self::Other(code), |(_, reject, _)| *reject))
    }

    /// Writes private data.
    #[must_use]
    pub fn encode(self) -> [u8; REJECT_BYTES] {
        let bytes = RejectBytes {
            format: U16::new(FORMAT),
            status: U16::new(self.code()),
        };
        zerocopy::transmute!(bytes)
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(code) => write!(f, "reason {code}"),
            known => {
                let mut all = Self::KNOWN.iter();
                f.write_str(
                    all.find(|(_, reject, _)| reject == known)
                        .map_or("", |known| known.2),
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_bytes() {
        let request = Request {
            qid: 3,
            receive_entries: 128,
            send_entries: 128,
            cntlid: 0x0102,
        };
        let bytes = request.encode();
        assert_eq!(bytes[..12], [0, 0, 3, 0, 128, 0, 127, 0, 2, 1, 0, 0]);
        assert_eq!(
            Accept {
                receive_entries: 32
            }
            .encode()[..5],
            [0, 0, 32, 0, 0]
        );
        assert_eq!(Reject::NoResources.encode(), [0, 0, 6, 0]);
    }

    #[test]
    fn bad_requests_are_refused_with_their_reason() {
        let good = Request {
            qid: 0,
            receive_entries: 32,
            send_entries: 32,
            cntlid: 0,
        };
        let mut padded = good.encode().to_vec();
        padded.resize(56, 0);
        assert_eq!(Request::parse(&padded), Ok(good));
        assert_eq!(
            Request::parse(&good.encode()[..31]),
            Err(Reject::InvalidLength)
        );
        assert_eq!(Request::parse(&[]), Err(Reject::InvalidLength));
        let mut other = good.encode();
        other[0] = 1;
        assert_eq!(Request::parse(&other), Err(Reject::InvalidFormat));
        let nothing = Request {
            receive_entries: 0,
            ..good
        };
        assert_eq!(
            Request::parse(&nothing.encode()),
            Err(Reject::InvalidReceiveSize)
        );
    }

    proptest! {
        #[test]
        fn all_survive(qid: u16, receive_entries in 1..=u16::MAX, send_entries in 1..=65_536_u32, cntlid: u16, code in 1..=u16::MAX) {
            let request = Request { qid, receive_entries, send_entries, cntlid };
            prop_assert_eq!(Request::parse(&request.encode()), Ok(request));
            let accept = Accept { receive_entries };
            prop_assert_eq!(Accept::parse(&accept.encode()), Some(accept));
            let reject = Reject::parse(&code.to_le_bytes().iter().fold(vec![0, 0], |mut all, byte| { all.push(*byte); all }));
            prop_assert_eq!(reject.map(Reject::code), Some(code));
            prop_assert_eq!(reject.and_then(|reject| Reject::parse(&reject.encode())), reject);
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (Request::parse(&bytes), Accept::parse(&bytes), Reject::parse(&bytes));
        }
    }
}
