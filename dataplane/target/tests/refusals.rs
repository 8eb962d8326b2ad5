//! Every refusal, with its status or its fatal error.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;

use common::{
    BLOCK, BLOCKS, HOST, Host, Options, SUBSYSTEM, hosts, local, namespace, nqn, registry,
    subsystem, table,
};
use roadstead_nvme::command::{Blocks, DsmRange, GetLogPage, NSID_ALL};
use roadstead_nvme::fabrics::{CNTLID_DYNAMIC, Connect, ConnectData, InvalidParameter};
use roadstead_nvme::feature::{self, Select};
use roadstead_nvme::identify::cns;
use roadstead_nvme::log;
use roadstead_nvme::property::{self, Configuration};
use roadstead_nvme::{AdminCommand, DataPointer, FabricsCommand, IoCommand, Sqe, Status};
use roadstead_target::tcp::{Close, Connection};
use roadstead_target::{Access, IoError, Namespace};
use roadstead_tcp::pdu::{H2cData, IcReq, TermReq};
use roadstead_tcp::{FatalStatus, Pdu, PduWriter, Settings};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

fn plain() -> Options {
    Options::default()
}

fn data(cntlid: u16) -> ConnectData {
    ConnectData::new([5; 16], cntlid, &nqn(SUBSYSTEM), &nqn(HOST))
}

fn parameter(offset: u16, in_data: bool) -> u64 {
    InvalidParameter { offset, in_data }.encode()
}

#[test]
fn connects_of_admin_queues() {
    let registry = registry();
    let invalid = Status::CONNECT_INVALID_PARAMETERS;
    let good = data(CNTLID_DYNAMIC);
    let unknown = ConnectData {
        subsystem_nqn: nqn("nqn.2026-11.io.roadstead:other").to_field(),
        ..good
    };
    let bad_subsystem = ConnectData {
        subsystem_nqn: [b'x'; 256],
        ..good
    };
    let bad_host = ConnectData {
        host_nqn: [0; 256],
        ..good
    };
    for (what, sqsize, data, status, result) in [
        // What is not served may be so in a moment, so the host may try again.
        (
            "unknown subsystem",
            31,
            unknown,
            invalid,
            parameter(256, true),
        ),
        (
            "subsystem's name",
            31,
            bad_subsystem,
            invalid.dnr(),
            parameter(256, true),
        ),
        (
            "host's name",
            31,
            bad_host,
            invalid.dnr(),
            parameter(512, true),
        ),
        ("no entries", 0, good, invalid.dnr(), parameter(44, false)),
        (
            "too many entries",
            128,
            good,
            invalid.dnr(),
            parameter(44, false),
        ),
        (
            "chosen controller",
            31,
            self::data(3),
            invalid.dnr(),
            parameter(16, true),
        ),
        ("nothing wrong", 127, good, Status::SUCCESS, 1),
    ] {
        let mut host = Host::initialised(&registry, plain());
        let done = host.connect_with(0, sqsize, &data);
        assert_eq!((done.status, done.result), (status, result), "{what}");
        assert_eq!(host.closed, None, "{what}");
    }
}

#[test]
fn hosts_that_are_not_allowed() {
    let registry = registry();
    let only_others = subsystem(
        hosts(&["nqn.2014-08.org.nvmexpress:uuid:b"]),
        &[(1, namespace(BLOCKS))],
    );
    registry.apply(table(&[(SUBSYSTEM, only_others)]));
    let mut host = Host::initialised(&registry, plain());
    assert_eq!(
        host.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, HOST).status,
        Status::CONNECT_INVALID_HOST
    );
    // Let in, the same connection may try again.
    registry.apply(table(&[(
        SUBSYSTEM,
        subsystem(hosts(&[HOST]), &[(1, namespace(BLOCKS))]),
    )]));
    assert_eq!(
        host.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, HOST).status,
        Status::SUCCESS
    );
}

#[test]
fn connects_of_io_queues() {
    let registry = registry();
    let admin = Host::admin(&registry, plain());
    let cntlid = registry.controllers()[0].cntlid;
    let invalid = Status::CONNECT_INVALID_PARAMETERS.dnr();
    let good = data(cntlid);
    let other_subsystem = ConnectData {
        subsystem_nqn: nqn("nqn.2026-11.io.roadstead:other").to_field(),
        ..good
    };
    let other_host = ConnectData {
        host_nqn: nqn("nqn.2026-11.io.roadstead:host").to_field(),
        ..good
    };
    let other_id = ConnectData {
        host_id: [6; 16],
        ..good
    };
    let mut kept = Vec::new();
    for (what, qid, data, status, result) in [
        (
            "unknown controller",
            1,
            self::data(cntlid + 1),
            invalid,
            parameter(16, true),
        ),
        (
            "other subsystem",
            1,
            other_subsystem,
            invalid,
            parameter(256, true),
        ),
        ("other host", 1, other_host, invalid, parameter(512, true)),
        (
            "other host identifier",
            1,
            other_id,
            invalid,
            parameter(0, true),
        ),
        (
            "queue not granted",
            129,
            good,
            invalid,
            parameter(42, false),
        ),
        ("nothing wrong", 1, good, Status::SUCCESS, u64::from(cntlid)),
        ("queue exists", 1, good, Status::COMMAND_SEQUENCE.dnr(), 0),
    ] {
        let mut host = Host::initialised(&registry, plain());
        let done = host.connect_with(qid, 31, &data);
        assert_eq!((done.status, done.result), (status, result), "{what}");
        kept.push(host);
    }
    // Without the connection the queue is free again.
    drop(kept);
    drop(admin.io(1, cntlid));
    drop(admin);
    let mut host = Host::initialised(&registry, plain());
    assert_eq!(host.connect_with(1, 31, &good).status, invalid);
}

#[test]
fn io_queues_of_controllers_that_are_not_enabled_or_do_discovery() {
    let registry = registry();
    let mut admin = Host::initialised(&registry, plain());
    let cntlid = admin.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, HOST).result;
    let mut host = Host::initialised(&registry, plain());
    let done = host.connect_with(1, 31, &data(u16::try_from(cntlid).unwrap()));
    assert_eq!(done.status, Status::COMMAND_SEQUENCE.dnr());

    let discovery = roadstead_nvme::nqn::DISCOVERY;
    let mut admin = Host::initialised(&registry, plain());
    let cntlid = u16::try_from(admin.connect(0, CNTLID_DYNAMIC, discovery, HOST).result).unwrap();
    admin.enable();
    let data = ConnectData::new([5; 16], cntlid, &nqn(discovery), &nqn(HOST));
    let mut host = Host::initialised(&registry, plain());
    assert_eq!(
        host.connect_with(1, 31, &data).status,
        Status::CONNECT_INVALID_PARAMETERS.dnr()
    );
}

#[test]
fn first_commands_that_are_no_connect() {
    let registry = registry();
    let mut host = Host::initialised(&registry, plain());
    let sequence = Status::COMMAND_SEQUENCE.dnr();
    assert_eq!(host.run_admin(AdminCommand::KeepAlive).status, sequence);
    let get = FabricsCommand::PropertyGet {
        offset: 0,
        wide: true,
    };
    assert_eq!(host.fabrics(get).status, sequence);
    assert_eq!(host.read(0, 1).status, sequence);
    let connect = Connect {
        qid: 0,
        sqsize: 31,
        attributes: 0,
        kato_ms: 0,
    };
    let mut sqe = FabricsCommand::Connect(connect).encode(0);
    assert_eq!(
        host.run(sqe, &[0; 512]).status,
        Status::SGL_LENGTH_INVALID.dnr()
    );
    sqe.cdw10 = U32::new(1);
    assert_eq!(
        host.run(sqe, &[0; 1024]).status,
        Status::CONNECT_INCOMPATIBLE_FORMAT.dnr()
    );
    // Data of Connect by R2T works too.
    host.options.in_capsule = 0;
    assert_eq!(
        host.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, HOST).status,
        Status::SUCCESS
    );
    assert_eq!(
        host.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, HOST).status,
        sequence
    );
}

fn page(id: u8, offset: u64, length: u64) -> AdminCommand {
    AdminCommand::GetLogPage(GetLogPage {
        id,
        parameter: 0,
        retain_event: false,
        length,
        offset,
        nsid: NSID_ALL,
    })
}

#[test]
fn admin_commands() {
    let registry = registry();
    let mut host = Host::initialised(&registry, plain());
    host.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, HOST);
    assert_eq!(
        host.run_admin(AdminCommand::KeepAlive).status,
        Status::COMMAND_SEQUENCE.dnr()
    );
    host.enable();
    assert_eq!(
        host.run_admin(AdminCommand::KeepAlive).status,
        Status::SUCCESS
    );

    let identify = |cns, nsid, command_set| AdminCommand::Identify {
        cns,
        cntlid: 0,
        nsid,
        command_set,
    };
    let set = |id, value| AdminCommand::SetFeatures {
        id,
        save: false,
        nsid: 0,
        value,
    };
    let get = |id| AdminCommand::GetFeatures {
        id,
        select: Select::Current,
        nsid: 0,
        value: 0,
    };
    let save = AdminCommand::SetFeatures {
        id: feature::id::KEEP_ALIVE_TIMER,
        save: true,
        nsid: 0,
        value: 1,
    };
    let of_namespace = AdminCommand::GetLogPage(GetLogPage {
        id: log::id::HEALTH,
        parameter: 0,
        retain_event: false,
        length: 512,
        offset: 0,
        nsid: 1,
    });
    let field = Status::INVALID_FIELD.dnr();
    let nsid = Status::INVALID_NAMESPACE.dnr();
    for (command, status) in [
        (identify(0x33, 0, 0), field),
        (identify(cns::NAMESPACE, 0, 0), nsid),
        (identify(cns::NAMESPACE, NSID_ALL, 0), nsid),
        (identify(cns::NAMESPACE, 2, 0), Status::SUCCESS),
        (identify(cns::NAMESPACE_DESCRIPTORS, 2, 0), nsid),
        (identify(cns::ACTIVE_NAMESPACES, NSID_ALL, 0), nsid),
        (identify(cns::ACTIVE_NAMESPACES, NSID_ALL - 1, 0), nsid),
        (identify(cns::COMMAND_SET_NAMESPACE, 1, 2), field),
        (identify(cns::COMMAND_SET_NAMESPACE, 2, 0), nsid),
        (identify(cns::COMMAND_SET_NAMESPACE, 1, 0), Status::SUCCESS),
        (identify(cns::COMMAND_SET_CONTROLLER, 0, 1), field),
        (identify(cns::COMMAND_SET_CONTROLLER, 0, 0), Status::SUCCESS),
        (identify(cns::COMMAND_SET_ACTIVE_NAMESPACES, 0, 2), field),
        (identify(cns::INDEPENDENT_NAMESPACE, 1, 0), Status::SUCCESS),
        (identify(cns::INDEPENDENT_NAMESPACE, 3, 0), nsid),
        (identify(cns::COMMAND_SETS, 0, 0), Status::SUCCESS),
        (page(0x77, 0, 512), Status::INVALID_LOG_PAGE.dnr()),
        (
            page(log::id::DISCOVERY, 0, 1024),
            Status::INVALID_LOG_PAGE.dnr(),
        ),
        (page(log::id::HEALTH, 516, 4), field),
        (page(log::id::HEALTH, 512, 4), Status::SUCCESS),
        (page(log::id::HEALTH, 1 << 40, 4), field),
        (page(log::id::HEALTH, 0, (1 << 20) + 4), field),
        (page(log::id::EFFECTS, 0, 4096), Status::SUCCESS),
        (page(log::id::FIRMWARE_SLOTS, 0, 512), Status::SUCCESS),
        (page(log::id::ERRORS, 0, 64), Status::SUCCESS),
        (of_namespace, field),
        (get(0x7f), field),
        (
            get(feature::id::HOST_IDENTIFIER),
            Status::HOST_ID_INCONSISTENT.dnr(),
        ),
        (set(0x7f, 0), field),
        (
            set(feature::id::HOST_IDENTIFIER, 1),
            Status::COMMAND_SEQUENCE.dnr(),
        ),
        (
            set(feature::id::VOLATILE_WRITE_CACHE, 0),
            Status::FEATURE_NOT_CHANGEABLE.dnr(),
        ),
        (set(feature::id::VOLATILE_WRITE_CACHE, 1), Status::SUCCESS),
        (
            set(feature::id::ARBITRATION, 0),
            Status::FEATURE_NOT_CHANGEABLE.dnr(),
        ),
        (set(feature::id::NUMBER_OF_QUEUES, 0xffff), field),
        (save, Status::FEATURE_NOT_SAVEABLE.dnr()),
    ] {
        assert_eq!(host.run_admin(command).status, status, "{command:?}");
    }
    let mut unknown = AdminCommand::KeepAlive.encode(0);
    unknown.opcode = 0x10;
    assert_eq!(host.run(unknown, &[]).status, Status::INVALID_OPCODE.dnr());
}

#[test]
fn admin_data_lengths() {
    let registry = registry();
    let mut host = Host::admin(&registry, plain());
    let identify = AdminCommand::Identify {
        cns: cns::CONTROLLER,
        cntlid: 0,
        nsid: 0,
        command_set: 0,
    };
    let mut sqe = identify.encode(0);
    sqe.dptr = DataPointer::Transport { length: 2048 }.encode();
    assert_eq!(host.run(sqe, &[]).status, Status::SGL_LENGTH_INVALID.dnr());
    // Data to the host cannot go in the command's capsule.
    let sqe = identify.encode(0);
    assert_eq!(
        host.run(sqe, &[0; 4096]).status,
        Status::SGL_TYPE_INVALID.dnr()
    );
    assert_eq!(host.run_admin(identify).status, Status::SUCCESS);
}

#[test]
fn properties() {
    let registry = registry();
    let mut host = Host::admin(&registry, plain());
    let field = Status::INVALID_FIELD.dnr();
    let set = |value: u32| FabricsCommand::PropertySet {
        offset: property::CC,
        wide: false,
        value: u64::from(value),
    };
    let enabled = Configuration::enabled().0;
    for (command, status) in [
        (
            FabricsCommand::PropertyGet {
                offset: property::CAP,
                wide: false,
            },
            field,
        ),
        (
            FabricsCommand::PropertyGet {
                offset: property::CSTS,
                wide: true,
            },
            field,
        ),
        (
            FabricsCommand::PropertyGet {
                offset: 0x99,
                wide: false,
            },
            field,
        ),
        (
            FabricsCommand::PropertySet {
                offset: property::CSTS,
                wide: false,
                value: 1,
            },
            field,
        ),
        (
            FabricsCommand::PropertySet {
                offset: property::CC,
                wide: true,
                value: 1,
            },
            field,
        ),
        (set(enabled | 6 << 4), field),
        (set(enabled | 1 << 7), field),
        (set(enabled ^ 1 << 16), field),
        (FabricsCommand::Disconnect, Status::INVALID_OPCODE.dnr()),
        (set(enabled), Status::SUCCESS),
    ] {
        assert_eq!(host.fabrics(command).status, status, "{command:?}");
    }
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
            "compare",
            io(
                IoCommand::Compare {
                    nsid: 1,
                    blocks: Blocks { start: 0, count: 1 },
                },
                512,
            ),
            Status::INVALID_OPCODE.dnr(),
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

#[test]
fn pointers_that_do_not_fit_the_capsule() {
    let registry = registry();
    let (_admin, mut host) = Host::pair(&registry, plain());
    let write = IoCommand::Write {
        nsid: 1,
        blocks: Blocks { start: 0, count: 1 },
        fua: false,
    };
    let with = |pointer: DataPointer| {
        let mut sqe = write.encode(7);
        sqe.dptr = pointer.encode();
        sqe
    };
    let mut foreign = write.encode(7);
    foreign.dptr.identifier = 0x40;
    foreign.dptr.length = U32::new(512);
    for (sqe, data_length, status) in [
        (
            with(DataPointer::InCapsule {
                offset: 4,
                length: 512,
            }),
            512,
            Status::SGL_OFFSET_INVALID,
        ),
        (
            with(DataPointer::InCapsule {
                offset: 0,
                length: 512,
            }),
            508,
            Status::SGL_LENGTH_INVALID,
        ),
        (
            with(DataPointer::InCapsule {
                offset: 0,
                length: 512,
            }),
            0,
            Status::SGL_LENGTH_INVALID,
        ),
        (
            with(DataPointer::Transport { length: 512 }),
            512,
            Status::SGL_LENGTH_INVALID,
        ),
        (foreign, 512, Status::SGL_TYPE_INVALID),
        (
            with(DataPointer::InCapsule {
                offset: 0,
                length: 512,
            }),
            512,
            Status::SUCCESS,
        ),
    ] {
        let bytes = vec![3; usize::try_from(data_length).unwrap()];
        host.send(&Pdu::CapsuleCmd { sqe, data_length }, &bytes);
        host.settle();
        let done = host.done.pop_front().unwrap();
        assert_eq!(done.status.code(), status.code());
        assert_eq!(done.status.is_dnr(), status != Status::SUCCESS);
    }
}

/// A host whose write of 2 blocks waits for data, and the tag of its transfer.
fn asked() -> (Host, Host, u16, u16) {
    let registry = registry();
    let (admin, mut host) = Host::pair(
        &registry,
        Options {
            in_capsule: 0,
            ..plain()
        },
    );
    host.deaf = true;
    let write = IoCommand::Write {
        nsid: 1,
        blocks: Blocks { start: 0, count: 2 },
        fua: false,
    };
    let cid = host.start(write.encode(0), &[1; 1024]);
    let tag = u16::from_le_bytes([host.wire.bytes[10], host.wire.bytes[11]]);
    assert_eq!(host.wire.bytes[0], 9, "R2T");
    (admin, host, cid, tag)
}

#[test]
fn data_that_was_not_asked_for() {
    let field = FatalStatus::INVALID_HEADER_FIELD;
    let range = FatalStatus::DATA_OUT_OF_RANGE;
    type Change = fn(&mut H2cData);
    let rows: [(&str, Change, FatalStatus, u32); 6] = [
        ("tag", |data| data.tag += 1, field, 10),
        ("command", |data| data.cid += 1, field, 8),
        ("gap", |data| data.offset = 4, range, 12),
        ("too much", |data| data.length = 1028, range, 16),
        ("end too early", |data| data.length = 512, field, 1),
        ("tag that cannot be", |data| data.tag = 0xffff, field, 10),
    ];
    for (what, change, status, information) in rows {
        let (_admin, mut host, cid, tag) = asked();
        let mut data = H2cData {
            cid,
            tag,
            offset: 0,
            length: 1024,
            last: true,
        };
        change(&mut data);
        host.send(
            &Pdu::H2cData(data),
            &vec![1; usize::try_from(data.length).unwrap()],
        );
        let Some(Close::Protocol(fatal)) = &host.closed else {
            panic!("{what}: {:?}", host.closed);
        };
        assert_eq!(
            (fatal.status, fatal.information),
            (status, information),
            "{what}"
        );
        let mut head = [0; PduWriter::HEAD_MAX];
        let length = PduWriter::new(Settings::default()).head(&Pdu::H2cData(data), &mut head);
        assert_eq!(fatal.head, head[..length], "{what}");
        assert!(host.memory.requests.is_empty(), "{what}");
    }
    // Data once more, after it was whole.
    let (_admin, mut host, cid, tag) = asked();
    let data = H2cData {
        cid,
        tag,
        offset: 0,
        length: 1024,
        last: true,
    };
    host.send(&Pdu::H2cData(data), &[1; 1024]);
    assert_eq!((host.memory.requests.len(), &host.closed), (1, &None));
    host.send(&Pdu::H2cData(data), &[1; 1024]);
    assert!(matches!(&host.closed, Some(Close::Protocol(fatal)) if fatal.status == field));
}

#[test]
fn wrong_data_digests_fail_the_command_alone() {
    for (in_capsule, immediate) in [(0, false), (8192, false), (8192, true)] {
        let registry = registry();
        let options = Options {
            in_capsule,
            immediate,
            data_digest: true,
            ..plain()
        };
        let (_admin, mut host) = Host::pair(&registry, options);
        host.deaf = in_capsule == 0;
        let write = IoCommand::Write {
            nsid: 1,
            blocks: Blocks { start: 0, count: 1 },
            fua: false,
        };
        let settings = Settings {
            data_digest: true,
            ..Settings::default()
        };
        let mut head = [0; PduWriter::HEAD_MAX];
        let mut bytes = Vec::new();
        if in_capsule == 0 {
            let cid = host.start(write.encode(0), &[1; 512]);
            let tag = u16::from_le_bytes([host.wire.bytes[10], host.wire.bytes[11]]);
            let data = H2cData {
                cid,
                tag,
                offset: 0,
                length: 512,
                last: true,
            };
            let length = PduWriter::new(settings).head(&Pdu::H2cData(data), &mut head);
            bytes.extend(&head[..length]);
        } else {
            let mut sqe = write.encode(1);
            sqe.dptr = DataPointer::InCapsule {
                offset: 0,
                length: 512,
            }
            .encode();
            let length = PduWriter::new(settings).head(
                &Pdu::CapsuleCmd {
                    sqe,
                    data_length: 512,
                },
                &mut head,
            );
            bytes.extend(&head[..length]);
        }
        bytes.extend([1; 512]);
        bytes.extend([0xba, 0xdd, 0xba, 0xdd]);
        host.deaf = false;
        host.wire.bytes.clear();
        host.send_bytes(&bytes);
        host.settle();
        assert_eq!(
            host.done.pop_front().unwrap().status,
            Status::TRANSIENT_TRANSPORT
        );
        assert!(
            host.memory
                .bytes
                .values()
                .all(|bytes| bytes.iter().all(|byte| *byte == 0))
        );
        assert_eq!(host.write(0, &[1; 512]).status, Status::SUCCESS);
    }
}

#[test]
fn more_commands_than_entries() {
    let registry = registry();
    let (_admin, mut host) = Host::pair(
        &registry,
        Options {
            entries: 4,
            ..plain()
        },
    );
    let flush = IoCommand::Flush { nsid: 1 }.encode(0);
    for _ in 0..4 {
        host.start(flush, &[]);
    }
    assert_eq!((host.connection.in_flight(), &host.closed), (4, &None));
    host.start(flush, &[]);
    assert!(
        matches!(&host.closed, Some(Close::Protocol(fatal)) if fatal.status == FatalStatus::SEQUENCE)
    );
    // It stays closed.
    host.closed = None;
    host.send_bytes(&[0; 8]);
    assert_eq!(host.closed, Some(Close::Closed));
}

#[test]
fn initialisation() {
    let registry = registry();
    let mut host = Host::raw(&registry, plain());
    host.send(
        &Pdu::IcReq(IcReq {
            version: 1,
            alignment: 0,
            header_digest: false,
            data_digest: false,
            max_r2t: 1,
        }),
        &[],
    );
    let Some(Close::Protocol(fatal)) = &host.closed else {
        panic!("{:?}", host.closed);
    };
    assert_eq!(
        (fatal.status, fatal.information),
        (FatalStatus::UNSUPPORTED_PARAMETER, 8)
    );
    assert_eq!(fatal.head.len(), 128);

    let mut host = Host::initialised(&registry, plain());
    let term = TermReq {
        status: FatalStatus::HEADER_DIGEST,
        information: 5,
    };
    host.send(&Pdu::H2cTermReq(term), &[]);
    assert_eq!(host.closed, Some(Close::Host(term)));
    assert_eq!(host.wire.bytes, []);
}

#[test]
fn time_outs() {
    let registry = registry();
    let mut host = Host::initialised(&registry, plain());
    host.now_ms = 10_000;
    host.tick();
    assert_eq!(host.closed, None);
    host.now_ms = 10_001;
    host.tick();
    assert_eq!(host.closed, Some(Close::ConnectTimeout));

    let (_admin, mut host, _, _) = asked();
    host.now_ms = 60_000;
    host.tick();
    assert_eq!(host.closed, None);
    host.now_ms = 60_001;
    host.tick();
    assert_eq!(host.closed, Some(Close::DataTimeout));
}

#[test]
fn completions_of_unknown_tags_are_ignored() {
    let registry = registry();
    let mut connection: Connection<Vec<u8>> = Connection::new(registry, local(), 0);
    let mut memory = common::Memory::new(BLOCK);
    let mut wire = common::Wire::default();
    let mut turn = roadstead_target::tcp::Turn {
        rim: &mut memory,
        out: &mut wire,
        now_ms: 0,
    };
    connection.complete(roadstead_target::Tag(9), Ok(()), None, &mut turn);
    assert_eq!(connection.in_flight(), 0);
    assert!(wire.bytes.is_empty());
}
