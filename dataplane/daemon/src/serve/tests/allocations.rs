//! An I/O on allocated space does not allocate memory: twice the I/O has the same number of allocations.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use roadstead_nvme::Status;

use super::host::{Host, Options};
use super::{Fixture, Kind, NQN, Setup};

/// Allocations of a reactor from its start to its end, with so many rounds of I/O between.
fn allocations(kind: Kind, rounds: u64, options: Options) -> u64 {
    let fixture = Fixture::start(&Setup {
        kind,
        ..Setup::default()
    });
    let (_admin, mut queue) = Host::pair(fixture.address, NQN, options);
    for round in 0..rounds {
        // The same blocks in every round: the first one allocates their space. Sizes with and without data in the
        // capsule, crossing an extent's border or not.
        for (start, blocks) in [(3, 1), (8, 4), (14, 32), (100, 64)] {
            let data = vec![round.to_le_bytes()[0]; blocks * 4096];
            let fua = round % 16 == 0;
            assert_eq!(queue.write(start, &data, 4096, fua), Status::SUCCESS);
            let blocks = u32::try_from(blocks).unwrap();
            assert!(queue.read(start, blocks, 4096).data == data);
        }
        assert_eq!(queue.flush(), Status::SUCCESS);
    }
    drop(queue);
    let shared = Arc::clone(&fixture.server.shared);
    drop(fixture);
    shared.allocations.load(SeqCst)
}

#[test]
fn an_io_does_not_allocate() {
    const ROUNDS: u64 = 200;
    for kind in [Kind::Memory, Kind::File] {
        for digests in [false, true] {
            let options = Options {
                digests,
                ..Options::default()
            };
            let once = allocations(kind, ROUNDS, options);
            let twice = allocations(kind, 2 * ROUNDS, options);
            assert!(once > 0, "the start allocates");
            let ios = ROUNDS * 9;
            // What depends on timing (a tick, a vector's growth) is not for each I/O.
            assert!(
                twice.saturating_sub(once) < ios / 20,
                "{kind:?}, digests {digests}: {once} allocations with {ios} I/Os, {twice} with twice as many"
            );
        }
    }
}
