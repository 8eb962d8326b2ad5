//! Hosts that vanish, do not read, or do not know the protocol; drives that fail.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

use roadstead_nvme::Status;
use roadstead_pool::{Fault, FaultKind};

use super::super::{DriveIo, HostAccess};
use super::host::{Host, Options};
use super::{Fixture, Kind, NQN, Numbers, Setup, until};

#[test]
fn hosts_that_vanish_in_the_middle_leave_nothing_behind() {
    for kind in [Kind::Memory, Kind::File] {
        let fixture = Fixture::start(&Setup {
            kind,
            reactors: 2,
            buf_limit_bytes: 4 << 20,
            ..Setup::default()
        });
        let data = Numbers(1).bytes(256 << 10);
        for round in 0..10u64 {
            let (admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
            for i in 0..20 {
                queue.start(Host::write_command(i * 64, 64, true), &data);
                queue.start(Host::read_command(i * 64, 64, 4096), &[]);
                queue.start(Host::write_command(i * 4, 2, false), &data[..8192]);
            }
            if round % 2 == 0 {
                // Some data is on its way; the rest never comes.
                for _ in 0..round {
                    queue.hear().unwrap();
                }
            }
            drop((queue, admin));
        }
        until("all connections are gone", || {
            fixture.server.connections() == 0
        });
        // Every buffer is back: else these would not find one.
        let (_admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
        let large = Numbers(2).bytes(1 << 20);
        assert_eq!(queue.write(0, &large, 4096, true), Status::SUCCESS);
        let cids: Vec<u16> = (0..8)
            .map(|_| queue.start(Host::read_command(0, 256, 4096), &[]))
            .collect();
        for cid in cids {
            assert!(queue.wait(cid).unwrap().data == large);
        }
        assert!(fixture.server.is_healthy());
    }
}

#[test]
fn a_host_that_does_not_read_is_held_back_and_holds_back_no_one() {
    for kind in [Kind::Memory, Kind::File] {
        let fixture = Fixture::start(&Setup {
            kind,
            buf_limit_bytes: 64 << 20,
            ..Setup::default()
        });
        let (_admin, mut deaf) = Host::pair(fixture.address, NQN, Options::default());
        let (_other_admin, mut other) = Host::pair(fixture.address, NQN, Options::default());
        let data = Numbers(3).bytes(1 << 20);
        assert_eq!(other.write(0, &data, 4096, false), Status::SUCCESS);
        // 120 MiB, far more than a connection may queue.
        let cids: Vec<u16> = (0..120)
            .map(|_| deaf.start(Host::read_command(0, 256, 4096), &[]))
            .collect();
        for _ in 0..20 {
            assert!(other.read(0, 256, 4096).data == data);
        }
        let reads = fixture.server.counters(fixture.volume).reads;
        assert!(
            reads < 100,
            "{reads} reads were done although nobody takes their data"
        );
        for cid in cids {
            assert!(deaf.wait(cid).unwrap().data == data);
        }
    }
}

#[test]
fn garbage_ends_its_connection_only() {
    let fixture = Fixture::start(&Setup::default());
    let (_admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
    let mut numbers = Numbers(77);
    for _ in 0..50 {
        let mut stream = TcpStream::connect(fixture.address).unwrap();
        let len = 1 + usize::try_from(numbers.below(2000)).unwrap();
        // The target may have closed already.
        let _ = stream.write_all(&numbers.bytes(len));
    }
    // Well-formed at first, then not.
    let mut broken = Host::open(fixture.address, Options::default());
    broken.stream.write_all(&[0xff; 64]).unwrap();
    assert!(broken.is_closed_by_target());
    assert!(broken.terminated, "the host is told");
    let (_other, mut broken) = Host::pair(fixture.address, NQN, Options::default());
    broken.stream.write_all(&numbers.bytes(300)).unwrap();
    assert!(broken.is_closed_by_target());
    assert_eq!(queue.write(1, &[1; 4096], 4096, false), Status::SUCCESS);
    until("only good connections are left", || {
        fixture.server.connections() <= 3
    });
}

#[test]
fn a_failed_drive_refuses_writes_for_now_and_reads_what_it_can() {
    let fixture = Fixture::start(&Setup {
        kind: Kind::File,
        ..Setup::default()
    });
    let (_admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
    assert_eq!(queue.write(0, &[5; 4096], 4096, true), Status::SUCCESS);
    let fault = Fault {
        kind: FaultKind::Io,
        doing: "testing",
        detail: "a test".into(),
    };
    fixture.drive.report_fault(fault);
    assert_eq!(
        queue.write(0, &[6; 4096], 4096, false),
        Status::NAMESPACE_NOT_READY
    );
    assert_eq!(
        queue.write(100, &[6; 32768], 4096, false),
        Status::NAMESPACE_NOT_READY
    );
    assert_eq!(queue.flush(), Status::NAMESPACE_NOT_READY);
    assert_eq!(queue.zero(0, 1, false), Status::NAMESPACE_NOT_READY);
    assert_eq!(queue.deallocate(&[(0, 512)]), Status::NAMESPACE_NOT_READY);
    assert!(queue.read(0, 1, 4096).data == [5; 4096]);
    assert_eq!(fixture.server.counters(fixture.volume).errors, 5);
}

#[test]
fn a_drive_that_errs_is_told_apart_from_one_that_is_gone() {
    let mut fixture = Fixture::start(&Setup {
        kind: Kind::File,
        ..Setup::default()
    });
    {
        let (_admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
        assert_eq!(queue.write(0, &[5; 4096], 4096, true), Status::SUCCESS);
    }
    // The same volume on a file that can be neither written nor read where the data should be.
    let empty = tempfile::tempfile().unwrap();
    let read_only = std::fs::File::open(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&empty)
    ))
    .unwrap();
    fixture.io = DriveIo::File {
        fd: Arc::new(read_only.into()),
    };
    fixture
        .server
        .set_exports(fixture.exports(HostAccess::Any))
        .unwrap();
    let (_admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
    assert_eq!(queue.read(0, 1, 4096).status, Status::UNRECOVERED_READ);
    assert_eq!(queue.write(0, &[6; 4096], 4096, false), Status::WRITE_FAULT);
    assert!(
        fixture.drive.fault().is_none(),
        "the drive as a whole still works"
    );
    assert_eq!(fixture.server.counters(fixture.volume).errors, 2);
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
    let mut fixture = Fixture::start(&Setup {
        kind: Kind::File,
        ..Setup::default()
    });
    // Something that can be written, and cannot be synced.
    let (_far, near) = std::os::unix::net::UnixStream::pair().unwrap();
    fixture.io = DriveIo::File {
        fd: Arc::new(near.into()),
    };
    fixture
        .server
        .set_exports(fixture.exports(HostAccess::Any))
        .unwrap();
    let (_admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
    let flushes: Vec<u16> = (0..3)
        .map(|_| queue.start(Host::flush_command(), &[]))
        .collect();
    for cid in flushes {
        assert!(!queue.wait(cid).unwrap().status.is_success());
    }
    let fault = fixture.drive.fault().cloned().unwrap();
    assert_eq!((fault.kind, fault.doing), (FaultKind::Io, "syncing"));
    assert_eq!(queue.flush(), Status::NAMESPACE_NOT_READY);
    assert_eq!(
        queue.write(0, &[6; 4096], 4096, false),
        Status::NAMESPACE_NOT_READY
    );
}

#[test]
fn nothing_overtakes_the_writes_of_a_lost_connection() {
    let mut fixture = Fixture::start(&Setup {
        kind: Kind::File,
        reactors: 2,
        ..Setup::default()
    });
    {
        let (_admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
        assert_eq!(
            queue.write(0, &[1; 256 << 10], 4096, false),
            Status::SUCCESS
        );
    }
    // A drive that stalls: a pipe that nobody reads yet.
    let (mut far, near) = std::io::pipe().unwrap();
    fixture.io = DriveIo::File {
        fd: Arc::new(near.into()),
    };
    fixture
        .server
        .set_exports(fixture.exports(HostAccess::Any))
        .unwrap();
    {
        let (_admin, mut lost) = Host::pair(fixture.address, NQN, Options::default());
        lost.start(Host::write_command(0, 32, false), &[2; 128 << 10]);
        // The target asks for the data and gets it.
        lost.hear().unwrap();
        std::io::Read::read_exact(&mut far, &mut [0; 4096]).unwrap();
    }
    until("the connection is gone", || {
        fixture.server.connections() == 0
    });
    // The host is let in at once. Its I/O on the same blocks waits until the old write is done, that on others does
    // not: the drive, which cannot be read, says so of others first.
    let (_admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
    let same = queue.start(Host::read_command(0, 1, 4096), &[]);
    let other = queue.start(Host::read_command(32, 1, 4096), &[]);
    let completed = queue.wait(other).unwrap();
    assert_eq!(completed.status, Status::UNRECOVERED_READ);
    assert!(!queue.has_ended(same));
    std::io::Read::read_exact(&mut far, &mut [0; (128 << 10) - 4096]).unwrap();
    let completed = queue.wait(same).unwrap();
    assert_eq!(completed.status, Status::UNRECOVERED_READ);
}
