//! Commands of several steps on real drives.

use std::net::SocketAddr;

use roadstead_nvme::command::{Blocks, CopyRange};
use roadstead_nvme::{IoCommand, Sqe, Status};
use zerocopy::IntoBytes;

use super::host::{Host, Options};
use super::{EXTENT_BYTES, Fixture, Kind, NQN, Numbers, Setup, VOLUME_BYTES};

const BLOCK: u32 = 4096;
const KINDS: [Kind; 2] = [Kind::Memory, Kind::File];

fn fixture(kind: Kind) -> Fixture {
    Fixture::start(&Setup {
        kind,
        reactors: 2,
        ..Setup::default()
    })
}

fn blocks(start: u64, count: u32) -> Blocks {
    Blocks { start, count }
}

fn compare(start: u64, count: u32, fua: bool) -> Sqe {
    let blocks = blocks(start, count);
    IoCommand::Compare {
        nsid: 1,
        blocks,
        fua,
    }
    .encode(0)
}

fn copy(queue: &mut Host, start: u64, sources: &[(u64, u32)], fua: bool) -> Status {
    let command = IoCommand::Copy {
        nsid: 1,
        start,
        ranges: u16::try_from(sources.len()).unwrap(),
        format: 0,
        fua,
    };
    let ranges: Vec<CopyRange> = sources
        .iter()
        .map(|(start, count)| CopyRange::new(*start, *count))
        .collect();
    queue
        .run(command.encode(0), ranges.as_slice().as_bytes())
        .status
}

#[test]
fn compare_sees_every_byte() {
    for kind in KINDS {
        let fixture = fixture(kind);
        let (_admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
        // Written blocks and holes, over many pieces.
        let data = Numbers(3).bytes(700 << 10);
        assert_eq!(queue.write(20, &data, 4096, false), Status::SUCCESS);
        let mut expected = vec![0; 1 << 20];
        expected[20 << 12..][..700 << 10].copy_from_slice(&data);
        for fua in [false, true] {
            let done = queue.run(compare(0, 256, fua), &expected);
            assert_eq!(done.status, Status::SUCCESS);
        }
        for at in [0, 20 << 12, (1 << 20) - 1, 65535, 65536] {
            let mut other = expected.clone();
            other[at] ^= 1;
            let done = queue.run(compare(0, 256, false), &other);
            assert_eq!(done.status, Status::COMPARE_FAILURE.dnr(), "byte {at}");
        }
        assert_eq!(fixture.server.counters(fixture.volume).errors, 0);
    }
}

#[test]
fn many_compares_at_once_with_few_buffers() {
    for kind in KINDS {
        let fixture = Fixture::start(&Setup {
            kind,
            buf_limit_bytes: 3 << 20,
            ..Setup::default()
        });
        let (_admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
        let data = Numbers(5).bytes(1 << 20);
        assert_eq!(queue.write(0, &data, 4096, false), Status::SUCCESS);
        let compares: Vec<u16> = (0..12)
            .map(|_| queue.start(compare(0, 256, false), &data))
            .collect();
        for cid in compares {
            assert_eq!(queue.wait(cid).unwrap().status, Status::SUCCESS);
        }
    }
}

/// One attempt to replace a block's number by the next one.
fn count_up(queue: &mut Host, from: u64) -> Status {
    let block = |value: u64| {
        let mut block = vec![0; 4096];
        block[..8].copy_from_slice(&value.to_le_bytes());
        block[4088..].copy_from_slice(&value.to_le_bytes());
        block
    };
    let mut one = compare(5, 1, false);
    one.flags |= Sqe::FLAGS_FUSE_FIRST;
    let mut two = Host::write_command(5, 1, false);
    two.flags |= Sqe::FLAGS_FUSE_SECOND;
    let one = queue.start(one, &block(from));
    let two = queue.start(two, &block(from + 1));
    let (one, two) = (queue.wait(one).unwrap(), queue.wait(two).unwrap());
    let expected = if one.status == Status::SUCCESS {
        Status::SUCCESS
    } else {
        Status::ABORTED_FAILED_FUSED.dnr()
    };
    assert_eq!(two.status, expected);
    one.status
}

fn counter(queue: &mut Host) -> u64 {
    let data = queue.read(5, 1, BLOCK).data;
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let (start, end) = (number(&data[..8]), number(&data[4088..]));
    assert_eq!(start, end, "a torn block");
    start
}

fn count(address: SocketAddr, host: u8, times: u64) {
    let options = Options {
        host,
        ..Options::default()
    };
    let (_admin, mut queue) = Host::pair(address, NQN, options);
    let mut done = 0;
    while done < times {
        let from = counter(&mut queue);
        match count_up(&mut queue, from) {
            Status::SUCCESS => done += 1,
            other => assert_eq!(other, Status::COMPARE_FAILURE.dnr()),
        }
    }
}

#[test]
fn compare_and_write_of_many_hosts_loses_no_update() {
    const TIMES: u64 = 40;
    for kind in KINDS {
        let fixture = fixture(kind);
        let address = fixture.address;
        std::thread::scope(|scope| {
            for host in 1..4 {
                scope.spawn(move || count(address, host, TIMES));
            }
            // Others go on meanwhile.
            let (_admin, mut queue) = Host::pair(address, NQN, Options::default());
            for round in 0..100 {
                let data = vec![round; 128 << 10];
                assert_eq!(queue.write(100, &data, 4096, false), Status::SUCCESS);
                assert!(queue.read(100, 32, BLOCK).data == data);
            }
        });
        let (_admin, mut queue) = Host::pair(address, NQN, Options::default());
        assert_eq!(counter(&mut queue), 3 * TIMES);
        assert_eq!(fixture.server.counters(fixture.volume).errors, 0);
    }
}

#[test]
fn verify_reads_what_there_is() {
    for kind in KINDS {
        let fixture = fixture(kind);
        let (_admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
        assert_eq!(
            queue.write(0, &[1; 600 << 10], 4096, false),
            Status::SUCCESS
        );
        for fua in [false, true] {
            let verify = IoCommand::Verify {
                nsid: 1,
                blocks: blocks(0, 2048),
                fua,
            };
            let done = queue.run(verify.encode(0), &[]);
            assert_eq!((done.status, done.data.len()), (Status::SUCCESS, 0));
        }
    }
}

#[test]
fn copy_moves_data_and_leaves_holes_holes() {
    for kind in KINDS {
        let fixture = fixture(kind);
        let (_admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
        let data = Numbers(8).bytes(300 << 10);
        assert_eq!(queue.write(7, &data, 4096, false), Status::SUCCESS);
        // Over old data too: what is a hole in the source must read as zeroes.
        assert_eq!(
            queue.write(1024, &[9; 1 << 20], 4096, false),
            Status::SUCCESS
        );
        for fua in [false, true] {
            let sources = [(0, 256), (80, 1), (500, 100)];
            assert_eq!(copy(&mut queue, 1030, &sources, fua), Status::SUCCESS);
            let mut expected = vec![0; 357 << 12];
            expected[7 << 12..][..300 << 10].copy_from_slice(&data);
            expected[256 << 12..][..4096].copy_from_slice(&data[73 << 12..][..4096]);
            assert!(queue.read(1030, 256, BLOCK).data == expected[..1 << 20]);
            assert!(queue.read(1286, 101, BLOCK).data == expected[1 << 20..]);
            assert!(queue.read(1024, 6, BLOCK).data == [9; 6 << 12]);
        }
        let volume = fixture.drive.volume(fixture.volume).unwrap();
        let before = volume.allocated_bytes();
        assert_eq!(
            copy(&mut queue, 1500, &[(500, 500)], false),
            Status::SUCCESS
        );
        assert_eq!(
            volume.allocated_bytes(),
            before,
            "a copied hole takes no space"
        );
    }
}

#[test]
fn zeroes_of_everything_give_all_space_back() {
    for kind in KINDS {
        let fixture = fixture(kind);
        let (_admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
        assert_eq!(
            queue.write(3, &[1; 600 << 10], 4096, false),
            Status::SUCCESS
        );
        let zeroes = IoCommand::WriteZeroes {
            nsid: 1,
            blocks: blocks(0, 1),
            fua: true,
            deallocate: true,
            all: true,
        };
        assert_eq!(queue.run(zeroes.encode(0), &[]).status, Status::SUCCESS);
        let volume = fixture.drive.volume(fixture.volume).unwrap();
        assert_eq!(volume.allocated_bytes(), 0);
        for start in (0..VOLUME_BYTES / 4096).step_by(256) {
            let data = queue.read(start, 256, BLOCK).data;
            assert!(data.iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn a_read_from_the_medium_is_a_read() {
    let fixture = fixture(Kind::File);
    let (_admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
    let volume = fixture.drive.volume(fixture.volume).unwrap();
    // The pool syncs by itself when it has cleaned extents: the next new extent is not on the medium yet.
    let mut starts = (0..VOLUME_BYTES / EXTENT_BYTES).map(|n| n * EXTENT_BYTES / u64::from(BLOCK));
    let start = starts.find(|start| {
        assert_eq!(
            queue.write(*start, &[5; 8192], 4096, false),
            Status::SUCCESS
        );
        !volume.map_is_durable()
    });
    let mut read = Host::read_command(start.expect("a write that nobody synced"), 2, BLOCK);
    read.cdw12 = (read.cdw12.get() | 1 << 30).into();
    assert!(queue.run(read, &[]).data == [5; 8192]);
    assert!(volume.map_is_durable(), "what was read is on the medium");
}
