//! Paths that come and go while the namespace is in use.

use roadstead_nvme::log::ana;

use super::*;

impl Sim {
    /// The places of the paths that there are, in their order.
    fn places(&self) -> Vec<usize> {
        self.host.paths().iter().map(|path| path.path).collect()
    }

    fn read(&mut self, token: u64) {
        self.submit(Op::Read, 0, 1, token).unwrap();
    }
}

#[test]
fn a_path_that_is_added_is_used_in_its_order() {
    let mut sim = Sim::new(config());
    sim.want(&[2, 0, 1]);
    assert_eq!(sim.places(), [2, 0, 1]);
    assert_eq!(sim.states(), [PathState::Live; 3]);
    sim.read(1);
    assert_eq!(sim.in_flight(), [0, 0, 1], "it is the nearest");
    sim.want(&[1, 0, 2]);
    sim.read(2);
    assert_eq!(sim.in_flight(), [0, 1, 1]);
    sim.want(&[]);
    assert_eq!(sim.places(), [1, 0, 2], "without a path there is no volume");
}

#[test]
fn a_path_that_is_not_wanted_is_drained_first() {
    let mut sim = Sim::new(config());
    sim.submit(WRITE, 0, 1, 1).unwrap();
    sim.want(&[1]);
    assert_eq!(sim.places(), [1, 0]);
    sim.submit(WRITE, 0, 1, 2).unwrap();
    assert_eq!(sim.in_flight(), [1, 1], "nothing new goes over it");
    sim.complete(1, Status::SUCCESS);
    sim.advance(seconds(10));
    assert_eq!(sim.places(), [1, 0], "it is waited for");
    sim.complete(0, Status::SUCCESS);
    sim.advance(Duration::ZERO);
    assert_eq!(sim.places(), [1]);
    assert!(sim.log.contains(&Action::Removed { path: 0 }));
    assert_eq!(sim.ended(), [(2, Ok(())), (1, Ok(()))], "each once");
    assert!(sim.open.iter().all(|(epoch, _)| epoch.path == 1));
    sim.advance(seconds(100));
    assert_eq!((sim.places(), sim.epoch(0).attempt), (vec![1], 1));
}

#[test]
fn no_path_that_works_goes_before_a_wanted_one_works() {
    let mut sim = Sim::new(config());
    sim.dead[2] = true;
    sim.ana[3] = ana::INACCESSIBLE;
    sim.want(&[2, 3]);
    sim.advance(seconds(60));
    assert_eq!(sim.places(), [2, 3, 0, 1]);
    sim.read(1);
    assert_eq!(sim.in_flight(), [1, 0, 0, 0]);
    sim.kill(0);
    assert_eq!(sim.in_flight(), [0, 1, 0, 0], "what is left carries on");
    sim.set_ana(3, ana::NON_OPTIMIZED);
    sim.read(2);
    assert_eq!(sim.in_flight(), [0, 1, 0, 1], "wanted before optimized");
    sim.finish();
    assert_eq!(sim.places(), [2, 3], "all were replaced");
    assert_eq!(sim.ended().len(), 2);
}

#[test]
fn a_path_that_is_being_drained_is_used_again_when_it_is_the_last() {
    let mut sim = Sim::new(config());
    sim.read(1);
    sim.want(&[1]);
    sim.kill(1);
    sim.read(2);
    assert_eq!(sim.in_flight(), [2, 0]);
    sim.complete(0, Status::SUCCESS);
    sim.complete(0, Status::SUCCESS);
    sim.advance(seconds(60));
    assert_eq!(sim.places(), [1, 0]);
    // Wanted again, it stays.
    sim.want(&[1, 0]);
    sim.dead[1] = false;
    sim.advance(seconds(5));
    assert_eq!(sim.states(), [PathState::Live; 2]);
    assert_eq!(sim.epoch(0).attempt, 1, "it was never closed");
}

#[test]
fn a_path_that_never_worked_goes_at_once() {
    let mut sim = Sim::new(config());
    sim.dead[2] = true;
    sim.kill(0);
    sim.want(&[0, 1, 2]);
    sim.kill(1);
    sim.want(&[0, 3]);
    assert_eq!(sim.places(), [0, 3, 1], "that one was of use");
    sim.advance(Duration::ZERO);
    assert_eq!(sim.places(), [0, 3]);
}

/// The copy on the lost path may still take effect: its place is not given to another portal before it cannot.
#[test]
fn a_path_that_is_lost_while_it_is_drained_leaves_when_its_copies_are_harmless() {
    for fences in [false, true] {
        let mut sim = Sim::with_fences(config(), fences);
        sim.submit(WRITE, 0, 1, 1).unwrap();
        sim.want(&[1]);
        sim.kill(0);
        assert_eq!(sim.in_flight(), [0, 1], "sent again over another");
        sim.complete(0, Status::SUCCESS);
        assert_eq!(sim.ended(), [(1, Ok(()))]);
        sim.submit(WRITE, 0, 1, 2).unwrap();
        sim.advance(seconds(1));
        let is_over = usize::from(fences);
        assert_eq!(sim.in_flight(), [0, is_over], "the newer write");
        assert_eq!(sim.places().len(), 2 - is_over);
        sim.advance(seconds(40));
        assert_eq!((sim.places(), sim.in_flight()), (vec![1], [0, 1]));
        sim.finish();
        assert_eq!(sim.store[0], 2);
    }
}

#[test]
fn a_place_is_used_again_and_nothing_old_is_taken_for_new() {
    let mut sim = Sim::new(config());
    sim.read(1);
    let old = sim.sent[0];
    sim.complete(0, Status::SUCCESS);
    sim.want(&[1]);
    assert_eq!(sim.places(), [1]);
    let late = Cqe::new(old.sqe.cid.get(), Status::SUCCESS, 0);
    let now = sim.now;
    sim.host.completed(old.epoch, old.qid, &late, &[], now);
    sim.host.ready(old.epoch, 0);
    sim.host.lost(old.epoch, "late".into(), now);
    sim.settle();
    assert_eq!(sim.places(), [1]);
    sim.want(&[0, 1]);
    assert_eq!(sim.states(), [PathState::Live; 2]);
    assert_ne!(sim.epoch(0), old.epoch);
    assert_eq!(sim.host.paths()[0].traffic, Traffic::default());
    sim.read(2);
    sim.host.completed(old.epoch, old.qid, &late, &[], now);
    sim.settle();
    assert_eq!(sim.in_flight(), [1, 0]);
    sim.complete(0, Status::SUCCESS);
    assert_eq!(sim.ended(), [(1, Ok(())), (2, Ok(()))]);
}

#[test]
fn another_path_is_hope_after_all_was_given_up() {
    let mut sim = Sim::new(config());
    sim.kill(0);
    sim.kill(1);
    sim.advance(seconds(601));
    sim.dead[2] = true;
    sim.want(&[2]);
    sim.read(1);
    assert!(sim.done.is_empty(), "it is waited for");
    sim.dead[2] = false;
    sim.advance(seconds(3));
    assert_eq!(sim.in_flight(), [0, 0, 1]);
    assert_eq!(sim.places(), [2]);
    sim.complete(0, Status::SUCCESS);
    assert_eq!(sim.ended(), [(1, Ok(()))]);
}
