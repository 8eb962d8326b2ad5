//! What TCP has sent on a connection, and how much of it again.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::io::Io;
use crate::socket::SocketId;

/// Segments or packets that a transport sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    /// All.
    pub sent: u64,
    /// Of these, sent again because they, or the answer to them, were lost.
    pub sent_again: u64,
}

/// `struct tcp_info` of linux/tcp.h as far as `tcpi_segs_in`, in words of 32 bits.
const INFO_WORDS: usize = 36;
/// `tcpi_total_retrans` in it.
const TOTAL_RETRANS: usize = 25;
/// `tcpi_segs_out` in it.
const SEGS_OUT: usize = 34;

impl Io {
    /// What TCP has sent on a connection so far. A system call: for reports, not for every turn.
    pub fn segments(&self, socket: SocketId) -> Option<Segments> {
        segments(self.sockets.get(socket.0)?.fd.as_fd())
    }
}

fn segments(socket: BorrowedFd<'_>) -> Option<Segments> {
    let mut info = [0_u32; INFO_WORDS];
    let bytes = size_of_val(&info);
    let mut length = libc::socklen_t::try_from(bytes).ok()?;
    // SAFETY: `socket` is open; the kernel writes at most `length` bytes to `info` and how
    // many these were to `length`, both of which outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let is_whole = result == 0 && usize::try_from(length) == Ok(bytes);
    is_whole.then_some(Segments {
        sent: u64::from(*info.get(SEGS_OUT)?),
        sent_again: u64::from(*info.get(TOTAL_RETRANS)?),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn every_round_trip_counts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut far = listener.accept().unwrap().0;
        let before = segments(near.as_fd()).unwrap();
        assert!((2..10).contains(&before.sent), "{before:?}");
        for _ in 0..100 {
            near.write_all(&[1]).unwrap();
            far.read_exact(&mut [0]).unwrap();
            far.write_all(&[1]).unwrap();
            near.read_exact(&mut [0]).unwrap();
        }
        let after = segments(near.as_fd()).unwrap();
        let sent = after.sent - before.sent;
        assert!((100..=400).contains(&sent), "{after:?}");
        assert!(after.sent_again < 10, "{after:?}");
        let file = tempfile::tempfile().unwrap();
        assert_eq!(segments(file.as_fd()), None);
    }
}
