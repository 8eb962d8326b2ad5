//! The random numbers of a transaction.

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// Bytes of the longest challenge.
pub(super) const CHALLENGE_BYTES: usize = 64;
/// Bytes of an exponent: more than twice the strength of the largest group (RFC 7919, appendix A), and no more, as time goes
/// with its length.
pub(super) const EXPONENT_BYTES: usize = 64;

/// Numbers that are used once.
pub(crate) struct Nonces {
    /// Names the transaction.
    pub(super) transaction: u16,
    /// Goes with the challenge; not 0.
    pub(super) sequence: u32,
    /// The challenge for the controller, of which as much is used as the hash function makes.
    pub(super) challenge: [u8; CHALLENGE_BYTES],
    /// The secret of the Diffie-Hellman exchange.
    pub(super) exponent: Zeroizing<[u8; EXPONENT_BYTES]>,
}

impl Nonces {
    /// `None`: the operating system has none.
    pub(crate) fn draw() -> Option<Self> {
        let random = SystemRandom::new();
        let mut numbers = [0; 6];
        random.fill(&mut numbers).ok()?;
        let [a, b, c, d, e, f] = numbers;
        let mut this = Self {
            transaction: u16::from_le_bytes([a, b]),
            sequence: u32::from_le_bytes([c, d, e, f]).max(1),
            challenge: [0; CHALLENGE_BYTES],
            exponent: Zeroizing::new([0; EXPONENT_BYTES]),
        };
        random.fill(&mut this.challenge).ok()?;
        random.fill(this.exponent.as_mut_slice()).ok()?;
        Some(this)
    }
}

/// They are not for logs.
impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nonces")
    }
}
