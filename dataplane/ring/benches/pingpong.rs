//! What this machine's loopback can carry at most, and how near to it the reactor comes.
//!
//! `cargo bench -p roadstead-ring [-- --seconds N --rounds N]`
//!
//! A client thread keeps DEPTH requests outstanding on one connection; the server answers each. No protocol, no
//! drive: only the bytes that a command and its answer would have on the wire. The server is once a hand-written
//! loop that polls a nonblocking socket, once the reactor; the client is the hand-written loop both times. Rounds
//! alternate, and the medians of the same run are compared. Server on core 0, client on core 1.
//!
//! Rows "from DRAM": the hand-written server takes each answer from another place of a memory that is larger than the
//! processor's caches, as a drive does; in the other rows it sends the same bytes again and again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use roadstead_ring::{Event, Handler, Io, Reactor, ReactorConfig, mailbox, pin_current_thread};

/// Name, bytes of a request, bytes of its answer, requests outstanding.
const ROWS: [(&str, usize, usize, usize); 7] = [
    ("4K read q1", 72, 4120, 1),
    ("4K read q32", 72, 4120, 32),
    ("4K read q128", 72, 4120, 128),
    ("4K write q32", 4168, 24, 32),
    ("4K write q128", 4168, 24, 128),
    ("128K read q32", 72, 131_096, 32),
    ("128K write q32", 131_144, 24, 32),
];
const CHUNK: usize = 1 << 20;
/// Rows that are run from DRAM too.
const FROM_DRAM: [&str; 3] = ["4K read q1", "4K read q32", "4K read q128"];
const DRAM_BYTES: usize = 512 << 20;
const BLOCK: usize = 4096;
const HEAD: usize = 24;
/// Blocks from one answer to the next: far enough for no prefetch, and coprime to their number, so that all are used.
const PLACE_STEP: usize = 50_021;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str, default: u64| -> u64 {
        let at = arguments.iter().position(|a| a == name);
        at.and_then(|i| arguments.get(i + 1))
            .map_or(default, |v| v.parse().expect("a number"))
    };
    let time = Duration::from_secs(value("--seconds", 1));
    let rounds = value("--rounds", 3);
    println!(
        "{:16} {:>12} {:>12} {:>8}  (per second, medians of {rounds})",
        "row", "raw", "reactor", "ratio"
    );
    for (name, request, answer, depth) in ROWS {
        let (mut raw, mut ring) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            raw.push(round(raw_server, request, answer, depth, time));
            ring.push(round(ring_server, request, answer, depth, time));
        }
        let (raw, ring) = (median(raw), median(ring));
        println!(
            "{name:16} {raw:12.0} {ring:12.0} {:7.1}%",
            ring / raw * 100.0
        );
    }
    let memory = dram();
    for (name, request, answer, depth) in ROWS {
        if FROM_DRAM.contains(&name) {
            let server = move |listener, request, _, stop: Arc<AtomicBool>| {
                dram_server(memory, listener, request, &stop)
            };
            let raw = (0..rounds).map(|_| round(server, request, answer, depth, time));
            println!("{name} from DRAM  {:12.0}", median(raw.collect()));
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Memory in large pages, as a memory drive has it, with every page there.
fn dram() -> &'static [u8] {
    let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new mapping of that size, advised and filled before the only reference to it is made; never unmapped.
    unsafe {
        let base = mmap_anonymous(std::ptr::null_mut(), DRAM_BYTES, prot, flags).unwrap();
        let _ = madvise(base, DRAM_BYTES, Advice::LinuxHugepage);
        base.cast::<u8>().write_bytes(3, DRAM_BYTES);
        std::slice::from_raw_parts(base.cast(), DRAM_BYTES)
    }
}

fn round<S>(server: S, request: usize, answer: usize, depth: usize, time: Duration) -> f64
where
    S: FnOnce(TcpListener, usize, usize, Arc<AtomicBool>) + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let server_stop = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        let _ = pin_current_thread(0);
        server(listener, request, answer, server_stop);
    });
    let client = std::thread::spawn(move || client(address, request, answer, depth, time));
    let rate = client.join().unwrap();
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    rate
}

fn tuned(stream: &TcpStream) {
    stream.set_nodelay(true).unwrap();
    stream.set_nonblocking(true).unwrap();
    let _ = rustix::net::sockopt::set_tcp_congestion(stream, "cubic");
}

fn client(address: SocketAddr, request: usize, answer: usize, depth: usize, time: Duration) -> f64 {
    let _ = pin_current_thread(1);
    let mut stream = TcpStream::connect(address).unwrap();
    tuned(&stream);
    let requests = vec![1u8; CHUNK];
    let mut answers = vec![0u8; CHUNK];
    let (mut to_send, mut partial, mut done) = (depth * request, 0, 0u32);
    let start = Instant::now();
    while start.elapsed() < time {
        if to_send > 0 {
            match stream.write(&requests[..to_send.min(CHUNK)]) {
                Ok(count) => to_send -= count,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        match stream.read(&mut answers) {
            Ok(count) => {
                partial += count;
                let complete = partial / answer;
                partial %= answer;
                done += u32::try_from(complete).unwrap();
                to_send += complete * request;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    f64::from(done) / start.elapsed().as_secs_f64()
}

fn raw_server(listener: TcpListener, request: usize, answer: usize, stop: Arc<AtomicBool>) {
    let (mut stream, _) = listener.accept().unwrap();
    tuned(&stream);
    let answers = vec![2u8; CHUNK];
    let mut requests = vec![0u8; CHUNK];
    let (mut owed, mut partial) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut requests) {
            Ok(0) => return,
            Ok(count) => {
                partial += count;
                owed += partial / request * answer;
                partial %= request;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        if owed > 0 {
            match stream.write(&answers[..owed.min(CHUNK)]) {
                Ok(count) => owed -= count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

/// As `raw_server`, with the block of each answer from another place.
fn dram_server(memory: &[u8], listener: TcpListener, request: usize, stop: &AtomicBool) {
    let (mut stream, _) = listener.accept().unwrap();
    tuned(&stream);
    let (head, mut requests) = ([2; HEAD], vec![0u8; CHUNK]);
    let (mut partial, mut sent) = (0, 0);
    let mut owed: VecDeque<&[u8]> = VecDeque::new();
    let mut places = (0..memory.len() / BLOCK).cycle().step_by(PLACE_STEP);
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut requests) {
            Ok(0) => return,
            Ok(count) => {
                partial += count;
                for _ in 0..partial / request {
                    let start = places.next().unwrap() * BLOCK;
                    owed.extend([&head[..], &memory[start..start + BLOCK]]);
                }
                partial %= request;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        if owed.is_empty() {
            continue;
        }
        let mut pieces: Vec<IoSlice<'_>> = owed.iter().map(|bytes| IoSlice::new(bytes)).collect();
        pieces[0].advance(sent);
        match stream.write_vectored(&pieces) {
            Ok(count) => {
                sent += count;
                while owed.front().is_some_and(|bytes| sent >= bytes.len()) {
                    sent -= owed.pop_front().unwrap().len();
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

struct Answers {
    request: usize,
    partial: usize,
    answer: Vec<u8>,
    open: bool,
}

impl Handler for Answers {
    type Message = TcpStream;

    fn event(&mut self, io: &mut Io, event: Event<'_>) {
        match event {
            Event::Received { socket, data, .. } => {
                self.partial += data.len();
                if let Some(output) = io.output(socket) {
                    for _ in 0..self.partial / self.request {
                        output.put(&self.answer);
                    }
                }
                self.partial %= self.request;
            }
            Event::Closed { .. } => io.stop(),
            _ => {}
        }
    }

    fn message(&mut self, io: &mut Io, stream: TcpStream) {
        assert!(!std::mem::replace(&mut self.open, true));
        io.adopt(stream.into(), 0).unwrap();
    }
}

fn ring_server(listener: TcpListener, request: usize, answer: usize, _stop: Arc<AtomicBool>) {
    let (mail, inbox) = mailbox().unwrap();
    let (tell, told) = channel();
    let accept = std::thread::spawn(move || {
        tell.send(()).unwrap();
        assert!(mail.send(listener.accept().unwrap().0).is_ok());
    });
    told.recv().unwrap();
    let mut reactor = Reactor::new(&ReactorConfig::default(), inbox).unwrap();
    reactor
        .run(&mut Answers {
            request,
            partial: 0,
            answer: vec![2; answer],
            open: false,
        })
        .unwrap();
    accept.join().unwrap();
}
