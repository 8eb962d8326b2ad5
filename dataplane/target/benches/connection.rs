//! What a command costs in the target alone: `cargo bench -p roadstead-target`. Batches of 32 commands of 4 KiB on one
//! connection, without sockets or drives. The memory drive copies between its memory and the connection; the other one hands
//! buffers over without looking at them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement that cannot go on fails"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Instant;

use common::{Host, Options, VOLUME, registry};
use roadstead_nvme::command::Blocks;
use roadstead_nvme::{DataPointer, IoCommand};
use roadstead_target::tcp::{Connection, Output};
use roadstead_target::{IoRequest, IoResult, Tag, VolumeKey};
use roadstead_target::{Rim, Turn};
use roadstead_tcp::{Pdu, PduWriter, Settings};

const BATCH: u16 = 32;
/// Short runs, of which the best counts: other work on the machine then does not.
const BATCHES: u32 = 100;
const RUNS: u32 = 500;

/// A drive that does nothing but move bytes that are needed.
struct Drive {
    immediate: bool,
    memory: Vec<u8>,
    free: Vec<Vec<u8>>,
    submitted: Vec<(Tag, Option<Vec<u8>>)>,
}

impl Rim for Drive {
    type Buffer = Vec<u8>;

    fn allocate(&mut self, _: usize) -> Option<Vec<u8>> {
        self.free.pop()
    }

    fn is_immediate(&self, volume: VolumeKey) -> bool {
        self.immediate && volume == VOLUME
    }

    fn read_now(&mut self, request: &IoRequest, into: &mut [u8]) -> Option<IoResult> {
        let start = usize::try_from(request.offset).ok()?;
        into.copy_from_slice(self.memory.get(start..start + into.len())?);
        Some(Ok(()))
    }

    fn write_now(&mut self, request: &IoRequest, data: &[u8]) -> Option<IoResult> {
        let start = usize::try_from(request.offset).ok()?;
        self.memory
            .get_mut(start..start + data.len())?
            .copy_from_slice(data);
        Some(Ok(()))
    }

    fn submit(&mut self, tag: Tag, _: IoRequest, buffer: Option<Vec<u8>>) {
        self.submitted.push((tag, buffer));
    }
}

/// Output that is sent at once.
struct Sent {
    area: Vec<u8>,
    used: usize,
    buffers: Vec<Vec<u8>>,
}

impl Output<Vec<u8>> for Sent {
    fn pending(&self) -> usize {
        self.used
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.area(bytes.len()).copy_from_slice(bytes);
    }

    fn area(&mut self, length: usize) -> &mut [u8] {
        let start = self.used;
        self.used += length;
        &mut self.area[start..start + length]
    }

    fn retract(&mut self, length: usize) {
        self.used -= length;
    }

    fn buffer(&mut self, buffer: Vec<u8>, _: usize) {
        self.buffers.push(buffer);
    }
}

fn batch(write: bool) -> Vec<u8> {
    let writer = PduWriter::new(Settings::default());
    let mut bytes = Vec::new();
    for index in 0..BATCH {
        let blocks = Blocks {
            start: u64::from(index) * 8,
            count: 8,
        };
        let command = if write {
            IoCommand::Write {
                nsid: 1,
                blocks,
                fua: false,
            }
        } else {
            IoCommand::Read {
                nsid: 1,
                blocks,
                fua: false,
            }
        };
        let mut sqe = command.encode(index);
        let data_length = if write { 4096 } else { 0 };
        sqe.dptr = if write {
            DataPointer::InCapsule {
                offset: 0,
                length: 4096,
            }
            .encode()
        } else {
            DataPointer::Transport { length: 4096 }.encode()
        };
        let mut head = [0; PduWriter::HEAD_MAX];
        let length = writer.head(&Pdu::CapsuleCmd { sqe, data_length }, &mut head);
        bytes.extend_from_slice(&head[..length]);
        bytes.resize(bytes.len() + usize::try_from(data_length).unwrap(), 7);
    }
    bytes
}

fn run(connection: &mut Connection<Vec<u8>>, immediate: bool, write: bool) -> f64 {
    let mut drive = Drive {
        immediate,
        memory: vec![0; 4 << 20],
        free: vec![vec![0; 4096]; usize::from(BATCH)],
        submitted: Vec::new(),
    };
    let mut out = Sent {
        area: vec![0; 1 << 20],
        used: 0,
        buffers: Vec::new(),
    };
    let input = batch(write);
    let mut turns = |count: u32| {
        for _ in 0..count {
            let mut turn = Turn {
                rim: &mut drive,
                out: &mut out,
                now_ms: 0,
            };
            connection.receive(&mut &input[..], &mut turn).unwrap();
            while let Some((tag, buffer)) = turn.rim.submitted.pop() {
                let (kept, given) = if write {
                    (buffer, None)
                } else {
                    (None, buffer)
                };
                turn.rim.free.extend(kept);
                connection.complete(tag, Ok(()), given, &mut turn);
            }
            drive.free.append(&mut out.buffers);
            assert!(out.used >= usize::from(BATCH) * 24);
            out.used = 0;
        }
    };
    turns(1);
    let start = Instant::now();
    turns(BATCHES);
    start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCHES) / f64::from(BATCH)
}

fn main() {
    let registry = registry();
    let (_admin, host) = Host::pair(
        &registry,
        Options {
            flow_control: false,
            entries: 64,
            ..Options::default()
        },
    );
    let mut connection = host.connection;
    for (name, immediate, write) in [
        ("read, memory drive", true, false),
        ("write, memory drive", true, true),
        ("read, other drive", false, false),
        ("write, other drive", false, true),
    ] {
        let best = (0..RUNS)
            .map(|_| run(&mut connection, immediate, write))
            .fold(f64::MAX, f64::min);
        println!("{name}: {best:.0} ns a command");
    }
}
