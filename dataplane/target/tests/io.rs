//! I/O commands: every refusal, with its status.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;

use common::{BLOCKS, Host, Options, SUBSYSTEM, namespace, registry, subsystem, table};
use roadstead_nvme::command::{Blocks, DsmRange, NSID_ALL};
use roadstead_nvme::{DataPointer, FabricsCommand, IoCommand, Sqe, Status};
use roadstead_target::{Access, IoError, Namespace};
use zerocopy::IntoBytes;

fn plain() -> Options {
    Options::default()
}

fn io(command: IoCommand, length: u32) -> Sqe {
    let mut sqe = command.encode(0);
    sqe.dptr = DataPointer::Transport { length }.encode();
    sqe
}

#[test]
fn io_commands_without_data() {
    let registry = registry();
    let (_admin, mut host) = Host::pair(&registry, plain());
    let range = Status::LBA_OUT_OF_RANGE.dnr();
    let nsid = Status::INVALID_NAMESPACE.dnr();
    let length = Status::SGL_LENGTH_INVALID.dnr();
    let read = |nsid, start, count| IoCommand::Read {
        nsid,
        blocks: Blocks { start, count },
        fua: false,
    };
    let zeroes = |start, count| IoCommand::WriteZeroes {
        nsid: 1,
        blocks: Blocks { start, count },
        fua: false,
        deallocate: false,
        all: false,
    };
    for (what, sqe, status) in [
        ("unknown namespace", io(read(2, 0, 1), 512), nsid),
        ("all namespaces", io(read(NSID_ALL, 0, 1), 512), nsid),
        ("no namespace", io(read(0, 0, 1), 512), nsid),
        ("behind the end", io(read(1, BLOCKS, 1), 512), range),
        ("over the end", io(read(1, BLOCKS - 1, 2), 1024), range),
        ("overflow", io(read(1, u64::MAX, 2), 1024), range),
        (
            "last block",
            io(read(1, BLOCKS - 1, 1), 512),
            Status::SUCCESS,
        ),
        (
            "too long",
            io(read(1, 0, 2049), 2049 * 512),
            Status::INVALID_FIELD.dnr(),
        ),
        ("longest", io(read(1, 0, 2048), 2048 * 512), Status::SUCCESS),
        ("less data than blocks", io(read(1, 0, 2), 512), length),
        ("no data", io(read(1, 0, 2), 0), length),
        ("more data than blocks", io(read(1, 0, 2), 2048), length),
        ("zeroes over the end", io(zeroes(BLOCKS - 1, 2), 0), range),
        ("zeroes", io(zeroes(0, 8192), 0), Status::SUCCESS),
        (
            "flush of all",
            io(IoCommand::Flush { nsid: NSID_ALL }, 0),
            nsid,
        ),
        (
            "flush",
            io(IoCommand::Flush { nsid: 1 }, 0),
            Status::SUCCESS,
        ),
        (
            "fabrics command",
            FabricsCommand::PropertyGet {
                offset: 0,
                wide: true,
            }
            .encode(0),
            Status::INVALID_OPCODE.dnr(),
        ),
    ] {
        assert_eq!(host.run(sqe, &[]).status, status, "{what}");
    }
    // A read cannot have its data in the capsule, which is thrown away.
    assert_eq!(
        host.run(read(1, 0, 1).encode(0), &[0; 512]).status,
        Status::SGL_TYPE_INVALID.dnr()
    );
    assert_eq!(host.read(0, 1).status, Status::SUCCESS);
}

#[test]
fn write_zeroes_is_bounded() {
    let registry = registry();
    let big = Namespace {
        blocks: 1 << 30,
        block_size: roadstead_target::BlockSize::B4096,
        ..namespace(1)
    };
    registry.apply(table(&[(SUBSYSTEM, subsystem(Access::Any, &[(1, big)]))]));
    let (_admin, mut host) = Host::pair(&registry, plain());
    let blocks = Blocks {
        start: 0,
        count: 8193,
    };
    let command = IoCommand::WriteZeroes {
        nsid: 1,
        blocks,
        fua: false,
        deallocate: true,
        all: false,
    };
    assert_eq!(
        host.run(io(command, 0), &[]).status,
        Status::INVALID_FIELD.dnr()
    );
}

#[test]
fn writes() {
    for in_capsule in [0, 8192] {
        let registry = registry();
        let (_admin, mut host) = Host::pair(
            &registry,
            Options {
                in_capsule,
                ..plain()
            },
        );
        let write = |start, count| {
            IoCommand::Write {
                nsid: 1,
                blocks: Blocks { start, count },
                fua: false,
            }
            .encode(0)
        };
        assert_eq!(
            host.run(write(BLOCKS, 1), &[0; 512]).status,
            Status::LBA_OUT_OF_RANGE.dnr()
        );
        assert_eq!(
            host.run(write(0, 2), &[0; 512]).status,
            Status::SGL_LENGTH_INVALID.dnr()
        );
        assert_eq!(
            host.run(write(0, 1), &[0; 1024]).status,
            Status::SGL_LENGTH_INVALID.dnr()
        );
        assert_eq!(host.run(write(0, 1), &[0; 512]).status, Status::SUCCESS);
        assert_eq!(host.memory.requests.len(), 1, "refused commands do no I/O");
        let read_only = Namespace {
            read_only: true,
            ..namespace(BLOCKS)
        };
        registry.apply(table(&[(
            SUBSYSTEM,
            subsystem(Access::Any, &[(1, read_only)]),
        )]));
        let protected = Status::NAMESPACE_WRITE_PROTECTED.dnr();
        assert_eq!(host.run(write(0, 1), &[0; 512]).status, protected);
        let blocks = Blocks { start: 0, count: 1 };
        let zeroes = IoCommand::WriteZeroes {
            nsid: 1,
            blocks,
            fua: false,
            deallocate: false,
            all: false,
        };
        assert_eq!(host.run(io(zeroes, 0), &[]).status, protected);
        let discard = IoCommand::DatasetManagement {
            nsid: 1,
            ranges: 1,
            deallocate: true,
        };
        assert_eq!(host.run(discard.encode(0), &[0; 16]).status, protected);
        assert_eq!(host.read(0, 1).status, Status::SUCCESS);
    }
}

#[test]
fn deallocation() {
    for in_capsule in [0, 8192] {
        let registry = registry();
        let (_admin, mut host) = Host::pair(
            &registry,
            Options {
                in_capsule,
                ..plain()
            },
        );
        let discard = |ranges, deallocate| {
            IoCommand::DatasetManagement {
                nsid: 1,
                ranges,
                deallocate,
            }
            .encode(0)
        };
        let bytes = |ranges: &[(u64, u32)]| -> Vec<u8> {
            let ranges: Vec<DsmRange> = ranges
                .iter()
                .map(|(start, count)| DsmRange::new(*start, *count))
                .collect();
            ranges.as_slice().as_bytes().to_vec()
        };
        for (what, sqe, data, status, requests) in [
            (
                "too little data",
                discard(2, true),
                bytes(&[(0, 1)]),
                Status::SGL_LENGTH_INVALID.dnr(),
                0,
            ),
            (
                "over the end",
                discard(2, true),
                bytes(&[(0, 1), (BLOCKS, 1)]),
                Status::LBA_OUT_OF_RANGE.dnr(),
                0,
            ),
            (
                "overflow",
                discard(1, true),
                bytes(&[(u64::MAX, 9)]),
                Status::LBA_OUT_OF_RANGE.dnr(),
                0,
            ),
            (
                "hint",
                discard(1, false),
                bytes(&[(0, 1)]),
                Status::SUCCESS,
                0,
            ),
            (
                "nothing",
                discard(1, true),
                bytes(&[(0, 0)]),
                Status::SUCCESS,
                0,
            ),
            (
                "all",
                discard(1, true),
                bytes(&[(0, 8192)]),
                Status::SUCCESS,
                1,
            ),
            (
                "list longer than used",
                discard(1, true),
                vec![0; 4096],
                Status::SUCCESS,
                0,
            ),
            (
                "list too long",
                discard(1, true),
                vec![0; 4100],
                Status::SGL_LENGTH_INVALID.dnr(),
                0,
            ),
        ] {
            host.memory.requests.clear();
            assert_eq!(host.run(sqe, &data).status, status, "{what}");
            assert_eq!(host.memory.requests.len(), requests, "{what}");
        }
    }
}

#[test]
fn failed_io_has_one_status_each() {
    for immediate in [false, true] {
        let registry = registry();
        let (_admin, mut host) = Host::pair(
            &registry,
            Options {
                immediate,
                ..plain()
            },
        );
        for (error, status) in [
            (IoError::Read, Status::UNRECOVERED_READ),
            (IoError::Write, Status::WRITE_FAULT),
            (IoError::NoSpace, Status::CAPACITY_EXCEEDED.dnr()),
            (IoError::Unavailable, Status::NAMESPACE_NOT_READY),
            (IoError::Gone, Status::INVALID_NAMESPACE.dnr()),
        ] {
            host.memory.failure = Some(error);
            let done = host.read(0, 1);
            assert_eq!((done.status, done.data.len()), (status, 0));
            host.memory.failure = Some(error);
            assert_eq!(host.write(0, &[0; 512]).status, status);
        }
        assert_eq!(host.read(0, 1).status, Status::SUCCESS);
    }
}
