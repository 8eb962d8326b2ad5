//! The initiator against the real target over real sockets, with connections that break.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{BLOCK, Target, UUID, at_work, pattern, read, run, wait_for};
use roadstead_initiator::{
    ConnectError, Initiator, IoError, Limits, NamespaceRequest, Nqn, Op, PathPolicy, PathState,
    Status, Wanted,
};
use roadstead_ring::ReactorConfig;
use roadstead_target::Access;
use uuid::Uuid;

const WRITE: Op = Op::Write { durable: false };

fn initiator() -> Initiator {
    Initiator::start(ReactorConfig::default()).unwrap()
}

#[test]
fn data_goes_there_and_back_in_every_size_and_mode() {
    let target = Target::new(2048, Access::Any);
    let initiator = initiator();
    for digest in [false, true] {
        for io_queues in [1, 3] {
            let mut spec = target.spec();
            spec.header_digest = digest;
            spec.data_digest = digest;
            spec.limits.io_queues = io_queues;
            let namespace = initiator.connect(spec).unwrap();
            assert_eq!(namespace.info().uuid, Some(UUID));
            // In the capsule, by R2T, split into several commands.
            for (lba, blocks) in [(0, 1), (5, 4), (10, 5), (100, 256), (300, 1000)] {
                let data = pattern(blocks, usize::try_from(lba).unwrap());
                run(&namespace, WRITE, lba, blocks, data.clone()).unwrap();
                assert!(read(&namespace, lba, blocks) == data, "{lba} {blocks}");
            }
            run(&namespace, Op::Flush, 0, 0, Vec::new()).unwrap();
            let zeroes = Op::WriteZeroes { deallocate: true };
            run(&namespace, zeroes, 300, 900, Vec::new()).unwrap();
            assert!(read(&namespace, 300, 900).iter().all(|b| *b == 0));
            assert!(read(&namespace, 1200, 1).iter().any(|b| *b != 0));
            namespace.close();
        }
    }
    assert!(target.flushes() > 0);
}

#[test]
fn requests_wait_over_broken_connections_and_none_fails() {
    const CUTS: u64 = 40;
    const WORKERS: u64 = 8;
    /// Enough for a write between any two cuts.
    const ROUNDS: usize = 400;
    let target = Target::new(256, Access::Any);
    let initiator = initiator();
    let namespace = initiator.connect(target.spec()).unwrap();
    let working = AtomicU64::new(WORKERS);
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (namespace, working) = (namespace.clone(), &working);
            scope.spawn(move || {
                let blocks = if worker % 2 == 0 { 1 } else { 16 };
                for round in 0..ROUNDS {
                    let data = pattern(blocks, round);
                    run(&namespace, WRITE, worker * 16, blocks, data.clone()).unwrap();
                    assert!(read(&namespace, worker * 16, blocks) == data);
                    if round % 16 == 0 {
                        run(&namespace, Op::Flush, 0, 0, Vec::new()).unwrap();
                    }
                }
                working.fetch_sub(1, Ordering::Relaxed);
            });
        }
        for cut in 0..CUTS {
            let (before, writes) = (target.accepted(), target.writes());
            wait_for("writes between cuts", || {
                target.writes() > writes + 3 || working.load(Ordering::Relaxed) == 0
            });
            target.refuse(cut % 8 == 3);
            target.cut();
            if cut % 8 == 3 {
                // Whether it reads as closed or as reset is up to what was under way.
                wait_for("the loss to show", || {
                    namespace.paths()[0].report.state == PathState::Connecting
                });
                target.refuse(false);
            }
            wait_for("a new connection", || target.accepted() > before);
        }
    });
    assert!(target.accepted() > CUTS, "it was connected again");
    namespace.close();
}

/// Several workers write and read back, each its own blocks over and over, while paths of one subsystem come and go.
fn work_over_changing_paths(policy: PathPolicy) {
    const CUTS: usize = 24;
    const WORKERS: u64 = 6;
    let target = Target::with_portals(2, 256, Access::Any);
    let initiator = initiator();
    let mut spec = target.spec();
    spec.limits.policy = policy;
    spec.limits.io_queues = 2;
    // Writes that wait for copies on a dead path wait for twice what the target is told: three times this.
    spec.limits.keep_alive = Duration::from_millis(300);
    let namespace = initiator.connect(spec).unwrap();
    at_work(&target, &namespace, WORKERS, |some_writes| {
        for cut in 0..CUTS {
            some_writes();
            let portal = cut % 2;
            target.refuse_portal(portal, cut % 4 > 1);
            target.cut_portal(portal);
            std::thread::sleep(Duration::from_millis(20));
            target.refuse_portal(portal, false);
        }
    });
    wait_for("both paths", || {
        namespace
            .paths()
            .iter()
            .all(|p| p.report.state == PathState::Live)
    });
    namespace.close();
}

#[test]
fn requests_go_on_while_paths_come_and_go() {
    for policy in [
        PathPolicy::Nearest,
        PathPolicy::RoundRobin,
        PathPolicy::QueueDepth,
    ] {
        work_over_changing_paths(policy);
    }
}

#[test]
fn the_state_of_the_path_is_reported() {
    let target = Target::new(16, Access::Any);
    let initiator = initiator();
    let namespace = initiator.connect(target.spec()).unwrap();
    assert_eq!(namespace.paths()[0].report.state, PathState::Live);
    target.refuse(true);
    target.cut();
    wait_for("the loss to show", || {
        let path = &namespace.paths()[0].report;
        path.state == PathState::Connecting && !path.message.is_empty()
    });
    target.refuse(false);
    wait_for("the return to show", || {
        namespace.paths()[0].report.state == PathState::Live
    });
}

#[test]
fn a_path_that_is_lost_for_too_long_gives_errors_and_comes_back() {
    let target = Target::new(16, Access::Any);
    let initiator = initiator();
    let mut spec = target.spec();
    spec.limits.ctrl_loss = Duration::from_millis(600);
    let namespace = initiator.connect(spec).unwrap();
    target.refuse(true);
    let started = Instant::now();
    target.cut();
    wait_for("the loss to show", || {
        namespace.paths()[0].report.state != PathState::Live
    });
    let (sender, receiver) = channel();
    let looked_at = namespace.clone();
    let request = NamespaceRequest {
        op: WRITE,
        lba: 0,
        blocks: 1,
        bytes: pattern(1, 1),
        start: 0,
        // The reason is there as soon as the failure is.
        done: Box::new(move |result, _| {
            sender
                .send((result, looked_at.paths()[0].report.state))
                .unwrap_or_default()
        }),
    };
    assert!(namespace.submit(request).is_ok());
    let (result, state) = receiver.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(result, Err(IoError::PathLost));
    assert_eq!(state, PathState::Failed);
    assert!(
        started.elapsed() >= Duration::from_millis(600),
        "not before"
    );
    target.refuse(false);
    wait_for("the return", || {
        namespace.paths()[0].report.state == PathState::Live
    });
    run(&namespace, WRITE, 0, 1, pattern(1, 1)).unwrap();
}

#[test]
fn a_target_that_falls_silent_is_left() {
    let target = Target::new(16, Access::Any);
    let initiator = initiator();
    let mut spec = target.spec();
    spec.limits.keep_alive = Duration::from_millis(400);
    let namespace = initiator.connect(spec).unwrap();
    target.mute(true);
    wait_for("the loss to show", || {
        namespace.paths()[0].report.state == PathState::Connecting
    });
    assert!(namespace.paths()[0].report.message.contains("Keep Alive"));
    target.mute(false);
    wait_for("the return", || {
        namespace.paths()[0].report.state == PathState::Live
    });
}

#[test]
fn the_nearest_path_that_works_is_used() {
    let (first, second) = (Target::new(16, Access::Any), Target::new(16, Access::Any));
    first.refuse(true);
    let mut spec = first.spec();
    spec.paths = vec![first.address.into(), second.address.into()];
    let initiator = initiator();
    let namespace = initiator.connect(spec).unwrap();
    let states = || -> Vec<_> { namespace.paths().iter().map(|p| p.report.state).collect() };
    assert_eq!(states(), [PathState::Connecting, PathState::Live]);
    run(&namespace, WRITE, 1, 1, pattern(1, 1)).unwrap();
    assert_eq!((first.writes(), second.writes()), (0, 1));
    first.refuse(false);
    wait_for("the first path", || states() == [PathState::Live; 2]);
    run(&namespace, WRITE, 0, 1, pattern(1, 1)).unwrap();
    assert_eq!((first.writes(), second.writes()), (1, 1));
    second.refuse(true);
    second.cut();
    wait_for("the loss to show", || {
        states() == [PathState::Live, PathState::Connecting]
    });
    run(&namespace, WRITE, 0, 1, pattern(1, 1)).unwrap();
}

#[test]
fn what_cannot_be_connected_says_why() {
    let none = Access::Hosts(BTreeSet::new());
    let (open, closed) = (Target::new(16, Access::Any), Target::new(16, none));
    let gone = Target::new(16, Access::Any).spec();
    let mut other_volume = open.spec();
    other_volume.namespace = Wanted::Uuid(Uuid::from_u128(99));
    let mut other_subsystem = open.spec();
    other_subsystem.subsystem_nqn = Nqn::new("nqn.2026-11.io.roadstead:other").unwrap();
    let table = [
        (gone, "refused"),
        (closed.spec(), "not allowed"),
        (other_volume, "no namespace with UUID"),
        (other_subsystem, "Connect refused"),
    ];
    let initiator = initiator();
    for (spec, wanted) in table {
        match initiator.connect(spec) {
            Err(ConnectError::Paths(errors)) => {
                assert!(
                    errors[0].contains(wanted),
                    "{errors:?} does not say {wanted}"
                );
            }
            other => panic!("{:?}", other.err()),
        }
    }
    let mut nowhere = open.spec();
    nowhere.paths.clear();
    assert!(matches!(
        initiator.connect(nowhere),
        Err(ConnectError::NoPath)
    ));
}

/// A listener that answers every connection with the given bytes, and how often it did.
fn noise(answers: Vec<Vec<u8>>) -> (std::net::SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 128];
            stream.read_exact(&mut request).unwrap();
            let _ = stream.write_all(&answer);
            let _ = stream.shutdown(Shutdown::Write);
            // Until the initiator has had enough.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    (address, thread)
}

#[test]
fn noise_from_a_target_costs_the_connection_and_nothing_else() {
    let target = Target::new(16, Access::Any);
    let initiator = initiator();
    let healthy = initiator.connect(target.spec()).unwrap();
    let mut seed = 1_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        u8::try_from(seed >> 56).unwrap()
    };
    // A valid answer to the connection request, then PDUs of every kind with random fields, or plain noise.
    let mut hello = vec![0; 128];
    hello[..8].copy_from_slice(&[1, 0, 128, 0, 128, 0, 0, 0]);
    hello[12..16].copy_from_slice(&4096_u32.to_le_bytes());
    let answers: Vec<Vec<u8>> = (0..200_u8)
        .map(|round| {
            let mut bytes = if round % 4 == 0 {
                Vec::new()
            } else {
                hello.clone()
            };
            let start = bytes.len();
            bytes.extend((0..usize::from(random()) * 4).map(|_| random()));
            if let Some(head) = bytes.get_mut(start..start + 8).filter(|_| round % 2 == 1) {
                let kind = [3, 5, 7, 9][usize::from(round / 2) % 4];
                let data = if kind == 7 { 24 } else { 0 };
                head.copy_from_slice(&[kind, 0, 24, data, 24 + data, 0, 0, 0]);
            }
            bytes
        })
        .collect();
    let count = answers.len();
    let (address, thread) = noise(answers);
    for _ in 0..count {
        let mut spec = target.spec();
        spec.paths = vec![address.into()];
        assert!(matches!(
            initiator.connect(spec),
            Err(ConnectError::Paths(_))
        ));
    }
    thread.join().unwrap();
    run(&healthy, WRITE, 0, 1, pattern(1, 1)).unwrap();
    assert_eq!(target.accepted(), 2, "the others were not disturbed");
}

#[test]
fn a_volume_that_grows_is_seen_at_once_and_on_demand() {
    let target = Target::new(16, Access::Any);
    let initiator = initiator();
    let namespace = initiator.connect(target.spec()).unwrap();
    let beyond = run(&namespace, WRITE, 16, 1, pattern(1, 1));
    assert_eq!(beyond, Err(IoError::Status(Status::LBA_OUT_OF_RANGE)));
    target.serve(32, Access::Any);
    assert_eq!(namespace.look().blocks, 32);
    run(&namespace, WRITE, 31, 1, pattern(1, 1)).unwrap();
    let changes = namespace.changes();
    target.serve(64, Access::Any);
    changes.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(namespace.info().blocks, 64);
    target.serve(65, Access::Any);
    wait_for("the event, which was armed again", || {
        namespace.info().blocks == 65
    });
    namespace.close();
    while changes.recv_timeout(Duration::from_secs(30)).is_ok() {}
}

#[test]
fn a_namespace_that_goes_is_waited_for() {
    let target = Target::new(16, Access::Any);
    let initiator = initiator();
    let namespace = initiator.connect(target.spec()).unwrap();
    target.serve_nothing();
    wait_for("the loss to show", || {
        namespace.paths()[0].report.state == PathState::Connecting
    });
    wait_for("the reason", || {
        namespace.paths()[0].report.message.contains("no namespace")
    });
    target.serve(16, Access::Any);
    run(&namespace, WRITE, 0, 1, pattern(1, 1)).unwrap();
}

#[test]
fn requests_in_flight_end_with_the_namespace() {
    let target = Target::new(16, Access::Any);
    let initiator = initiator();
    let namespace = initiator.connect(target.spec()).unwrap();
    target.refuse(true);
    target.cut();
    let (sender, receiver) = channel();
    for _ in 0..5000 {
        let sender = sender.clone();
        let request = NamespaceRequest {
            op: WRITE,
            lba: 0,
            blocks: 1,
            bytes: vec![0; BLOCK],
            start: 0,
            done: Box::new(move |result, _| sender.send(result).unwrap()),
        };
        assert!(namespace.submit(request).is_ok());
    }
    namespace.close();
    for _ in 0..5000 {
        let result = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(result, Err(IoError::Closed));
    }
    assert_eq!(
        run(&namespace, Op::Flush, 0, 0, Vec::new()),
        Err(IoError::Closed)
    );
    assert!(Limits::default().requests_max < 5000, "some had to wait");
}
