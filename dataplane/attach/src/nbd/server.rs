//! The server of a device: one thread takes requests from the kernel's socket and hands them to the volume, another
//! writes the replies, so that whoever has one never waits for the kernel.

use std::io::{self, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};

use rustix::io::Errno;
use tracing::warn;
use zerocopy::{FromZeros, IntoBytes};

use super::wire::{Asked, Reply, Request};
use crate::remote::{errno, set_io_flusher};
use crate::volume::Volume;

/// Most data of one request: the kernel's own bound. The kernel has 128 requests in flight at most.
const REQUEST_BYTES_MAX: u32 = 32 << 20;

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The device is being removed.
    Disconnected,
    /// The kernel has let go of the socket, or never took it.
    Lost,
}

type Message = (Reply, Vec<u8>);

/// Serves one connection. When this returns, nothing of it is in flight any more: an old copy of a write must not come
/// after what the kernel sends over the next connection.
pub(super) fn serve<V: Volume>(socket: &UnixStream, volume: &V) -> io::Result<End> {
    let (replies, waiting) = channel::<Message>();
    let answers = socket.try_clone()?;
    let writer = std::thread::Builder::new()
        .name("nbd-reply".into())
        .spawn(move || {
            set_io_flusher();
            write_replies(answers, &waiting);
        })?;
    let mut reader = socket;
    let end = loop {
        let mut request = Request::new_zeroed();
        if reader.read_exact(request.as_mut_bytes()).is_err() {
            break End::Lost;
        }
        let fits = |bytes: u32| bytes <= REQUEST_BYTES_MAX;
        if !request.is_valid() || !fits(request.data_in_bytes()) || !fits(request.data_out_bytes())
        {
            warn!(?request, "not an NBD request: the connection is ended");
            break End::Lost;
        }
        let bytes = request.data_in_bytes().max(request.data_out_bytes());
        let mut data = vec![0; usize::try_from(bytes).unwrap_or_default()];
        if request.data_in_bytes() > 0 && reader.read_exact(&mut data).is_err() {
            break End::Lost;
        }
        let (cookie, has_data) = (request.cookie, request.data_out_bytes() > 0);
        match request.asked(volume.block_bytes()) {
            Asked::Disconnect => break End::Disconnected,
            Asked::Refused(errno) => {
                // Nobody reads it if the writer has ended.
                let _ = replies.send((Reply::new(cookie, Err(errno)), Vec::new()));
            }
            Asked::Io { op, lba, blocks } => {
                let replies = replies.clone();
                let done = move |result: Result<(), _>, mut data: Vec<u8>| {
                    let result: Result<(), Errno> = result.map_err(errno);
                    if result.is_err() || !has_data {
                        data.clear();
                    }
                    let _ = replies.send((Reply::new(cookie, result), data));
                };
                volume.submit(op, lba, blocks, data, Box::new(done));
            }
        }
    };
    drop(replies);
    // The other side is gone or wants no more: the writer must not wait for it.
    let _ = socket.shutdown(std::net::Shutdown::Both);
    if writer.join().is_err() {
        warn!("the thread that writes NBD replies has failed");
    }
    Ok(end)
}

/// Writes replies until every request has been answered and no more can come.
fn write_replies(mut socket: UnixStream, waiting: &Receiver<Message>) {
    let mut is_open = true;
    for (reply, data) in waiting {
        if is_open {
            is_open = write_all(&mut socket, reply.as_bytes(), &data).is_ok();
        }
    }
}

fn write_all(socket: &mut UnixStream, head: &[u8], data: &[u8]) -> io::Result<()> {
    let mut written = 0;
    while written < head.len() {
        let parts = [
            IoSlice::new(head.get(written..).unwrap_or_default()),
            IoSlice::new(data),
        ];
        match socket.write_vectored(&parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => written += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    socket.write_all(data.get(written - head.len()..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use roadstead_initiator::{IoError, Op};

    use super::super::wire::tests::request;
    use super::*;
    use crate::volume::Done;

    const BLOCK: usize = 512;

    /// A volume in memory; a request for its last block waits for the next one.
    struct Memory {
        bytes: Mutex<Vec<u8>>,
        held: Mutex<Vec<(Vec<u8>, Done)>>,
    }

    impl Memory {
        fn new(blocks: usize) -> Self {
            Self {
                bytes: Mutex::new(vec![0; blocks * BLOCK]),
                held: Mutex::new(Vec::new()),
            }
        }
    }

    impl Volume for Memory {
        fn block_bytes(&self) -> u32 {
            512
        }

        fn size_bytes(&self) -> u64 {
            self.bytes.lock().unwrap().len() as u64
        }

        fn submit(&self, op: Op, lba: u64, blocks: u32, mut bytes: Vec<u8>, done: Done) {
            let mut memory = self.bytes.lock().unwrap();
            let start = usize::try_from(lba).unwrap() * BLOCK;
            let end = start + usize::try_from(blocks).unwrap() * BLOCK;
            if end > memory.len() {
                return done(Err(IoError::Unsupported), bytes);
            }
            match op {
                Op::Read => bytes.copy_from_slice(&memory[start..end]),
                Op::Write { .. } => memory[start..end].copy_from_slice(&bytes),
                Op::WriteZeroes { .. } => memory[start..end].fill(0),
                Op::Flush => {}
            }
            let mut held = self.held.lock().unwrap();
            if end == memory.len() && op != Op::Flush {
                return held.push((bytes, done));
            }
            done(Ok(()), bytes);
            for (bytes, done) in held.drain(..) {
                done(Ok(()), bytes);
            }
        }
    }

    fn reply(kernel: &mut UnixStream, data_bytes: usize) -> (Reply, Vec<u8>) {
        let mut head = Reply::new([0; 8], Ok(()));
        kernel.read_exact(head.as_mut_bytes()).unwrap();
        let mut data = vec![0; data_bytes];
        kernel.read_exact(&mut data).unwrap();
        (head, data)
    }

    #[test]
    fn requests_are_answered_in_any_order_and_by_their_cookie() {
        let (mut kernel, ours) = UnixStream::pair().unwrap();
        let volume = Memory::new(8);
        std::thread::scope(|scope| {
            let served = scope.spawn(|| serve(&ours, &volume).unwrap());
            let mut say = |head: Request, data: &[u8]| {
                kernel.write_all(head.as_bytes()).unwrap();
                kernel.write_all(data).unwrap();
            };
            say(request(1, 0, 1, 7 * 512, 512), &[9; BLOCK]);
            say(request(1, 1, 2, 0, 1024), &[7; 2 * BLOCK]);
            say(request(0, 0, 3, 512, 512), &[]);
            say(request(6, 0, 4, 512, 512), &[]);
            say(request(0, 0, 5, 0, 1024), &[]);
            say(request(3, 0, 6, 0, 0), &[]);
            say(request(0, 0, 7, 512 * 8, 512), &[]);
            say(request(0, 0, 8, 1, 512), &[]);
            let ok = |cookie: u64| Reply::new(cookie.to_be_bytes(), Ok(()));
            assert_eq!(reply(&mut kernel, 0).0, ok(2));
            assert_eq!(reply(&mut kernel, 0).0, ok(1), "the one that waited");
            assert_eq!(reply(&mut kernel, 512), (ok(3), vec![7; 512]));
            assert_eq!(reply(&mut kernel, 0).0, ok(4));
            let wanted = [[7; BLOCK], [0; BLOCK]].concat();
            assert_eq!(reply(&mut kernel, 1024), (ok(5), wanted));
            assert_eq!(reply(&mut kernel, 0).0, ok(6));
            let unsupported = Reply::new(7_u64.to_be_bytes(), Err(Errno::OPNOTSUPP));
            assert_eq!(reply(&mut kernel, 0).0, unsupported);
            let invalid = Reply::new(8_u64.to_be_bytes(), Err(Errno::INVAL));
            assert_eq!(reply(&mut kernel, 0).0, invalid);
            kernel.write_all(request(2, 0, 9, 0, 0).as_bytes()).unwrap();
            assert_eq!(served.join().unwrap(), End::Disconnected);
        });
        assert_eq!(volume.bytes.lock().unwrap()[7 * BLOCK..], [9; BLOCK]);
    }

    #[test]
    fn a_lost_connection_ends_after_what_it_has_started() {
        let (mut kernel, ours) = UnixStream::pair().unwrap();
        let volume = Memory::new(2);
        std::thread::scope(|scope| {
            let served = scope.spawn(|| serve(&ours, &volume).unwrap());
            let head = request(1, 0, 1, 512, 512);
            kernel.write_all(head.as_bytes()).unwrap();
            kernel.write_all(&[1; BLOCK]).unwrap();
            while volume.held.lock().unwrap().is_empty() {
                std::thread::yield_now();
            }
            drop(kernel);
            // The socket is at its end; the request is not.
            rustix::net::shutdown(&ours, rustix::net::Shutdown::Both).unwrap();
            assert!(!served.is_finished());
            let (bytes, done) = volume.held.lock().unwrap().pop().unwrap();
            done(Ok(()), bytes);
            assert_eq!(served.join().unwrap(), End::Lost);
        });
    }

    #[test]
    fn nonsense_ends_the_connection() {
        for bytes in [
            [0_u8; 28],
            request(0, 0, 1, 0, u32::MAX - 511)
                .as_bytes()
                .try_into()
                .unwrap(),
        ] {
            let (mut kernel, ours) = UnixStream::pair().unwrap();
            kernel.write_all(&bytes).unwrap();
            assert_eq!(serve(&ours, &Memory::new(1)).unwrap(), End::Lost);
        }
    }
}
