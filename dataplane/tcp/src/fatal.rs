//! What ends a connection (TCP transport section 3.5).

use core::fmt;

/// Fatal error status of a termination request. Unknown values survive as numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FatalStatus(pub u16);

impl FatalStatus {
    /// A field of a PDU's head is wrong; the information is the field's offset.
    pub const INVALID_HEADER_FIELD: Self = Self(1);
    /// A PDU that must not come now.
    pub const SEQUENCE: Self = Self(2);
    /// The header digest is wrong; the information is the digest that came.
    pub const HEADER_DIGEST: Self = Self(3);
    /// Data outside of the range that was asked for.
    pub const DATA_OUT_OF_RANGE: Self = Self(4);
    /// To a host: more data than it may send. To a controller: more R2Ts than it may send.
    pub const LIMIT_EXCEEDED: Self = Self(5);
    /// A parameter that this end cannot do; the information is its offset.
    pub const UNSUPPORTED_PARAMETER: Self = Self(6);

    fn text(self) -> &'static str {
        match self {
            Self::INVALID_HEADER_FIELD => "invalid PDU header field",
            Self::SEQUENCE => "PDU sequence error",
            Self::HEADER_DIGEST => "header digest error",
            Self::DATA_OUT_OF_RANGE => "data transfer out of range",
            Self::LIMIT_EXCEEDED => "data or R2T limit exceeded",
            Self::UNSUPPORTED_PARAMETER => "unsupported parameter",
            _ => "unknown fatal error",
        }
    }
}

impl fmt::Display for FatalStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text(), self.0)
    }
}

impl fmt::Debug for FatalStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FatalStatus({self})")
    }
}

/// An error after which the connection must end, with the head of the PDU it is about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}, information {information}: {what}")]
pub struct Fatal {
    /// What is wrong.
    pub status: FatalStatus,
    /// Offset of the field in the PDU, the digest that came, or zero.
    pub information: u32,
    /// For logs.
    pub what: &'static str,
    /// The head of the wrong PDU, as far as it came; at most [`Self::HEAD_MAX`] bytes.
    pub head: Vec<u8>,
}

impl Fatal {
    /// Bytes of the wrong PDU that a termination request may repeat.
    pub const HEAD_MAX: usize = 128;
    /// The longest termination request.
    pub const TERM_MAX: usize = 24 + Self::HEAD_MAX;

    /// An error about a PDU; the head is cut to [`Self::HEAD_MAX`] bytes.
    #[must_use]
    pub fn new(status: FatalStatus, information: u32, what: &'static str, head: &[u8]) -> Self {
        let head = head.get(..Self::HEAD_MAX).unwrap_or(head).to_vec();
        Self {
            status,
            information,
            what,
            head,
        }
    }
}
