use super::*;
use crate::table::VolumeKey;

const BAD: Status = Status::LBA_OUT_OF_RANGE;

fn request(offset: u64) -> IoRequest {
    IoRequest {
        volume: VolumeKey(1),
        nsid: 1,
        op: IoOp::Compare,
        offset,
        length: 512,
        fua: false,
    }
}

/// A queue with a first half of tag 1 at 0, and its data if wanted.
fn with_first(data: bool) -> Fuse {
    let mut fuse = Fuse::default();
    assert_eq!(
        fuse.enter(Tag(1), Part::First, Ok(Some(&request(0)))),
        Ok(())
    );
    if data {
        assert_eq!(fuse.arrive(Tag(1), &[1]), Arrived::Wait);
    }
    fuse
}

#[test]
fn data_in_any_order_makes_one_io() {
    for order in [[1, 2], [2, 1]] {
        let mut fuse = with_first(false);
        let write = IoRequest {
            fua: true,
            ..request(0)
        };
        assert_eq!(fuse.enter(Tag(2), Part::Second, Ok(Some(&write))), Ok(()));
        let [early, late] = order;
        assert_eq!(
            fuse.arrive(Tag(early), &[u8::try_from(early).unwrap()]),
            Arrived::Wait
        );
        let Arrived::Whole(io) = fuse.arrive(Tag(late), &[u8::try_from(late).unwrap()]) else {
            panic!("not whole");
        };
        let op = IoOp::CompareAndWrite {
            expected: Box::new([1]),
            new: Box::new([2]),
        };
        assert_eq!(io, IoRequest { op, ..write });
        for (status, first, second) in [
            (Status::SUCCESS, Status::SUCCESS, Status::SUCCESS),
            (
                Status::COMPARE_FAILURE.dnr(),
                Status::COMPARE_FAILURE.dnr(),
                FAILED,
            ),
            (Status::WRITE_FAULT, Status::SUCCESS, Status::WRITE_FAULT),
            (Status::UNRECOVERED_READ, Status::UNRECOVERED_READ, FAILED),
        ] {
            fuse.running = vec![(Tag(late), [Tag(1), Tag(2)])];
            let ends = Some([(Tag(1), first), (Tag(2), second)]);
            assert_eq!(fuse.end(Tag(late), status), ends);
        }
        assert_eq!(fuse.end(Tag(late), Status::SUCCESS), None);
    }
}

#[test]
fn a_first_half_without_a_second_fails_with_its_data() {
    for part in [Part::Alone, Part::First] {
        let mut fuse = with_first(true);
        assert_eq!(fuse.enter(Tag(2), part, Ok(Some(&request(8)))), Ok(()));
        assert_eq!(fuse.next_failed(), Some((Tag(1), MISSING)));
        let mut fuse = with_first(false);
        assert_eq!(fuse.enter(Tag(2), part, Ok(Some(&request(8)))), Ok(()));
        assert_eq!(fuse.next_failed(), None);
        assert_eq!(fuse.arrive(Tag(1), &[1]), Arrived::Failed(MISSING));
    }
    // A command that is refused for its own fault is no second half either.
    let mut fuse = with_first(true);
    assert_eq!(fuse.enter(Tag(2), Part::Alone, Err(BAD)), Err(BAD));
    assert_eq!(fuse.next_failed(), Some((Tag(1), MISSING)));
}

#[test]
fn a_second_half_without_a_first_is_missing_it() {
    let mut fuse = Fuse::default();
    let write = request(0);
    assert_eq!(
        fuse.enter(Tag(2), Part::Second, Ok(Some(&write))),
        Err(MISSING)
    );
    assert_eq!(fuse.enter(Tag(1), Part::First, Err(BAD)), Err(BAD));
    assert_eq!(
        fuse.enter(Tag(2), Part::Second, Ok(Some(&write))),
        Err(FAILED)
    );
    assert_eq!(
        fuse.enter(Tag(2), Part::Second, Ok(Some(&write))),
        Err(MISSING)
    );
}

#[test]
fn a_bad_second_half_takes_the_first_with_it() {
    let mut fuse = with_first(true);
    assert_eq!(fuse.enter(Tag(2), Part::Second, Err(BAD)), Err(BAD));
    assert_eq!(fuse.next_failed(), Some((Tag(1), FAILED)));
    let invalid = Status::INVALID_FIELD.dnr();
    let mut fuse = with_first(false);
    let elsewhere = request(512);
    assert_eq!(
        fuse.enter(Tag(2), Part::Second, Ok(Some(&elsewhere))),
        Err(invalid)
    );
    assert_eq!(fuse.arrive(Tag(1), &[1]), Arrived::Failed(invalid));
}

#[test]
fn damaged_data_of_one_half_fails_the_other() {
    let pair = |data| {
        let mut fuse = with_first(data);
        assert_eq!(
            fuse.enter(Tag(2), Part::Second, Ok(Some(&request(0)))),
            Ok(())
        );
        fuse
    };
    let mut fuse = pair(true);
    fuse.lose(Tag(2));
    assert_eq!(fuse.next_failed(), Some((Tag(1), FAILED)));
    let mut fuse = pair(false);
    fuse.lose(Tag(2));
    assert_eq!(fuse.arrive(Tag(1), &[1]), Arrived::Failed(FAILED));
    let mut fuse = pair(false);
    fuse.lose(Tag(1));
    assert_eq!(fuse.arrive(Tag(2), &[1]), Arrived::Failed(FAILED));
    // Before the second half came.
    let mut fuse = with_first(false);
    fuse.lose(Tag(1));
    assert_eq!(
        fuse.enter(Tag(2), Part::Second, Ok(Some(&request(0)))),
        Err(FAILED)
    );
    assert_eq!(fuse.arrive(Tag(9), &[1]), Arrived::Foreign);
}
