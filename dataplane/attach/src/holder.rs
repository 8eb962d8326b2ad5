//! Keeping FUSE connections while the daemon is away.
//!
//! The kernel gives up a FUSE file system, and with it the loop device above, when the last descriptor of its
//! connection is closed. A holder, a small process that does nothing else and is not restarted with the daemon,
//! keeps a second descriptor of each: requests then wait in the kernel, and the next daemon takes them up.
//! Requests that the dead daemon had read and not answered are asked for again (`FUSE_NOTIFY_RESEND`, Linux 6.9);
//! an older kernel cannot do that, so nothing is held there.
//!
//! Holder and daemon speak over a pair of `SOCK_SEQPACKET` sockets. To a new daemon the holder sends everything
//! that it holds, then [`Message::Ready`]; after that the daemon says what to hold and what to let go. A message that
//! was sent is taken in even if the daemon dies in the same moment.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Bytes of a message at most: the tag and an id.
const MESSAGE_BYTES_MAX: usize = 512;

/// First kernel that resends unanswered requests.
const RESEND_SINCE: (u32, u32) = (6, 9);

const HOLD: u8 = b'+';
const RELEASE: u8 = b'-';
const READY: u8 = b'.';

/// What holder and daemon say to each other.
#[derive(Debug)]
pub enum Message {
    /// Keep this connection, or: it was kept.
    Hold {
        /// The attachment.
        id: String,
        /// A descriptor of its FUSE connection.
        connection: OwnedFd,
    },
    /// Close the connection of this attachment.
    Release {
        /// The attachment.
        id: String,
    },
    /// That was everything.
    Ready,
}

/// Whether this kernel (`release` as `uname -r` prints it) can hand unanswered requests to another daemon.
pub fn kernel_resends(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    let major = numbers.next().unwrap_or(0);
    let minor = numbers.next().unwrap_or(0);
    (major, minor) >= RESEND_SINCE
}

/// Sends a message that carries no descriptor of its own, or lends one.
fn send(socket: BorrowedFd<'_>, tag: u8, id: &str, lent: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let lent: Vec<BorrowedFd<'_>> = lent.into_iter().collect();
    if !lent.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&lent)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    let parts = [
        IoSlice::new(std::slice::from_ref(&tag)),
        IoSlice::new(id.as_bytes()),
    ];
    rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Tells a new daemon what is held.
///
/// # Errors
/// When the other side is gone.
pub fn hand_over(socket: impl AsFd, held: &HashMap<String, OwnedFd>) -> io::Result<()> {
    for (id, connection) in held {
        send(socket.as_fd(), HOLD, id, Some(connection.as_fd()))?;
    }
    send(socket.as_fd(), READY, "", None)
}

/// The next message; none when the other side is gone.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] on a nonblocking socket, [`io::ErrorKind::InvalidData`] for a message that makes
/// no sense.
pub fn receive(socket: impl AsFd) -> io::Result<Option<Message>> {
    let mut bytes = [0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let connection = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let message = bytes.get(..received.bytes).unwrap_or_default();
    let Some((tag, id)) = message.split_first() else {
        return Ok(None);
    };
    let id = String::from_utf8_lossy(id).into_owned();
    match (*tag, connection) {
        (HOLD, Some(connection)) => Ok(Some(Message::Hold { id, connection })),
        (RELEASE, None) => Ok(Some(Message::Release { id })),
        (READY, None) => Ok(Some(Message::Ready)),
        (tag, _) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of {} bytes with tag {tag}", received.bytes),
        )),
    }
}

/// The daemon's side.
#[derive(Debug)]
pub struct Holder {
    socket: OwnedFd,
}

impl AsFd for Holder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Holder {
    /// Takes over what was held for the daemon before this one, by attachment.
    ///
    /// # Errors
    /// When the holder is gone or says what makes no sense.
    pub fn connect(socket: OwnedFd) -> io::Result<(Self, HashMap<String, OwnedFd>)> {
        let mut held = HashMap::new();
        loop {
            match receive(&socket)? {
                Some(Message::Hold { id, connection }) => held.insert(id, connection),
                Some(Message::Ready) => return Ok((Self { socket }, held)),
                Some(Message::Release { .. }) | None => {
                    return Err(io::Error::other("the holder ended its greeting early"));
                }
            };
        }
    }

    /// Has a connection kept. It is kept once this returns, also if the daemon dies now.
    ///
    /// # Errors
    /// When the holder is gone.
    pub fn hold(&self, id: &str, connection: impl AsFd) -> io::Result<()> {
        send(self.socket.as_fd(), HOLD, id, Some(connection.as_fd()))
    }

    /// Has a connection closed; one that is not kept is no error.
    ///
    /// # Errors
    /// When the holder is gone.
    pub fn release(&self, id: &str) -> io::Result<()> {
        send(self.socket.as_fd(), RELEASE, id, None)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap()
    }

    #[test]
    fn kernels() {
        for (release, expected) in [
            ("6.18.44-fc", true),
            ("6.9.0", true),
            ("7.0", true),
            ("6.8.12", false),
            ("6.1.0-13-amd64", false),
            ("5.15", false),
            ("", false),
        ] {
            assert_eq!(kernel_resends(release), expected, "{release}");
        }
    }

    #[test]
    fn what_was_held_comes_back_also_when_the_daemon_died_at_once() {
        let (holder, daemon) = pair();
        hand_over(&holder, &HashMap::new()).unwrap();
        let (client, held) = Holder::connect(daemon).unwrap();
        assert!(held.is_empty());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"kept").unwrap();
        client.hold("a", &file).unwrap();
        client.hold("b", &file).unwrap();
        client.release("b").unwrap();
        drop((client, file));

        let mut kept = HashMap::new();
        while let Some(message) = receive(&holder).unwrap() {
            match message {
                Message::Hold { id, connection } => drop(kept.insert(id, connection)),
                Message::Release { id } => drop(kept.remove(&id)),
                Message::Ready => panic!("a daemon is never ready"),
            }
        }
        let (holder, daemon) = pair();
        hand_over(&holder, &kept).unwrap();
        let (_, held) = Holder::connect(daemon).unwrap();
        assert_eq!(held.keys().collect::<Vec<_>>(), ["a"]);
        let mut file: std::fs::File = held.into_values().next().unwrap().into();
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "kept");
    }

    #[test]
    fn nonsense_is_an_error() {
        let (holder, daemon) = pair();
        rustix::net::send(&daemon, b"?", SendFlags::empty()).unwrap();
        assert_eq!(
            receive(&holder).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        rustix::net::send(&daemon, b"+no descriptor", SendFlags::empty()).unwrap();
        assert_eq!(
            receive(&holder).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        drop(holder);
        assert!(Holder::connect(daemon).is_err());
    }
}
