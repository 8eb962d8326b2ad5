//! The initiator against a controller that uses every liberty that the NVMe/TCP Transport Specification gives it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

#[path = "common/script.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod script;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use roadstead_initiator::{
    Identity, Initiator, Limits, Namespace, NamespaceRequest, Nqn, Op, Spec, Wanted,
};
use roadstead_nvme::Status;
use roadstead_ring::ReactorConfig;
use roadstead_tcp::Pdu;
use script::{BLOCK, Script, Seen, UUID, start};
use uuid::Uuid;

fn spec(address: SocketAddr) -> Spec {
    Spec {
        identity: Identity {
            nqn: Nqn::new("nqn.2014-08.org.nvmexpress:uuid:test").unwrap(),
            id: Uuid::from_u128(5),
            keys: None,
        },
        subsystem_nqn: Nqn::new("nqn.2026-11.io.roadstead:test").unwrap(),
        namespace: Wanted::Uuid(UUID),
        paths: vec![address.into()],
        limits: Limits::default(),
        header_digest: false,
        data_digest: false,
    }
}

struct Bench {
    namespace: Namespace,
    seen: Arc<Mutex<Seen>>,
    _initiator: Initiator,
}

impl Bench {
    fn new(script: Script) -> Self {
        Self::with(script, |_| {})
    }

    fn with(script: Script, change: impl FnOnce(&mut Spec)) -> Self {
        let (address, seen) = start(script);
        let mut spec = spec(address);
        change(&mut spec);
        let initiator = Initiator::start(ReactorConfig::default()).unwrap();
        Self {
            namespace: initiator.connect(spec).unwrap(),
            seen,
            _initiator: initiator,
        }
    }

    fn run(&self, op: Op, lba: u64, blocks: usize, bytes: Vec<u8>) -> Vec<u8> {
        let (sender, receiver) = channel();
        let request = NamespaceRequest {
            op,
            lba,
            blocks: u32::try_from(blocks).unwrap(),
            bytes,
            start: 0,
            done: Box::new(move |result, bytes| drop(sender.send(result.map(|()| bytes)))),
        };
        assert!(self.namespace.submit(request).is_ok());
        let result = receiver.recv_timeout(Duration::from_secs(30)).unwrap();
        result.unwrap()
    }

    fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// Reads and writes of several sizes come through; returns the bytes moved.
    fn check(&self) -> usize {
        let mut moved = 0;
        for (lba, blocks) in [(0, 1), (3, 5), (9, 8), (20, 33), (100, 300)] {
            let range = lba * BLOCK..(lba + blocks) * BLOCK;
            let data = self.run(Op::Read, lba as u64, blocks, vec![0; range.len()]);
            assert!(data == self.seen().memory[range.clone()], "read {lba}");
            let data: Vec<u8> = data.iter().map(|byte| byte.wrapping_add(1)).collect();
            let write = Op::Write { durable: false };
            self.run(write, lba as u64, blocks, data.clone());
            assert!(data == self.seen().memory[range], "write {lba}");
            moved += data.len();
        }
        moved
    }
}

/// Where a transfer is cut: pieces of all sizes that are multiples of 4.
fn pieces(length: usize) -> Vec<(usize, usize)> {
    let mut pieces = Vec::new();
    let (mut at, mut size) = (0, 4);
    while at < length {
        let piece = size.min(length - at);
        pieces.push((at, piece));
        at += piece;
        size = size * 3 % 16_384 / 4 * 4 + 4;
    }
    pieces
}

#[test]
fn read_data_comes_in_any_split() {
    let bench = Bench::new(Script {
        read: |peer, sqe, data| {
            for (at, length) in pieces(data.len()) {
                let last = at + length == data.len();
                peer.data(&sqe, at, &data[at..at + length], last, false);
            }
            peer.complete(&sqe, Status::SUCCESS, 0);
        },
        ..Script::default()
    });
    bench.check();
}

#[test]
fn the_success_flag_stands_for_a_completion() {
    let bench = Bench::new(Script {
        read: |peer, sqe, data| {
            let middle = data.len() / 2;
            peer.data(&sqe, 0, &data[..middle], false, false);
            peer.data(&sqe, middle, &data[middle..], true, true);
        },
        ..Script::default()
    });
    bench.check();
    assert_eq!(bench.seen().connections, 2, "admin and one I/O queue, once");
}

#[test]
fn write_data_is_asked_for_in_any_split() {
    let bench = Bench::new(Script {
        write: |peer, sqe, length, _| {
            let mut all = vec![0; length];
            // At most as many at a time as the host allows.
            let most = usize::try_from(peer.request.unwrap().max_r2t).unwrap();
            for some in pieces(length).chunks(most) {
                let start = some[0].0;
                let end = some[some.len() - 1].0 + some[some.len() - 1].1;
                all[start..end].copy_from_slice(&peer.ask(&sqe, some)[start..end]);
            }
            all
        },
        ..Script::default()
    });
    bench.check();
}

#[test]
fn write_data_is_asked_for_in_any_order() {
    let bench = Bench::new(Script {
        write: |peer, sqe, length, _| {
            let half = length / 2;
            peer.ask(&sqe, &[(half, length - half), (0, half)])
        },
        ..Script::default()
    });
    bench.check();
}

#[test]
fn data_pdus_keep_to_the_controllers_limit() {
    let mut script = Script::default();
    script.ic.max_data = 8192;
    let bench = Bench::new(script);
    let moved = bench.check();
    let seen = bench.seen();
    assert!(seen.h2c_lengths.iter().all(|length| *length <= 8192));
    assert!(seen.h2c_lengths.contains(&8192));
    assert_eq!(seen.h2c_lengths.iter().sum::<u32>() as usize, moved);
}

#[test]
fn capsules_carry_what_the_controller_takes_and_no_more() {
    let bench = Bench::new(Script {
        in_capsule: 4096,
        ..Script::default()
    });
    let moved = bench.check();
    let seen = bench.seen();
    assert_eq!(seen.in_capsule, (1 + 5 + 8) * BLOCK);
    let asked = seen.h2c_lengths.iter().sum::<u32>() as usize;
    assert_eq!(seen.in_capsule + asked, moved);
}

#[test]
fn transfers_keep_to_the_controllers_limit() {
    let bench = Bench::new(Script {
        mdts: 1,
        ..Script::default()
    });
    bench.check();
    let seen = bench.seen();
    assert_eq!(seen.transfers.iter().max(), Some(&8192));
}

#[test]
fn data_is_aligned_as_the_controller_wants_it_and_digests_are_right() {
    for alignment in [0, 1, 15, 31] {
        let mut script = Script {
            in_capsule: 4096,
            ..Script::default()
        };
        script.ic.alignment = alignment;
        script.ic.header_digest = true;
        script.ic.data_digest = true;
        // The script's reader checks both.
        let bench = Bench::with(script, |spec| {
            spec.header_digest = true;
            spec.data_digest = true;
        });
        bench.check();
    }
}

#[test]
fn a_controller_may_decline_digests_and_queues() {
    let bench = Bench::with(Script::default(), |spec| {
        spec.header_digest = true;
        spec.data_digest = true;
        spec.limits.io_queues = 4;
    });
    bench.check();
    assert_eq!(bench.seen().io_queues, 4);
}

#[test]
fn damaged_data_is_read_again() {
    static READS: AtomicUsize = AtomicUsize::new(0);
    let mut script = Script {
        read: |peer, sqe, data| {
            let is_damaged = READS.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
            if is_damaged {
                let head = roadstead_tcp::pdu::C2hData {
                    cid: sqe.cid.get(),
                    offset: 0,
                    length: u32::try_from(data.len()).unwrap(),
                    last: true,
                    success: false,
                };
                let mut wrong = data.to_vec();
                peer.head(&Pdu::C2hData(head));
                let digest = peer.digest(data);
                wrong[0] ^= 1;
                peer.raw(&wrong);
                peer.raw(&digest);
            } else {
                peer.data(&sqe, 0, data, true, false);
            }
            peer.complete(&sqe, Status::SUCCESS, 0);
        },
        ..Script::default()
    };
    script.ic.data_digest = true;
    let bench = Bench::with(script, |spec| spec.data_digest = true);
    let data = bench.run(Op::Read, 1, 8, vec![0; 8 * BLOCK]);
    assert!(data == bench.seen().memory[BLOCK..9 * BLOCK]);
    assert_eq!(READS.load(Ordering::Relaxed), 2);
    assert_eq!(bench.seen().connections, 2, "the connection goes on");
}

#[test]
fn in_flight_commands_keep_to_the_controllers_limit() {
    static IN_FLIGHT: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let bench = Bench::new(Script {
        identify: |page| page.commands_max = 3.into(),
        read: |peer, sqe, _| {
            let mut waiting = IN_FLIGHT.lock().unwrap();
            waiting.push(sqe.cid.get());
            assert!(waiting.len() <= 3, "more than MAXCMD");
            // The last of three answers for all: would a fourth come before, it would fail.
            if waiting.len() == 3 {
                std::thread::sleep(Duration::from_millis(20));
                for cid in waiting.drain(..).rev() {
                    let mut of = sqe;
                    of.cid = cid.into();
                    peer.data(&of, 0, &[1; BLOCK], true, true);
                }
            }
        },
        ..Script::default()
    });
    let (sender, receiver) = channel();
    for lba in 0..30 {
        let sender = sender.clone();
        let request = NamespaceRequest {
            op: Op::Read,
            lba,
            blocks: 1,
            bytes: vec![0; BLOCK],
            start: 0,
            done: Box::new(move |result, _| sender.send(result).unwrap()),
        };
        assert!(bench.namespace.submit(request).is_ok());
    }
    for _ in 0..30 {
        let result = receiver.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(result, Ok(()));
    }
}
