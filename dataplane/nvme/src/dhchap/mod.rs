//! In-band authentication by DH-HMAC-CHAP (Base Specification 2.0c, section 8.13): keys as text, and messages as bytes.
//!
//! Who sends what when, and the arithmetic, is the host's. Left out: what a target needs to authenticate hosts, and secure
//! channels.

pub mod message;
mod secret;

pub use secret::{Keys, Secret, SecretError};

/// A hash function that a transaction uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFunction {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl HashFunction {
    /// Every one, in the order in which a host offers them.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// The number that stands for it in messages and in the text of a secret.
    #[must_use]
    pub fn id(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha384 => 2,
            Self::Sha512 => 3,
        }
    }

    /// The function that a number stands for.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.id() == id)
    }

    /// Bytes of what it makes.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// A Diffie-Hellman group (RFC 7919).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// None: the challenge is used as it is.
    Null,
    /// ffdhe2048.
    Ffdhe2048,
    /// ffdhe3072.
    Ffdhe3072,
    /// ffdhe4096.
    Ffdhe4096,
    /// ffdhe6144.
    Ffdhe6144,
    /// ffdhe8192.
    Ffdhe8192,
}

impl Group {
    /// Every one, in the order in which a host offers them: none at all is the last choice.
    pub const ALL: [Self; 6] = [
        Self::Ffdhe2048,
        Self::Ffdhe3072,
        Self::Ffdhe4096,
        Self::Ffdhe6144,
        Self::Ffdhe8192,
        Self::Null,
    ];

    /// The number that stands for it in messages.
    #[must_use]
    pub fn id(self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Ffdhe2048 => 1,
            Self::Ffdhe3072 => 2,
            Self::Ffdhe4096 => 3,
            Self::Ffdhe6144 => 4,
            Self::Ffdhe8192 => 5,
        }
    }

    /// The group that a number stands for.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.id() == id)
    }

    /// Bits of its prime; 0: it has none.
    #[must_use]
    pub fn bits(self) -> u32 {
        match self {
            Self::Null => 0,
            Self::Ffdhe2048 => 2048,
            Self::Ffdhe3072 => 3072,
            Self::Ffdhe4096 => 4096,
            Self::Ffdhe6144 => 6144,
            Self::Ffdhe8192 => 8192,
        }
    }
}

/// What the result of Connect says of authentication (AUTHREQ).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Required {
    /// The queue has to be authenticated before it can be used (ATR).
    pub transaction: bool,
    /// And a secure channel has to be made by it (ASCR).
    pub secure_channel: bool,
}

impl Required {
    /// From the result of a Connect that succeeded.
    #[must_use]
    pub fn parse(result: u64) -> Self {
        const ATR: u64 = 1 << 17;
        const ASCR: u64 = 1 << 18;
        Self {
            transaction: result & ATR != 0,
            secure_channel: result & ASCR != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_for_what_the_specification_says() {
        let hashes: Vec<_> = (0..=255).filter_map(HashFunction::from_id).collect();
        assert_eq!(hashes, HashFunction::ALL);
        let groups: Vec<_> = (0..=255).filter_map(Group::from_id).collect();
        let bits: Vec<_> = groups.into_iter().map(Group::bits).collect();
        assert_eq!(bits, [0, 2048, 3072, 4096, 6144, 8192]);
    }

    #[test]
    fn connect_says_what_is_required() {
        for (result, wanted) in [
            (0xffff, (false, false)),
            (0x2_0001, (true, false)),
            (0x4_0001, (false, true)),
            (0x6_0001, (true, true)),
            (0xff01_ffff, (false, false)),
        ] {
            let Required {
                transaction,
                secure_channel,
            } = Required::parse(result);
            assert_eq!((transaction, secure_channel), wanted, "{result:#x}");
        }
    }
}
