//! The messages of a transaction, and the commands that carry them (sections 6.1, 6.2 and 8.13.5).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Group, HashFunction};
use crate::opcode;
use crate::wire::{DataPointer, Sqe};

/// Bytes that are made room for when a message is asked for: more than the longest has.
pub const RECEIVE_BYTES: u32 = 4096;

/// Security protocol of both commands: NVMe in-band authentication.
const SECURITY_PROTOCOL: u8 = 0xe9;
/// Specific fields of that protocol.
const SPECIFIC: u8 = 1;

/// Type of messages that every authentication protocol has.
const COMMON: u8 = 0;
/// Type of the messages of DH-HMAC-CHAP.
const DHCHAP: u8 = 1;

/// Identifiers of messages.
mod id {
    pub(super) const NEGOTIATE: u8 = 0x00;
    pub(super) const CHALLENGE: u8 = 0x01;
    pub(super) const REPLY: u8 = 0x02;
    pub(super) const SUCCESS1: u8 = 0x03;
    pub(super) const SUCCESS2: u8 = 0x04;
    pub(super) const FAILURE2: u8 = 0xf0;
    pub(super) const FAILURE1: u8 = 0xf1;
}

/// Authentication Send of so many bytes, which go in the capsule.
#[must_use]
pub fn send(length: u32) -> Sqe {
    let pointer = DataPointer::InCapsule { offset: 0, length };
    command(opcode::fabrics::AUTH_SEND, length, pointer)
}

/// Authentication Receive of at most so many bytes.
#[must_use]
pub fn receive(length: u32) -> Sqe {
    let pointer = DataPointer::Transport { length };
    command(opcode::fabrics::AUTH_RECEIVE, length, pointer)
}

fn command(kind: u8, length: u32, pointer: DataPointer) -> Sqe {
    let mut sqe = Sqe::new(opcode::FABRICS, 0, u32::from(kind));
    sqe.dptr = pointer.encode();
    sqe.cdw10 = U32::from_bytes([0, SPECIFIC, SPECIFIC, SECURITY_PROTOCOL]);
    sqe.cdw11 = U32::new(length);
    sqe
}

/// How every message begins.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct Head {
    kind: u8,
    id: u8,
    reserved: U16,
    transaction: U16,
}

impl Head {
    fn new(kind: u8, id: u8, transaction: u16) -> Self {
        Self {
            kind,
            id,
            reserved: U16::ZERO,
            transaction: U16::new(transaction),
        }
    }
}

/// AUTH_Negotiate with one protocol, DH-HMAC-CHAP.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct NegotiateMessage {
    head: Head,
    secure_channel: u8,
    protocols: u8,
    protocol: u8,
    reserved: u8,
    hash_count: u8,
    group_count: u8,
    hashes: [u8; 30],
    groups: [u8; 30],
}

/// The start of DH-HMAC-CHAP_Challenge: challenge and DH value follow.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct ChallengeMessage {
    head: Head,
    hash_bytes: u8,
    reserved: u8,
    hash: u8,
    group: u8,
    value_bytes: U16,
    sequence: U32,
}

/// The start of DH-HMAC-CHAP_Reply: response, challenge and DH value follow.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct ReplyMessage {
    head: Head,
    hash_bytes: u8,
    reserved1: u8,
    challenge_valid: u8,
    reserved2: u8,
    value_bytes: U16,
    sequence: U32,
}

/// The start of DH-HMAC-CHAP_Success1: the response follows.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct Success1Message {
    head: Head,
    hash_bytes: u8,
    reserved1: u8,
    response_valid: u8,
    reserved2: [u8; 7],
}

/// DH-HMAC-CHAP_Success2.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct Success2Message {
    head: Head,
    reserved: [u8; 10],
}

/// AUTH_Failure1 and AUTH_Failure2.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct FailureMessage {
    head: Head,
    reason: u8,
    explanation: u8,
}

const _: () = assert!(size_of::<NegotiateMessage>() == 72);
const _: () = assert!(size_of::<ChallengeMessage>() == 16);
const _: () = assert!(size_of::<ReplyMessage>() == 16);
const _: () = assert!(size_of::<Success1Message>() == 16);
const _: () = assert!(size_of::<Success2Message>() == 16);
const _: () = assert!(size_of::<FailureMessage>() == 8);

/// Why a transaction failed: the explanation code of a failure. Unknown ones survive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Failure(pub u8);

impl Failure {
    /// The only reason code that there is, which every failure has.
    const REASON: u8 = 1;

    /// Authentication failed.
    pub const FAILED: Self = Self(1);
    /// Authentication protocol not usable.
    pub const PROTOCOL: Self = Self(2);
    /// Secure channel concatenation mismatch.
    pub const CONCATENATION: Self = Self(3);
    /// Hash function not usable.
    pub const HASH: Self = Self(4);
    /// DH group not usable.
    pub const GROUP: Self = Self(5);
    /// Incorrect payload.
    pub const PAYLOAD: Self = Self(6);
    /// Incorrect protocol message.
    pub const MESSAGE: Self = Self(7);
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match *self {
            Self::FAILED => "authentication failed",
            Self::PROTOCOL => "authentication protocol not usable",
            Self::CONCATENATION => "secure channel concatenation mismatch",
            Self::HASH => "hash function not usable",
            Self::GROUP => "DH group not usable",
            Self::PAYLOAD => "incorrect payload",
            Self::MESSAGE => "incorrect protocol message",
            Self(code) => return write!(f, "authentication failed for unknown reason {code:#04x}"),
        })
    }
}

impl core::fmt::Debug for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Failure({:#04x}: {self})", self.0)
    }
}

/// AUTH_Negotiate of a host that offers everything that there is, without a secure channel.
#[must_use]
pub fn negotiate(transaction: u16) -> Vec<u8> {
    let mut message = NegotiateMessage {
        head: Head::new(COMMON, id::NEGOTIATE, transaction),
        secure_channel: 0,
        protocols: 1,
        protocol: DHCHAP,
        reserved: 0,
        hash_count: 0,
        group_count: 0,
        hashes: [0; 30],
        groups: [0; 30],
    };
    for (place, hash) in message.hashes.iter_mut().zip(HashFunction::ALL) {
        *place = hash.id();
        message.hash_count += 1;
    }
    for (place, group) in message.groups.iter_mut().zip(Group::ALL) {
        *place = group.id();
        message.group_count += 1;
    }
    message.as_bytes().to_vec()
}

/// What DH-HMAC-CHAP_Reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The host's response.
    pub response: &'a [u8],
    /// The host's own challenge, as long as the response, with its sequence number, which is not 0. `None`: the
    /// controller need not prove anything.
    pub challenge: Option<(&'a [u8], u32)>,
    /// The host's DH value; empty without a group.
    pub value: &'a [u8],
}

impl Reply<'_> {
    /// The message.
    #[must_use]
    pub fn encode(&self, transaction: u16) -> Vec<u8> {
        let absent = vec![0; self.response.len()];
        let (challenge, sequence) = self.challenge.unwrap_or((&absent, 0));
        let message = ReplyMessage {
            head: Head::new(DHCHAP, id::REPLY, transaction),
            hash_bytes: u8::try_from(self.response.len()).unwrap_or(u8::MAX),
            reserved1: 0,
            challenge_valid: u8::from(self.challenge.is_some()),
            reserved2: 0,
            value_bytes: U16::new(u16::try_from(self.value.len()).unwrap_or(u16::MAX)),
            sequence: U32::new(sequence),
        };
        [message.as_bytes(), self.response, challenge, self.value].concat()
    }
}

/// DH-HMAC-CHAP_Success2: the controller has proved that it has its key.
#[must_use]
pub fn success2(transaction: u16) -> Vec<u8> {
    let message = Success2Message {
        head: Head::new(DHCHAP, id::SUCCESS2, transaction),
        reserved: [0; 10],
    };
    message.as_bytes().to_vec()
}

/// AUTH_Failure2: the host ends the transaction.
#[must_use]
pub fn failure2(transaction: u16, failure: Failure) -> Vec<u8> {
    let message = FailureMessage {
        head: Head::new(COMMON, id::FAILURE2, transaction),
        reason: Failure::REASON,
        explanation: failure.0,
    };
    message.as_bytes().to_vec()
}

/// What DH-HMAC-CHAP_Challenge says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// The hash function that the controller has chosen.
    pub hash: HashFunction,
    /// The group that it has chosen.
    pub group: Group,
    /// Sequence number.
    pub sequence: u32,
    /// The challenge, as long as what the hash function makes.
    pub challenge: &'a [u8],
    /// The controller's DH value; empty exactly if there is no group.
    pub value: &'a [u8],
}

/// A message of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// DH-HMAC-CHAP_Challenge.
    Challenge(Challenge<'a>),
    /// DH-HMAC-CHAP_Success1, with the controller's response if it has one.
    Success1(Option<&'a [u8]>),
    /// AUTH_Failure1.
    Failure1(Failure),
}

impl<'a> Received<'a> {
    /// Reads a message, and what transaction it is of. What is behind its end does not count.
    ///
    /// # Errors
    /// What the controller is to be told.
    pub fn parse(data: &'a [u8]) -> Result<(u16, Self), Failure> {
        let (head, _) = Head::ref_from_prefix(data).map_err(|_| Failure::PAYLOAD)?;
        let message = match (head.kind, head.id) {
            (DHCHAP, id::CHALLENGE) => Self::Challenge(challenge(data)?),
            (DHCHAP, id::SUCCESS1) => Self::Success1(success1(data)?),
            (COMMON, id::FAILURE1) => {
                let message = FailureMessage::ref_from_prefix(data);
                let (message, _) = message.map_err(|_| Failure::PAYLOAD)?;
                Self::Failure1(Failure(message.explanation))
            }
            _ => return Err(Failure::MESSAGE),
        };
        Ok((head.transaction.get(), message))
    }
}

fn challenge(data: &[u8]) -> Result<Challenge<'_>, Failure> {
    let message = ChallengeMessage::ref_from_prefix(data);
    let (message, rest) = message.map_err(|_| Failure::PAYLOAD)?;
    let hash = HashFunction::from_id(message.hash).ok_or(Failure::HASH)?;
    let group = Group::from_id(message.group).ok_or(Failure::GROUP)?;
    if usize::from(message.hash_bytes) != hash.bytes() {
        return Err(Failure::HASH);
    }
    let value_bytes = usize::from(message.value_bytes.get());
    if (value_bytes == 0) != (group == Group::Null) {
        return Err(Failure::PAYLOAD);
    }
    let split = rest.split_at_checked(hash.bytes());
    let (challenge, rest) = split.ok_or(Failure::PAYLOAD)?;
    Ok(Challenge {
        hash,
        group,
        sequence: message.sequence.get(),
        challenge,
        value: rest.get(..value_bytes).ok_or(Failure::PAYLOAD)?,
    })
}

fn success1(data: &[u8]) -> Result<Option<&[u8]>, Failure> {
    let message = Success1Message::ref_from_prefix(data);
    let (message, rest) = message.map_err(|_| Failure::PAYLOAD)?;
    if message.response_valid & 1 == 0 {
        return Ok(None);
    }
    let response = rest.get(..usize::from(message.hash_bytes));
    response.ok_or(Failure::PAYLOAD).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_carry_the_security_protocol() {
        let sqe = send(72);
        let bytes = sqe.as_bytes();
        assert_eq!((bytes[0], bytes[4]), (0x7f, 0x05));
        assert_eq!(bytes[40..48], [0, 1, 1, 0xe9, 72, 0, 0, 0]);
        let pointer = DataPointer::InCapsule {
            offset: 0,
            length: 72,
        };
        assert_eq!(DataPointer::parse(&sqe.dptr), Ok(pointer));
        let sqe = receive(RECEIVE_BYTES);
        assert_eq!(
            (sqe.as_bytes()[4], sqe.as_bytes()[44..48].to_vec()),
            (6, vec![0, 16, 0, 0])
        );
        let pointer = DataPointer::Transport { length: 4096 };
        assert_eq!(DataPointer::parse(&sqe.dptr), Ok(pointer));
    }

    #[test]
    fn the_hosts_messages_are_laid_out_as_on_the_wire() {
        let message = negotiate(0x1234);
        assert_eq!(message.len(), 72);
        assert_eq!(
            message[..14],
            [0, 0, 0, 0, 0x34, 0x12, 0, 1, 1, 0, 3, 6, 1, 2]
        );
        assert_eq!(message[14..42], [&[3][..], &[0; 27]].concat());
        assert_eq!(message[42..], [&[1, 2, 3, 4, 5][..], &[0; 25]].concat());
        let reply = Reply {
            response: &[7; 32],
            challenge: Some((&[8; 32], 0x0102_0304)),
            value: &[9; 256],
        };
        let message = reply.encode(0x1234);
        let head = [1, 2, 0, 0, 0x34, 0x12, 32, 0, 1, 0, 0, 1, 4, 3, 2, 1];
        assert_eq!(message[..16], head);
        assert_eq!(message[16..], [&[7; 32][..], &[8; 32], &[9; 256]].concat());
        let reply = Reply {
            challenge: None,
            value: &[],
            ..reply
        };
        let message = reply.encode(1);
        let head = [1, 2, 0, 0, 1, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(message, [&head[..], &[7; 32], &[0; 32]].concat());
        assert_eq!(success2(3), [&[1, 4, 0, 0, 3][..], &[0; 11]].concat());
        assert_eq!(failure2(3, Failure::HASH), [0, 0xf0, 0, 0, 3, 0, 1, 4]);
    }

    fn challenge_bytes(hash: u8, group: u8, hash_bytes: u8, value_bytes: u16) -> Vec<u8> {
        let [low, high] = value_bytes.to_le_bytes();
        let head = [
            1, 1, 0, 0, 9, 0, hash_bytes, 0, hash, group, low, high, 5, 0, 0, 0,
        ];
        let challenge = vec![1; usize::from(hash_bytes)];
        [&head[..], &challenge, &vec![2; usize::from(value_bytes)]].concat()
    }

    #[test]
    fn challenges_are_read() {
        let bytes = challenge_bytes(2, 1, 48, 256);
        let wanted = Challenge {
            hash: HashFunction::Sha384,
            group: Group::Ffdhe2048,
            sequence: 5,
            challenge: &[1; 48],
            value: &[2; 256],
        };
        assert_eq!(
            Received::parse(&bytes),
            Ok((9, Received::Challenge(wanted)))
        );
        // A controller may fill all of the room that it was given.
        let padded = [&bytes[..], &[0xff; 64]].concat();
        assert_eq!(Received::parse(&padded), Received::parse(&bytes));
        for length in 0..bytes.len() {
            let cut = Received::parse(&bytes[..length]);
            assert_eq!(cut, Err(Failure::PAYLOAD), "{length}");
        }
        for (bad, failure) in [
            (challenge_bytes(0, 0, 32, 0), Failure::HASH),
            (challenge_bytes(4, 0, 32, 0), Failure::HASH),
            (challenge_bytes(1, 0, 48, 0), Failure::HASH),
            (challenge_bytes(1, 6, 32, 0), Failure::GROUP),
            (challenge_bytes(1, 0, 32, 4), Failure::PAYLOAD),
            (challenge_bytes(1, 1, 32, 0), Failure::PAYLOAD),
        ] {
            assert_eq!(Received::parse(&bad), Err(failure));
        }
    }

    #[test]
    fn ends_are_read() {
        let mut bytes = [&[1, 3, 0, 0, 9, 0, 32, 0, 1][..], &[0; 7], &[5; 32]].concat();
        let wanted = (9, Received::Success1(Some(&[5; 32])));
        assert_eq!(Received::parse(&bytes), Ok(wanted));
        for length in 0..bytes.len() {
            assert_eq!(Received::parse(&bytes[..length]), Err(Failure::PAYLOAD));
        }
        bytes[8] = 0;
        let wanted = (9, Received::Success1(None));
        assert_eq!(Received::parse(&bytes[..16]), Ok(wanted));
        let failure = [0, 0xf1, 0, 0, 9, 0, 1, 1];
        let wanted = (9, Received::Failure1(Failure::FAILED));
        assert_eq!(Received::parse(&failure), Ok(wanted));
        assert_eq!(Received::parse(&failure[..7]), Err(Failure::PAYLOAD));
        // Those of a host, and unknown ones.
        for (kind, id) in [(0, 0), (1, 2), (1, 4), (0, 0xf0), (1, 0xf1), (0, 1), (2, 1)] {
            let message = [kind, id, 0, 0, 9, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(Received::parse(&message), Err(Failure::MESSAGE));
        }
    }

    #[test]
    fn failures_have_words() {
        assert_eq!(Failure::FAILED.to_string(), "authentication failed");
        let words: std::collections::BTreeSet<_> =
            (0..=255).map(|code| Failure(code).to_string()).collect();
        assert_eq!(words.len(), 256);
    }
}
