//! A volume over the network against bytes in memory.

use roadstead_nvme::Status;
use roadstead_pool::BlockSize;

use super::host::{Host, Options};
use super::{Fixture, Kind, NQN, Numbers, Setup, VOLUME_BYTES};

/// Operations of one run.
const OPERATIONS: usize = 300;

struct Model {
    bytes: Vec<u8>,
    block: usize,
    numbers: Numbers,
}

impl Model {
    fn range(&mut self, most: u64) -> (u64, u32) {
        let blocks = VOLUME_BYTES / self.block as u64;
        let count = 1 + self.numbers.below(most);
        let start = self.numbers.below(blocks - count + 1);
        (start, u32::try_from(count).unwrap())
    }

    fn part(&mut self, start: u64, count: u32) -> &mut [u8] {
        let from = usize::try_from(start).unwrap() * self.block;
        let len = usize::try_from(count).unwrap() * self.block;
        &mut self.bytes[from..from + len]
    }

    fn step(&mut self, host: &mut Host) {
        // Up to 256 KiB, over four extents and more; small ones in the capsule.
        let large = (256 << 10) / self.block as u64;
        let most = if self.numbers.below(2) == 0 { 3 } else { large };
        let fua = self.numbers.below(3) == 0;
        let (start, count) = self.range(most);
        let block = u32::try_from(self.block).unwrap();
        match self.numbers.below(10) {
            0..=3 => {
                let data = self
                    .numbers
                    .bytes(usize::try_from(count).unwrap() * self.block);
                self.part(start, count).copy_from_slice(&data);
                assert_eq!(host.write(start, &data, self.block, fua), Status::SUCCESS);
            }
            4..=6 => {
                let done = host.read(start, count, block);
                assert_eq!(done.status, Status::SUCCESS);
                assert!(
                    done.data == self.part(start, count),
                    "read at {start}+{count}"
                );
            }
            7 => {
                self.part(start, count).fill(0);
                assert_eq!(host.zero(start, count, fua), Status::SUCCESS);
            }
            8 => {
                // Blocks keep their contents or read as zeroes: the model learns which.
                let other = self.range(large);
                let ranges = [(start, count), other];
                assert_eq!(host.deallocate(&ranges), Status::SUCCESS);
                for (start, count) in ranges {
                    let now = host.read(start, count, block).data;
                    let model = self.part(start, count);
                    assert!(
                        now.iter()
                            .zip(model.iter())
                            .all(|(&now, &before)| now == before || now == 0)
                    );
                    model.copy_from_slice(&now);
                }
            }
            _ => assert_eq!(host.flush(), Status::SUCCESS),
        }
    }

    fn check_all(&mut self, host: &mut Host) {
        let step = (1 << 20) / self.block;
        for at in (0..self.bytes.len() / self.block).step_by(step) {
            let count = u32::try_from(step).unwrap();
            let done = host.read(at as u64, count, u32::try_from(self.block).unwrap());
            assert_eq!(done.status, Status::SUCCESS);
            assert!(
                done.data == self.part(at as u64, count),
                "read of all at {at}"
            );
        }
    }
}

fn run(setup: &Setup, options: Options, seed: u64) {
    let fixture = Fixture::start(setup);
    let (_admin, mut queue) = Host::pair(fixture.address, NQN, options);
    let block = usize::try_from(setup.block_size.bytes()).unwrap();
    let size = usize::try_from(VOLUME_BYTES).unwrap();
    let mut model = Model {
        bytes: vec![0; size],
        block,
        numbers: Numbers(seed),
    };
    for _ in 0..OPERATIONS {
        model.step(&mut queue);
    }
    model.check_all(&mut queue);
    let counters = fixture.server.counters(fixture.volume);
    assert!(
        counters.reads > 50 && counters.writes > 50 && counters.flushes > 5,
        "{counters:?}"
    );
    assert_eq!(counters.errors, 0);
    if setup.kind == Kind::File {
        assert_eq!(queue.flush(), Status::SUCCESS);
        let fixture = fixture.restart(setup);
        let (_admin, mut queue) = Host::pair(fixture.address, NQN, options);
        model.check_all(&mut queue);
    }
}

#[test]
fn a_memory_drive_is_like_memory() {
    run(&Setup::default(), Options::default(), 1);
}

#[test]
fn a_memory_drive_with_small_blocks_and_digests() {
    let setup = Setup {
        block_size: BlockSize::B512,
        reactors: 2,
        ..Setup::default()
    };
    run(
        &setup,
        Options {
            digests: true,
            ..Options::default()
        },
        2,
    );
}

#[test]
fn a_file_drive_is_like_memory() {
    run(
        &Setup {
            kind: Kind::File,
            ..Setup::default()
        },
        Options::default(),
        3,
    );
}

#[test]
fn a_file_drive_with_two_reactors_and_digests() {
    let setup = Setup {
        kind: Kind::File,
        reactors: 2,
        ..Setup::default()
    };
    run(
        &setup,
        Options {
            digests: true,
            ..Options::default()
        },
        4,
    );
}

#[test]
fn pdus_in_pieces() {
    let options = Options {
        piece: 37,
        digests: true,
        ..Options::default()
    };
    let fixture = Fixture::start(&Setup {
        kind: Kind::File,
        ..Setup::default()
    });
    let (_admin, mut queue) = Host::pair(fixture.address, NQN, options);
    let data = Numbers(9).bytes(40 << 10);
    assert_eq!(queue.write(3, &data[..8192], 4096, false), Status::SUCCESS);
    assert_eq!(queue.write(5, &data, 4096, true), Status::SUCCESS);
    assert!(queue.read(3, 2, 4096).data == data[..8192]);
    assert!(queue.read(5, 10, 4096).data == data);
}

#[test]
fn many_commands_at_once_with_few_buffers() {
    // Room for three of the largest buffers: commands have to wait for each other.
    for kind in [Kind::Memory, Kind::File] {
        let fixture = Fixture::start(&Setup {
            kind,
            buf_limit_bytes: 3 << 20,
            ..Setup::default()
        });
        let (_admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
        let data = Numbers(5).bytes(1 << 20);
        let writes: Vec<u16> = (0..8)
            .map(|i| queue.start(Host::write_command(i * 256, 256, false), &data))
            .collect();
        for cid in writes {
            assert_eq!(queue.wait(cid).unwrap().status, Status::SUCCESS);
        }
        let reads: Vec<u16> = (0..100u64)
            .map(|i| queue.start(Host::read_command(i % 8 * 256, 256, 4096), &[]))
            .collect();
        for cid in reads {
            assert!(queue.wait(cid).unwrap().data == data);
        }
    }
}
