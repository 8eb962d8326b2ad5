//! Generic netlink, as far as the kernel's nbd driver needs it (linux/netlink.h, genetlink.h, nbd-netlink.h).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// Longest message either way.
const MESSAGE_BYTES_MAX: usize = 8192;
const HEADER_BYTES: usize = 16;
const GENERIC_BYTES: usize = 4;
const ATTRIBUTE_BYTES: usize = 4;

const TYPE_ERROR: u16 = 2;
const TYPE_CONTROL: u16 = 16;
const FLAGS_REQUEST_ACK: u16 = 1 | 4;
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3FFF;

const CONTROL_GET_FAMILY: u8 = 3;
const CONTROL_FAMILY_ID: u16 = 1;
const CONTROL_FAMILY_NAME: u16 = 2;
const VERSION: u8 = 1;

/// Commands of nbd.
pub(super) mod command {
    pub(in super::super) const CONNECT: u8 = 1;
    pub(in super::super) const DISCONNECT: u8 = 2;
    pub(in super::super) const RECONFIGURE: u8 = 3;
}

/// Attributes of nbd.
pub(super) mod attribute {
    pub(in super::super) const INDEX: u16 = 1;
    pub(in super::super) const SIZE_BYTES: u16 = 2;
    pub(in super::super) const BLOCK_SIZE_BYTES: u16 = 3;
    pub(in super::super) const SERVER_FLAGS: u16 = 5;
    pub(in super::super) const SOCKETS: u16 = 7;
    pub(in super::super) const DEAD_CONN_TIMEOUT: u16 = 8;
    pub(in super::super) const BACKEND_IDENTIFIER: u16 = 10;
    pub(super) const SOCKET_ITEM: u16 = 1;
    pub(super) const SOCKET_FD: u16 = 1;
}

/// Attributes of a message, in order.
#[derive(Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    fn push(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(ATTRIBUTE_BYTES + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn u32(self, kind: u16, value: u32) -> Self {
        self.push(kind, &value.to_ne_bytes())
    }

    pub(super) fn u64(self, kind: u16, value: u64) -> Self {
        self.push(kind, &value.to_ne_bytes())
    }

    /// With its final zero.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.push(kind, &bytes)
    }

    /// The list of one socket.
    pub(super) fn socket(self, socket: BorrowedFd<'_>) -> Self {
        let fd = socket.as_raw_fd().unsigned_abs();
        let fd = Self::default().u32(attribute::SOCKET_FD, fd);
        let item = Self::default().push(attribute::SOCKET_ITEM | NESTED, &fd.0);
        self.push(attribute::SOCKETS | NESTED, &item.0)
    }
}

fn message(kind: u16, command: u8, attributes: &Attributes) -> Vec<u8> {
    let length = HEADER_BYTES + GENERIC_BYTES + attributes.0.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(FLAGS_REQUEST_ACK.to_ne_bytes());
    // Sequence number and port: one request at a time, to the kernel.
    bytes.extend([0_u8; 8]);
    bytes.extend([command, VERSION, 0, 0]);
    bytes.extend(&attributes.0);
    bytes
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// The first part of `bytes` that says its own length, of at least `least`, and the rest.
fn split(bytes: &[u8], length: usize, least: usize) -> Option<(&[u8], &[u8])> {
    if length < least || length > bytes.len() {
        return None;
    }
    let next = length.next_multiple_of(4).min(bytes.len());
    Some((bytes.get(..length)?, bytes.get(next..)?))
}

/// The value of an attribute.
fn find(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = u16_at(bytes, 0)?;
        let (attribute, rest) = split(bytes, length.into(), ATTRIBUTE_BYTES)?;
        if u16_at(attribute, 2)? & TYPE_MASK == wanted {
            return attribute.get(ATTRIBUTE_BYTES..);
        }
        bytes = rest;
    }
}

/// What a datagram of the kernel says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    /// Attributes of the answer, if there was one.
    attributes: Option<Vec<u8>>,
    /// The end: 0 or a negative errno.
    status: Option<i32>,
}

fn parse(mut bytes: &[u8], answer: &mut Answer) -> Option<()> {
    while !bytes.is_empty() {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let (message, rest) = split(bytes, length, HEADER_BYTES)?;
        if u16_at(message, 4)? == TYPE_ERROR {
            let status = message.get(HEADER_BYTES..HEADER_BYTES + 4)?;
            answer.status = Some(i32::from_ne_bytes(status.try_into().ok()?));
        } else {
            let attributes = message.get(HEADER_BYTES + GENERIC_BYTES..)?;
            answer.attributes = Some(attributes.to_vec());
        }
        bytes = rest;
    }
    Some(())
}

/// A connection to the kernel's nbd driver.
pub(super) struct Netlink {
    socket: OwnedFd,
    family: u16,
}

impl Netlink {
    pub(super) fn connect() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::GENERIC),
        )?;
        let mut netlink = Self {
            socket,
            family: TYPE_CONTROL,
        };
        let name = Attributes::default().text(CONTROL_FAMILY_NAME, "nbd");
        let answer = netlink.ask(CONTROL_GET_FAMILY, &name)?;
        let family = find(&answer, CONTROL_FAMILY_ID).and_then(|id| u16_at(id, 0));
        netlink.family = family.ok_or_else(nonsense)?;
        Ok(netlink)
    }

    /// Sends a command, waits for its end, and returns the attributes of the answer.
    pub(super) fn ask(&self, command: u8, attributes: &Attributes) -> io::Result<Vec<u8>> {
        let request = message(self.family, command, attributes);
        rustix::net::send(&self.socket, &request, SendFlags::empty())?;
        let mut answer = Answer::default();
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        loop {
            let length =
                match rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty()) {
                    Ok((length, _)) => length,
                    Err(Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                };
            let datagram = buffer.get(..length).unwrap_or_default();
            parse(datagram, &mut answer).ok_or_else(nonsense)?;
            match answer.status {
                None => {}
                Some(0) => return Ok(answer.attributes.unwrap_or_default()),
                Some(errno) => return Err(io::Error::from_raw_os_error(errno.saturating_neg())),
            }
        }
    }
}

/// The index that the kernel's answer to a CONNECT tells.
pub(super) fn index(answer: &[u8]) -> io::Result<u32> {
    let index = find(answer, attribute::INDEX).and_then(|value| u32_at(value, 0));
    index.ok_or_else(nonsense)
}

fn nonsense() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the kernel's answer makes no sense",
    )
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_message_on_the_wire() {
        let attributes = Attributes::default().u32(1, 7).text(10, "ab");
        let bytes = message(0x1F, 3, &attributes);
        let wanted: &[&[u8]] = &[
            &36_u32.to_ne_bytes(),
            &0x1F_u16.to_ne_bytes(),
            &5_u16.to_ne_bytes(),
            &[0; 8],
            &[3, 1, 0, 0],
            &8_u16.to_ne_bytes(),
            &1_u16.to_ne_bytes(),
            &7_u32.to_ne_bytes(),
            &7_u16.to_ne_bytes(),
            &10_u16.to_ne_bytes(),
            b"ab\0\0",
        ];
        assert_eq!(bytes, wanted.concat());
    }

    #[test]
    fn sockets_are_a_list_in_a_list() {
        let file = tempfile::tempfile().unwrap();
        let fd = file.as_raw_fd().unsigned_abs();
        let attributes = Attributes::default().u64(2, 1).socket(file.as_fd());
        let sockets = find(&attributes.0, attribute::SOCKETS).unwrap();
        let item = find(sockets, attribute::SOCKET_ITEM).unwrap();
        assert_eq!(find(item, attribute::SOCKET_FD).unwrap(), fd.to_ne_bytes());
        assert_eq!(find(&attributes.0, 3), None);
    }

    #[test]
    fn answers() {
        let with_index = message(0x1F, 1, &Attributes::default().u32(attribute::INDEX, 4));
        let mut end = message(TYPE_ERROR, 0, &Attributes::default());
        let mut answer = Answer::default();
        parse(&[with_index.clone(), end.clone()].concat(), &mut answer).unwrap();
        // The generic header of `message` stands where an end has its status.
        assert_eq!(answer.status, Some(i32::from_ne_bytes([0, VERSION, 0, 0])));
        assert_eq!(index(&answer.attributes.unwrap()).unwrap(), 4);
        end[HEADER_BYTES..].copy_from_slice(&(-16_i32).to_ne_bytes());
        let mut answer = Answer::default();
        parse(&end, &mut answer).unwrap();
        assert_eq!(answer.status, Some(-16));
        // Cut anywhere, an answer is an error and never a panic.
        for length in 1..with_index.len() {
            let mut answer = Answer::default();
            assert_eq!(parse(&with_index[..length], &mut answer), None, "{length}");
            assert!(index(&with_index[..length]).is_err());
        }
    }
}
