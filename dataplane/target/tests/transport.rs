//! What a host can do wrong below commands: every refusal, with its status or fatal error.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;

use common::{BLOCK, Host, Options, local, registry};
use roadstead_nvme::command::Blocks;
use roadstead_nvme::{DataPointer, IoCommand, Status};
use roadstead_target::tcp::{Close, Connection};
use roadstead_tcp::pdu::{H2cData, IcReq, TermReq};
use roadstead_tcp::{FatalStatus, Pdu, PduWriter, Settings};
use zerocopy::little_endian::U32;

fn plain() -> Options {
    Options::default()
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
    let (cid, tag) = host.write_asked_for(2);
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
        ("gap", |data| data.offset = 4, range, 0),
        ("too much", |data| data.length = 1028, range, 0),
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
    let mut turn = roadstead_target::Turn {
        rim: &mut memory,
        out: &mut wire,
        now_ms: 0,
    };
    connection.complete(roadstead_target::Tag(9), Ok(()), None, &mut turn);
    assert_eq!(connection.in_flight(), 0);
    assert!(wire.bytes.is_empty());
}
