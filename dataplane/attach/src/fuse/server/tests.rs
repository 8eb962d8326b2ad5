use std::sync::Mutex;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;
use crate::volume::Done;

const BLOCK: u32 = 512;
const BLOCKS: usize = 64;

type Held = Box<dyn FnOnce() + Send>;

/// A volume in memory; `hold` keeps requests until they are let go.
#[derive(Default)]
struct Memory {
    bytes: Mutex<Vec<u8>>,
    log: Mutex<Vec<(Op, u64, u32)>>,
    held: Mutex<Option<Vec<Held>>>,
    error: Mutex<Option<IoError>>,
}

impl Volume for Arc<Memory> {
    fn block_bytes(&self) -> u32 {
        BLOCK
    }

    fn size_bytes(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn submit(&self, op: Op, lba: u64, blocks: u32, mut memory: Vec<u8>, done: Done) {
        self.log.lock().unwrap().push((op, lba, blocks));
        let start = usize::try_from(lba).unwrap() * BLOCK as usize;
        let range = start..start + (blocks * BLOCK) as usize;
        let mut bytes = self.bytes.lock().unwrap();
        match op {
            Op::Read => memory.copy_from_slice(&bytes[range]),
            Op::Write { .. } => bytes[range].copy_from_slice(&memory),
            Op::WriteZeroes { .. } => bytes[range].fill(0),
            Op::Flush => {}
        }
        let result = self.error.lock().unwrap().map_or(Ok(()), Err);
        match &mut *self.held.lock().unwrap() {
            Some(held) => held.push(Box::new(move || done(result, memory))),
            None => done(result, memory),
        }
    }
}

/// The kernel's side.
struct Kernel {
    socket: OwnedFd,
    memory: Arc<Memory>,
    thread: Option<std::thread::JoinHandle<()>>,
    unique: u64,
}

impl Kernel {
    fn new(read_only: bool) -> Self {
        let (socket, device) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Recv,
            Some(Duration::from_secs(10)),
        )
        .unwrap();
        let memory = Arc::new(Memory::default());
        *memory.bytes.lock().unwrap() = vec![7; BLOCKS * BLOCK as usize];
        let server = Server::new(device, Arc::clone(&memory), "file".into(), read_only);
        let thread = Some(std::thread::spawn(move || server.run()));
        Self {
            socket,
            memory,
            thread,
            unique: 0,
        }
    }

    fn send(&mut self, opcode: u32, body: &[u8]) -> u64 {
        self.unique += 1;
        let header = InHeader {
            len: 0,
            opcode,
            unique: self.unique,
            nodeid: NODE_FILE,
            uid: 0,
            gid: 0,
            pid: 0,
            extensions: 0,
        };
        let message = [header.as_bytes(), body].concat();
        rustix::io::write(&self.socket, &message).unwrap();
        self.unique
    }

    fn answer(&self) -> (u64, i32, Vec<u8>) {
        let mut buffer = vec![0; 1 << 17];
        let length = rustix::io::read(&self.socket, &mut buffer[..]).unwrap();
        let (header, body) = OutHeader::read_from_prefix(&buffer[..length]).unwrap();
        assert_eq!(header.len as usize, length);
        (header.unique, header.error, body.to_vec())
    }

    fn ask(&mut self, opcode: u32, body: &[u8]) -> Result<Vec<u8>, i32> {
        let unique = self.send(opcode, body);
        let (answered, error, body) = self.answer();
        assert_eq!(answered, unique);
        if error == 0 { Ok(body) } else { Err(-error) }
    }

    fn last(&self) -> (Op, u64, u32) {
        *self.memory.log.lock().unwrap().last().unwrap()
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn transfer(offset: u64, size: u32, data: &[u8]) -> Vec<u8> {
    let head = TransferIn {
        handle: 0,
        offset,
        size,
        transfer_flags: 0,
        lock_owner: 0,
        flags: 0,
        reserved: 0,
    };
    [head.as_bytes(), data].concat()
}

fn fallocate(offset: u64, length: u64, mode: u32) -> Vec<u8> {
    let head = FallocateIn {
        handle: 0,
        offset,
        length,
        mode,
        reserved: 0,
    };
    head.as_bytes().to_vec()
}

fn init_request(minor: u32) -> Vec<u8> {
    let head = InitIn {
        major: MAJOR,
        minor,
        max_readahead: 0,
        flags: u32::MAX,
    };
    head.as_bytes().to_vec()
}

#[test]
fn the_handshake_asks_for_what_is_needed() {
    let mut kernel = Kernel::new(false);
    let body = kernel.ask(op::INIT, &init_request(45)).unwrap();
    let answer = InitOut::read_from_bytes(&body).unwrap();
    assert_eq!((answer.major, answer.minor), (MAJOR, MINOR));
    assert_eq!((answer.max_write, answer.max_pages), (1 << 20, 256));
    assert!(answer.flags & init::ASYNC_DIO != 0);
    assert_eq!(
        kernel.ask(op::INIT, &init_request(30)),
        Err(libc::EPROTO),
        "an old kernel"
    );
}

#[test]
fn there_is_one_file_with_the_volumes_size() {
    let mut kernel = Kernel::new(false);
    assert_eq!(kernel.ask(op::LOOKUP, b"other\0"), Err(libc::ENOENT));
    let entry = kernel.ask(op::LOOKUP, b"file\0").unwrap();
    let entry = EntryOut::read_from_bytes(&entry).unwrap();
    assert_eq!((entry.node, entry.attr.size), (NODE_FILE, 64 * 512));
    kernel.memory.bytes.lock().unwrap().resize(128 * 512, 0);
    let attr = kernel.ask(op::GETATTR, &[0; 16]).unwrap();
    let attr = AttrOut::read_from_bytes(&attr).unwrap();
    assert_eq!((attr.attr.size, attr.valid_s), (128 * 512, 0));
    let opened = OpenOut::read_from_bytes(&kernel.ask(op::OPEN, &[0; 8]).unwrap()).unwrap();
    assert!(opened.flags & open::DIRECT_IO != 0);
}

#[test]
fn reads_and_writes_reach_the_volume() {
    let mut kernel = Kernel::new(false);
    let data = vec![9; 1024];
    let written = kernel.ask(op::WRITE, &transfer(512, 1024, &data)).unwrap();
    assert_eq!(WriteOut::read_from_bytes(&written).unwrap().size, 1024);
    assert_eq!(kernel.last(), (Op::Write { durable: false }, 1, 2));
    assert_eq!(kernel.ask(op::READ, &transfer(512, 1024, &[])), Ok(data));
    let end = 64 * 512;
    let tail = kernel.ask(op::READ, &transfer(end - 512, 4096, &[]));
    assert_eq!(tail.unwrap().len(), 512, "cut at the end");
    assert_eq!(kernel.ask(op::READ, &transfer(end, 512, &[])), Ok(vec![]));
    assert_eq!(kernel.ask(op::FSYNC, &[0; 16]), Ok(vec![]));
    assert_eq!(kernel.last(), (Op::Flush, 0, 0));
}

#[test]
fn holes_and_zeroes_become_write_zeroes() {
    let mut kernel = Kernel::new(false);
    let table = [
        (falloc::PUNCH_HOLE | falloc::KEEP_SIZE, true),
        (falloc::ZERO_RANGE | falloc::KEEP_SIZE, false),
        (falloc::ZERO_RANGE, false),
    ];
    for (mode, deallocate) in table {
        let answer = kernel.ask(op::FALLOCATE, &fallocate(1024, 2048, mode));
        assert_eq!(answer, Ok(vec![]));
        assert_eq!(kernel.last(), (Op::WriteZeroes { deallocate }, 2, 4));
    }
    let answer = kernel.ask(op::FALLOCATE, &fallocate(0, 512, falloc::KEEP_SIZE));
    assert_eq!(answer, Err(libc::EOPNOTSUPP));
}

#[test]
fn what_cannot_be_done_is_refused() {
    let mut kernel = Kernel::new(false);
    let table = [
        (op::WRITE, transfer(100, 512, &[0; 512]), libc::EINVAL),
        (op::WRITE, transfer(0, 100, &[0; 100]), libc::EINVAL),
        (op::WRITE, transfer(0, 1024, &[0; 512]), libc::EINVAL),
        (op::WRITE, transfer(64 * 512, 512, &[0; 512]), libc::ENOSPC),
        (op::WRITE, transfer(u64::MAX, 512, &[0; 512]), libc::EINVAL),
        (op::READ, transfer(1, 512, &[]), libc::EINVAL),
        (
            op::FALLOCATE,
            fallocate(0, 0, falloc::PUNCH_HOLE),
            libc::EINVAL,
        ),
        (op::READ, vec![1, 2, 3], libc::EINVAL),
        (999, vec![], libc::ENOSYS),
    ];
    for (opcode, body, errno) in table {
        assert_eq!(kernel.ask(opcode, &body), Err(errno), "{opcode}");
    }
    assert!(kernel.memory.log.lock().unwrap().is_empty());
    let mut kernel = Kernel::new(true);
    let write = transfer(0, 512, &[0; 512]);
    assert_eq!(kernel.ask(op::WRITE, &write), Err(libc::EROFS));
    assert!(kernel.ask(op::READ, &transfer(0, 512, &[])).is_ok());
}

#[test]
fn errors_keep_their_meaning() {
    use roadstead_initiator::Status;
    let mut kernel = Kernel::new(false);
    let table = [
        (IoError::PathLost, libc::EIO),
        (IoError::CacheLost, libc::EIO),
        (IoError::Unsupported, libc::EOPNOTSUPP),
        (
            IoError::Status(Status::CAPACITY_EXCEEDED.dnr()),
            libc::ENOSPC,
        ),
        (
            IoError::Status(Status::NAMESPACE_WRITE_PROTECTED),
            libc::EROFS,
        ),
        (IoError::Status(Status::WRITE_FAULT), libc::EIO),
    ];
    for (error, errno) in table {
        *kernel.memory.error.lock().unwrap() = Some(error);
        assert_eq!(kernel.ask(op::READ, &transfer(0, 512, &[])), Err(errno));
    }
}

#[test]
fn many_requests_are_in_flight_and_answered_in_any_order() {
    let mut kernel = Kernel::new(false);
    *kernel.memory.held.lock().unwrap() = Some(Vec::new());
    let sent: Vec<_> = (0..10)
        .map(|n| kernel.send(op::READ, &transfer(n * 512, 512, &[])))
        .collect();
    let wait = || kernel.memory.held.lock().unwrap().as_ref().unwrap().len() < 10;
    while wait() {
        std::thread::yield_now();
    }
    let held = kernel.memory.held.lock().unwrap().take().unwrap();
    held.into_iter().rev().for_each(|done| done());
    let mut answered: Vec<_> = (0..10).map(|_| kernel.answer().0).collect();
    assert_eq!(answered.first(), sent.last());
    answered.reverse();
    assert_eq!(answered, sent);
}
