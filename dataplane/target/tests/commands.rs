//! Compare, fused pairs, Verify, Copy and zeroes of everything.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;

use common::{BLOCK, BLOCKS, Host, Options, registry};
use roadstead_nvme::command::{Blocks, CopyRange, NSID_ALL};
use roadstead_nvme::{DataPointer, IoCommand, Sqe, Status};
use roadstead_target::{IoError, IoOp, limits};
use roadstead_tcp::pdu::H2cData;
use roadstead_tcp::{Pdu, PduWriter, Settings};
use zerocopy::IntoBytes;

const FAILED: Status = Status::ABORTED_FAILED_FUSED.dnr();
const MISSING: Status = Status::ABORTED_MISSING_FUSED.dnr();

fn blocks(start: u64, count: u32) -> Blocks {
    Blocks { start, count }
}

fn compare(start: u64, count: u32) -> Sqe {
    IoCommand::Compare {
        nsid: 1,
        blocks: blocks(start, count),
        fua: false,
    }
    .encode(0)
}

fn write(start: u64, count: u32) -> Sqe {
    IoCommand::Write {
        nsid: 1,
        blocks: blocks(start, count),
        fua: false,
    }
    .encode(0)
}

fn fused(mut sqe: Sqe, flag: u8) -> Sqe {
    sqe.flags |= flag;
    sqe
}

fn first(start: u64, count: u32) -> Sqe {
    fused(compare(start, count), Sqe::FLAGS_FUSE_FIRST)
}

fn second(start: u64, count: u32) -> Sqe {
    fused(write(start, count), Sqe::FLAGS_FUSE_SECOND)
}

/// Every way in which data may come.
fn ways() -> Vec<Options> {
    let mut ways = Vec::new();
    for in_capsule in [0, 8192] {
        for immediate in [false, true] {
            for chunk in [usize::MAX, 100] {
                ways.push(Options {
                    in_capsule,
                    immediate,
                    chunk,
                    ..Options::default()
                });
            }
        }
    }
    ways
}

fn status(host: &mut Host, cid: u16) -> Status {
    let index = host.done.iter().position(|done| done.cid == cid).unwrap();
    host.done.remove(index).unwrap().status
}

#[test]
fn compare_compares() {
    for options in ways() {
        let registry = registry();
        let (_admin, mut host) = Host::pair(&registry, options);
        assert_eq!(host.write(3, &[7; 1024]).status, Status::SUCCESS);
        assert_eq!(host.run(compare(3, 2), &[7; 1024]).status, Status::SUCCESS);
        let mut other = [7; 1024];
        other[1023] = 6;
        let failure = Status::COMPARE_FAILURE.dnr();
        assert_eq!(host.run(compare(3, 2), &other).status, failure);
        host.memory.failure = Some(IoError::Read);
        assert_eq!(
            host.run(compare(3, 2), &[7; 1024]).status,
            Status::UNRECOVERED_READ
        );
        let range = Status::LBA_OUT_OF_RANGE.dnr();
        assert_eq!(host.run(compare(BLOCKS, 1), &[7; 512]).status, range);
        let length = Status::SGL_LENGTH_INVALID.dnr();
        assert_eq!(host.run(compare(3, 2), &[7; 512]).status, length);
        assert_eq!(host.connection.in_flight(), 0);
    }
}

#[test]
fn a_fused_pair_writes_when_it_compares_equal() {
    for options in ways() {
        let registry = registry();
        let (_admin, mut host) = Host::pair(&registry, options);
        let mut pair = |expected: u8, new: u8| {
            let one = host.start(first(9, 1), &[expected; 512]);
            let two = host.start(second(9, 1), &[new; 512]);
            host.settle();
            let order: Vec<u16> = host.done.iter().map(|done| done.cid).collect();
            assert_eq!(order, [one, two], "{options:?}");
            let ends = (status(&mut host, one), status(&mut host, two));
            (ends, host.read(9, 1).data[0])
        };
        let good = (Status::SUCCESS, Status::SUCCESS);
        assert_eq!(pair(0, 1), (good, 1));
        assert_eq!(pair(1, 2), (good, 2));
        let bad = (Status::COMPARE_FAILURE.dnr(), FAILED);
        assert_eq!(pair(1, 3), (bad, 2));
        assert_eq!(host.connection.in_flight(), 0);
    }
}

#[test]
fn half_pairs_have_their_status() {
    for options in ways() {
        let registry = registry();
        let (_admin, mut host) = Host::pair(&registry, options);
        let unit = Status::ATOMIC_WRITE_UNIT_EXCEEDED.dnr();
        let range = Status::LBA_OUT_OF_RANGE.dnr();
        let invalid = Status::INVALID_FIELD.dnr();
        let good = Status::SUCCESS;
        for (what, one, two, ends) in [
            ("no second", first(9, 1), write(20, 1), (MISSING, good)),
            ("no first", write(20, 1), second(9, 1), (good, MISSING)),
            ("two firsts", first(9, 1), first(9, 1), (MISSING, MISSING)),
            ("too long", first(9, 2), second(9, 2), (unit, unit)),
            ("bad first", first(BLOCKS, 1), second(9, 1), (range, FAILED)),
            (
                "bad second",
                first(9, 1),
                second(BLOCKS, 1),
                (FAILED, range),
            ),
            ("elsewhere", first(9, 1), second(10, 1), (invalid, invalid)),
            (
                "a write first",
                fused(write(9, 1), Sqe::FLAGS_FUSE_FIRST),
                second(9, 1),
                (invalid, FAILED),
            ),
        ] {
            let data = |sqe: &Sqe| vec![0; 512 * (usize::from(sqe.cdw12_low()) + 1)];
            let one = host.start(one, &data(&one));
            let two = host.start(two, &data(&two));
            // Ends what is open.
            let flush = IoCommand::Flush { nsid: 1 }.encode(0);
            assert_eq!(host.run(flush, &[]).status, good);
            assert_eq!(
                (status(&mut host, one), status(&mut host, two)),
                ends,
                "{what} {options:?}"
            );
        }
        assert_eq!(host.connection.in_flight(), 0);
        assert!(
            !host
                .memory
                .requests
                .iter()
                .any(|request| matches!(request.op, IoOp::CompareAndWrite { .. })),
            "no half does anything"
        );
    }
}

#[test]
fn a_half_whose_pointer_is_wrong_fails_both() {
    let registry = registry();
    let (_admin, mut host) = Host::pair(&registry, Options::default());
    let mut wrong = second(9, 1);
    wrong.cid = 77.into();
    wrong.dptr = DataPointer::InCapsule {
        offset: 4,
        length: 512,
    }
    .encode();
    let one = host.start(first(9, 1), &[0; 512]);
    let pdu = Pdu::CapsuleCmd {
        sqe: wrong,
        data_length: 512,
    };
    host.send(&pdu, &[0; 512]);
    host.settle();
    let offset = Status::SGL_OFFSET_INVALID.dnr();
    assert_eq!(
        (status(&mut host, one), status(&mut host, 77)),
        (FAILED, offset)
    );
}

#[test]
fn a_half_whose_data_is_damaged_fails_both() {
    let registry = registry();
    let options = Options {
        data_digest: true,
        ..Options::default()
    };
    let (_admin, mut host) = Host::pair(&registry, options);
    let one = host.start(first(9, 1), &[0; 512]);
    let mut two = second(9, 1);
    two.cid = 77.into();
    two.dptr = DataPointer::InCapsule {
        offset: 0,
        length: 512,
    }
    .encode();
    let mut head = [0; PduWriter::HEAD_MAX];
    let pdu = Pdu::CapsuleCmd {
        sqe: two,
        data_length: 512,
    };
    let settings = Settings {
        data_digest: true,
        ..Settings::default()
    };
    let length = PduWriter::new(settings).head(&pdu, &mut head);
    let mut bytes = head[..length].to_vec();
    bytes.extend([0; 512]);
    bytes.extend([0xba, 0xdd, 0xba, 0xdd]);
    host.send_bytes(&bytes);
    host.settle();
    assert_eq!(status(&mut host, 77), Status::TRANSIENT_TRANSPORT);
    assert_eq!(status(&mut host, one), FAILED);
    assert_eq!(host.write(9, &[0; 512]).status, Status::SUCCESS);
}

#[test]
fn pairs_whose_data_comes_in_any_order() {
    let registry = registry();
    let options = Options {
        in_capsule: 0,
        ..Options::default()
    };
    let (_admin, mut host) = Host::pair(&registry, options);
    host.deaf = true;
    let cids = [
        host.start(first(1, 1), &[0; 512]),
        host.start(second(1, 1), &[1; 512]),
        host.start(first(2, 1), &[0; 512]),
        host.start(second(2, 1), &[2; 512]),
    ];
    let r2ts: Vec<u8> = std::mem::take(&mut host.wire.bytes);
    let tags: Vec<u16> = r2ts
        .chunks(24)
        .map(|r2t| u16::from_le_bytes([r2t[10], r2t[11]]))
        .collect();
    for index in [3, 0, 2, 1] {
        let pdu = Pdu::H2cData(H2cData {
            cid: cids[index],
            tag: tags[index],
            offset: 0,
            length: 512,
            last: true,
        });
        let fill = [0, 1, 0, 2][index];
        host.send(&pdu, &[fill; 512]);
    }
    host.deaf = false;
    host.settle();
    for cid in cids {
        assert_eq!(status(&mut host, cid), Status::SUCCESS);
    }
    assert_eq!(host.read(1, 1).data[0], 1);
    assert_eq!(host.read(2, 1).data[0], 2);
}

#[test]
fn verify_reads_nothing_to_the_host() {
    let registry = registry();
    let (_admin, mut host) = Host::pair(&registry, Options::default());
    let verify = |start, count| {
        IoCommand::Verify {
            nsid: 1,
            blocks: blocks(start, count),
            fua: true,
        }
        .encode(0)
    };
    let done = host.run(verify(0, 8192), &[]);
    assert_eq!((done.status, done.data.len()), (Status::SUCCESS, 0));
    assert!(host.memory.requests[0].fua);
    host.memory.failure = Some(IoError::Read);
    assert_eq!(host.run(verify(0, 1), &[]).status, Status::UNRECOVERED_READ);
    let range = Status::LBA_OUT_OF_RANGE.dnr();
    assert_eq!(host.run(verify(BLOCKS - 1, 2), &[]).status, range);
}

#[test]
fn zeroes_of_everything() {
    let registry = registry();
    let (_admin, mut host) = Host::pair(&registry, Options::default());
    assert_eq!(host.write(0, &[1; 4096]).status, Status::SUCCESS);
    let zeroes = IoCommand::WriteZeroes {
        nsid: 1,
        blocks: blocks(u64::MAX, 65536),
        fua: false,
        deallocate: true,
        all: true,
    };
    assert_eq!(host.run(zeroes.encode(0), &[]).status, Status::SUCCESS);
    assert_eq!(host.read(0, 8).data, [0; 4096]);
}

/// A Copy and its ranges.
fn copy(start: u64, sources: &[(u64, u32)]) -> (Sqe, Vec<u8>) {
    let ranges = u16::try_from(sources.len()).unwrap();
    let command = IoCommand::Copy {
        nsid: 1,
        start,
        ranges,
        format: 0,
        fua: false,
    };
    let ranges: Vec<CopyRange> = sources
        .iter()
        .map(|(start, count)| CopyRange::new(*start, *count))
        .collect();
    (command.encode(0), ranges.as_slice().as_bytes().to_vec())
}

#[test]
fn copy_puts_ranges_one_behind_the_other() {
    for options in ways() {
        let registry = registry();
        let (_admin, mut host) = Host::pair(&registry, options);
        for block in 0..8 {
            let data = [u8::try_from(block).unwrap() + 1; 512];
            assert_eq!(host.write(block, &data).status, Status::SUCCESS);
        }
        let (sqe, data) = copy(100, &[(6, 2), (0, 1), (0, 1), (200, 1)]);
        assert_eq!(host.run(sqe, &data).status, Status::SUCCESS);
        let copied = host.read(99, 7).data;
        let firsts: Vec<u8> = copied.iter().step_by(512).copied().collect();
        assert_eq!(firsts, [0, 7, 8, 1, 1, 0, 0]);
    }
}

#[test]
fn copies_that_are_refused() {
    let registry = registry();
    let (_admin, mut host) = Host::pair(&registry, Options::default());
    let range = Status::LBA_OUT_OF_RANGE.dnr();
    let limit = Status::COMMAND_SIZE_LIMIT.dnr();
    let overlap = Status::OVERLAPPING_RANGE.dnr();
    let longest = limits::COPY_RANGE_BYTES_MAX / u32::try_from(BLOCK).unwrap();
    assert!(u64::from(longest) <= BLOCKS);
    for (what, start, sources, status) in [
        ("source over the end", 0, vec![(BLOCKS - 1, 2)], range),
        ("target over the end", BLOCKS - 1, vec![(0, 2)], range),
        ("overflow", u64::MAX, vec![(0, 1)], range),
        ("source too long", 0, vec![(0, longest + 1)], limit),
        ("all too long", 0, vec![(0, longest); 3], limit),
        ("overlap behind", 4, vec![(9, 1), (0, 5)], overlap),
        ("overlap before", 0, vec![(4, 5)], overlap),
        ("side by side", 5, vec![(0, 5)], Status::SUCCESS),
        ("many ranges", 500, vec![(0, 1); 128], Status::SUCCESS),
        ("too many ranges", 500, vec![(0, 1); 129], limit),
    ] {
        let (sqe, data) = copy(start, &sources);
        assert_eq!(host.run(sqe, &data).status, status, "{what}");
    }
    let (sqe, data) = copy(100, &[(0, 1), (0, 1)]);
    let length = Status::SGL_LENGTH_INVALID.dnr();
    assert_eq!(host.run(sqe, &data[..32]).status, length);
    for format in 1..16_u32 {
        let mut sqe = sqe;
        sqe.cdw12 = (sqe.cdw12.get() | format << 8).into();
        assert_eq!(host.run(sqe, &data).status, Status::INVALID_FIELD.dnr());
    }
    let mut sqe = sqe;
    sqe.nsid = NSID_ALL.into();
    assert_eq!(host.run(sqe, &data).status, Status::INVALID_NAMESPACE.dnr());
}

#[test]
fn identifiers_in_use_are_a_conflict() {
    let registry = registry();
    let (_admin, mut host) = Host::pair(&registry, Options::default());
    let mut flush = IoCommand::Flush { nsid: 1 }.encode(9);
    let pdu = |sqe| Pdu::CapsuleCmd {
        sqe,
        data_length: 0,
    };
    host.send(&pdu(flush), &[]);
    assert_eq!(host.done.len(), 0);
    host.send(&pdu(flush), &[]);
    let done = host.done.pop_front().unwrap();
    assert_eq!(done.status, Status::COMMAND_ID_CONFLICT.dnr());
    assert_eq!(host.connection.in_flight(), 1);
    // The same low byte is no conflict.
    flush.cid = 0x0109.into();
    host.send(&pdu(flush), &[]);
    host.settle();
    let cids: Vec<u16> = host.done.iter().map(|done| done.cid).collect();
    assert_eq!(cids, [9, 0x0109]);
    host.send(&pdu(flush), &[]);
    host.settle();
    assert_eq!(host.done.len(), 3, "an identifier can be used again");
}
