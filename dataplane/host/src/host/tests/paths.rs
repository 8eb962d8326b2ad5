//! Several paths: which one is used, and what happens when one is lost.

use roadstead_nvme::AnaState;
use roadstead_nvme::log::ana;

use super::*;
use crate::config::PathPolicy;

fn with_policy(policy: PathPolicy) -> Sim {
    let mut config = config();
    config.limits.policy = policy;
    Sim::new(config)
}

#[test]
fn the_policy_chooses_among_paths_of_the_best_state() {
    for (policy, wanted) in [
        (PathPolicy::Nearest, [4, 0]),
        (PathPolicy::RoundRobin, [2, 2]),
        (PathPolicy::QueueDepth, [2, 2]),
    ] {
        let mut sim = with_policy(policy);
        for token in 0..4 {
            sim.submit(Op::Read, 0, 1, token).unwrap();
        }
        assert_eq!(sim.in_flight(), wanted, "{policy:?}");
        sim.set_ana(0, ana::NON_OPTIMIZED);
        for token in 4..6 {
            sim.submit(Op::Read, 0, 1, token).unwrap();
        }
        assert_eq!(sim.in_flight(), [wanted[0], wanted[1] + 2], "{policy:?}");
        sim.finish();
        assert_eq!(sim.done.len(), 6);
    }
}

#[test]
fn what_was_in_flight_on_a_lost_path_goes_to_another_at_once() {
    let mut sim = Sim::new(config());
    sim.submit(Op::Read, 0, 1, 7).unwrap();
    sim.submit(WRITE, 1, 1, 8).unwrap();
    sim.submit(Op::Flush, 0, 0, 9).unwrap();
    sim.kill(0);
    assert_eq!(sim.in_flight(), [0, 3]);
    assert_eq!(sim.states(), [PathState::Connecting, PathState::Live]);
    assert!(sim.host.paths()[0].message.contains("refused"));
    for _ in 0..3 {
        sim.complete(0, Status::SUCCESS);
    }
    assert_eq!(sim.done.len(), 3);
    sim.dead[0] = false;
    sim.advance(seconds(3));
    assert_eq!(sim.states(), [PathState::Live; PATHS]);
    sim.submit(Op::Read, 0, 1, 10).unwrap();
    assert_eq!(sim.in_flight(), [1, 0], "the nearest is used again");
}

#[test]
fn a_write_waits_for_copies_of_others_on_a_lost_path() {
    let mut sim = Sim::new(config());
    sim.submit(WRITE, 4, 2, 1).unwrap();
    sim.kill(0);
    sim.complete(0, Status::SUCCESS);
    assert_eq!(sim.ended(), [(1, Ok(()))], "the write itself does not wait");
    sim.submit(WRITE, 5, 1, 2).unwrap();
    sim.submit(Op::WriteZeroes { deallocate: false }, 4, 1, 3)
        .unwrap();
    assert_eq!(sim.in_flight(), [0, 0]);
    sim.submit(WRITE, 6, 1, 4).unwrap();
    sim.submit(Op::Read, 4, 2, 5).unwrap();
    sim.submit(Op::Flush, 0, 0, 6).unwrap();
    assert_eq!(sim.in_flight(), [0, 3], "others do not wait");
    // Twice the keep-alive time-out that the controller was told.
    sim.advance(seconds(29));
    assert_eq!(sim.in_flight(), [0, 3]);
    sim.advance(seconds(2));
    assert_eq!(sim.in_flight(), [0, 5]);
    sim.finish();
    assert_eq!((sim.store[4], sim.store[5], sim.store[6]), (0, 2, 4));
}

#[test]
fn a_new_controller_on_the_path_ends_the_wait() {
    let mut sim = Sim::new(config());
    sim.submit(WRITE, 4, 1, 1).unwrap();
    sim.kill(0);
    sim.complete(0, Status::SUCCESS);
    sim.submit(WRITE, 4, 1, 2).unwrap();
    assert_eq!(sim.in_flight(), [0, 0]);
    sim.dead[0] = false;
    sim.advance(seconds(2));
    assert_eq!(sim.in_flight(), [1, 0]);
    sim.finish();
    assert_eq!(sim.store[4], 2);
}

#[test]
fn an_answer_leaves_no_copy() {
    let mut sim = Sim::new(config());
    sim.submit(WRITE, 4, 1, 1).unwrap();
    sim.complete(0, Status::INTERNAL_PATH);
    assert_eq!(sim.in_flight(), [0, 1]);
    sim.complete(0, Status::SUCCESS);
    sim.submit(WRITE, 4, 1, 2).unwrap();
    assert_eq!(sim.in_flight(), [0, 1], "path 0 rests, but nothing waits");
    sim.advance(seconds(1));
    sim.submit(WRITE, 5, 1, 3).unwrap();
    assert_eq!(sim.in_flight(), [1, 1], "it is used again");
}

#[test]
fn a_path_related_status_moves_the_request_to_another_path() {
    for status in [
        Status::ANA_INACCESSIBLE,
        Status::ANA_PERSISTENT_LOSS,
        Status::ANA_TRANSITION,
        Status::INTERNAL_PATH,
        Status::HOST_PATH,
    ] {
        let mut sim = Sim::new(config());
        sim.submit(WRITE, 0, 1, 7).unwrap();
        sim.complete(0, status);
        assert!(sim.done.is_empty());
        assert_eq!(sim.in_flight(), [0, 1], "{status}");
        assert_eq!(sim.states(), [PathState::Live; PATHS], "nothing is reset");
        sim.finish();
        assert_eq!(sim.ended(), [(7, Ok(()))]);
    }
}

#[test]
fn a_path_related_status_on_the_only_path_is_repeated_after_a_pause() {
    let mut sim = Sim::new(config());
    sim.kill(1);
    sim.submit(Op::Read, 0, 1, 7).unwrap();
    sim.complete(0, Status::INTERNAL_PATH);
    assert_eq!(sim.in_flight(), [0, 0]);
    sim.advance(seconds(1));
    assert_eq!(sim.in_flight(), [1, 0]);
    sim.complete(0, Status::INTERNAL_PATH.dnr());
    let result = Err(IoError::Status(Status::INTERNAL_PATH.dnr()));
    assert_eq!(sim.ended(), [(7, result)]);
}

#[test]
fn ana_states_are_followed() {
    let mut sim = Sim::new(config());
    let mut token = 0;
    let mut next = |sim: &mut Sim| {
        token += 1;
        sim.submit(Op::Read, 0, 1, token).unwrap();
        let on = sim.in_flight();
        sim.complete(0, Status::SUCCESS);
        on
    };
    for (states, on) in [
        ([ana::OPTIMIZED, ana::OPTIMIZED], [1, 0]),
        ([ana::NON_OPTIMIZED, ana::OPTIMIZED], [0, 1]),
        ([ana::NON_OPTIMIZED, ana::NON_OPTIMIZED], [1, 0]),
        ([ana::INACCESSIBLE, ana::NON_OPTIMIZED], [0, 1]),
        ([ana::OPTIMIZED, ana::PERSISTENT_LOSS], [1, 0]),
        ([ana::CHANGE, ana::OPTIMIZED], [0, 1]),
    ] {
        sim.set_ana(0, states[0]);
        sim.set_ana(1, states[1]);
        assert_eq!(next(&mut sim), on, "{states:?}");
        assert!(
            sim.events[..PATHS].iter().all(Option::is_some),
            "armed again"
        );
    }
    let seen: Vec<_> = sim.host.paths().iter().map(|p| p.ana_state).collect();
    assert_eq!(seen, [AnaState::Change, AnaState::Optimized].map(Some));
    assert!(sim.host.paths().iter().all(|p| p.message.is_empty()));
}

#[test]
fn the_ana_state_is_known_from_the_first_command_on() {
    let mut sim = Sim::new(config());
    sim.ana[0] = ana::INACCESSIBLE;
    sim.cut(0, 0);
    assert_eq!(sim.states(), [PathState::Live; PATHS]);
    sim.submit(Op::Read, 0, 1, 1).unwrap();
    assert_eq!(sim.in_flight(), [0, 1]);
}

#[test]
fn requests_wait_for_a_path_that_is_accessible() {
    let mut sim = Sim::new(config());
    sim.set_ana(0, ana::INACCESSIBLE);
    sim.set_ana(1, ana::INACCESSIBLE);
    sim.submit(Op::Read, 0, 1, 1).unwrap();
    sim.advance(seconds(500));
    assert!(sim.sent.is_empty() && sim.done.is_empty());
    sim.set_ana(1, ana::NON_OPTIMIZED);
    assert_eq!(sim.in_flight(), [0, 1]);
    sim.set_ana(1, ana::INACCESSIBLE);
    sim.complete(0, Status::ANA_INACCESSIBLE);
    sim.advance(seconds(601));
    assert_eq!(sim.ended(), [(1, Err(IoError::PathLost))], "not for ever");
}

#[test]
fn a_transition_that_does_not_end_costs_the_controller_a_reset() {
    let mut sim = Sim::new(config());
    let epoch = sim.epoch(0);
    sim.set_ana(0, ana::CHANGE);
    sim.advance(seconds(9));
    sim.set_ana(0, ana::CHANGE);
    assert_eq!(sim.epoch(0), epoch);
    sim.advance(seconds(2));
    assert_ne!(sim.epoch(0), epoch, "from the first sight of it");
    sim.set_ana(0, ana::OPTIMIZED);
    sim.advance(seconds(20));
    sim.set_ana(0, ana::CHANGE);
    sim.advance(seconds(5));
    let epoch = sim.epoch(0);
    sim.set_ana(0, ana::OPTIMIZED);
    sim.advance(seconds(60));
    assert_eq!(sim.epoch(0), epoch, "it ended in time");
}

#[test]
fn requests_wait_for_the_time_configured_and_fail_then() {
    let mut sim = Sim::new(config());
    sim.submit(Op::Read, 0, 1, 1).unwrap();
    sim.kill(0);
    sim.advance(seconds(100));
    sim.kill(1);
    sim.submit(WRITE, 0, 1, 2).unwrap();
    sim.advance(seconds(599));
    assert!(sim.done.is_empty(), "not before");
    assert_eq!(sim.states(), [PathState::Failed, PathState::Connecting]);
    sim.advance(seconds(2));
    let lost = |token| (token, Err(IoError::PathLost));
    assert_eq!(sim.ended(), [lost(1), lost(2)]);
    assert_eq!(sim.states(), [PathState::Failed, PathState::Failed]);
    sim.submit(Op::Flush, 0, 0, 3).unwrap();
    assert_eq!(sim.ended().last(), Some(&lost(3)), "at once");
    sim.dead = [false; PLACES];
    sim.advance(seconds(10));
    assert_eq!(sim.states(), [PathState::Live; PATHS], "it comes back");
    sim.submit(Op::Flush, 0, 0, 4).unwrap();
    sim.complete(0, Status::SUCCESS);
    assert_eq!(sim.ended().last(), Some(&(4, Ok(()))));
}

#[test]
fn fast_io_fail_ends_the_wait_and_not_the_path() {
    let mut config = config();
    config.limits.fast_io_fail = seconds(5);
    config.limits.ctrl_loss = Duration::MAX;
    let mut sim = Sim::new(config);
    sim.submit(Op::Read, 0, 1, 1).unwrap();
    sim.kill(0);
    sim.advance(seconds(60));
    assert_eq!(sim.in_flight(), [0, 1], "there is another path");
    sim.kill(1);
    sim.advance(seconds(4));
    assert!(sim.done.is_empty());
    sim.advance(seconds(2));
    assert_eq!(sim.ended(), [(1, Err(IoError::PathLost))]);
    sim.advance(seconds(10_000));
    assert_eq!(sim.states(), [PathState::Connecting; PATHS]);
}

#[test]
fn tries_to_reconnect_back_off() {
    let mut sim = Sim::new(config());
    sim.kill(0);
    sim.log.clear();
    sim.advance(seconds(101));
    let tries = sim.log.iter().filter(|a| matches!(a, Action::Open { .. }));
    // 0.1 + 0.2 + 0.4 + 0.8 + 1.6, then every 2 s.
    assert_eq!(tries.count(), 5 + 48);
}

#[test]
fn another_namespace_is_not_taken() {
    let mut sim = Sim::new(config());
    sim.uuid[0] = Uuid::from_u128(9);
    sim.cut(0, 0);
    let text = sim.host.paths()[0].message.clone();
    assert!(
        text.contains("no namespace") && text.contains(&UUID.to_string()),
        "{text}"
    );
    let mut config = config();
    config.namespace = Wanted::First;
    let mut sim = Sim::new(config);
    sim.uuid[1] = Uuid::from_u128(9);
    sim.host.config.namespace = Wanted::Nsid(5);
    sim.cut(1, 0);
    let text = sim.host.paths()[1].message.clone();
    assert!(text.contains("another namespace"), "{text}");
}

#[test]
fn a_namespace_that_goes_takes_the_path_down() {
    let mut sim = Sim::new(config());
    sim.blocks = 0;
    sim.event(0, AsyncEvent::NAMESPACE_ATTRIBUTES);
    let gone = sim.log.iter().any(|action| match action {
        Action::Down { path: 0, error } => error.to_string().contains("any more"),
        _ => false,
    });
    assert!(gone);
}

/// What is left of a lost controller may take effect late: the newer write has to wait for it, or for its end.
#[test]
fn another_path_ends_the_wait_for_a_lost_controller() {
    for fences in [false, true] {
        let mut sim = Sim::with_fences(config(), fences);
        sim.submit(WRITE, 0, 1, 1).unwrap();
        assert_eq!(sim.in_flight(), [1, 0]);
        sim.kill(0);
        assert_eq!(sim.in_flight(), [0, 1], "the copy goes at once");
        sim.complete(0, Status::SUCCESS);
        sim.submit(WRITE, 0, 1, 2).unwrap();
        let wanted = usize::from(fences);
        assert_eq!(sim.in_flight(), [0, wanted], "the newer write");
        assert_eq!(sim.leftovers.len(), 1 - wanted);
    }
}

#[test]
fn an_end_that_was_asked_for_over_a_path_that_is_lost_is_asked_for_again() {
    let mut sim = Sim::with_fences(config(), true);
    sim.submit(WRITE, 0, 1, 1).unwrap();
    sim.silent[1] = true;
    sim.kill(0);
    sim.complete(0, Status::SUCCESS);
    sim.submit(WRITE, 0, 1, 2).unwrap();
    assert_eq!(sim.in_flight(), [0, 0], "not answered yet");
    sim.silent[1] = false;
    sim.cut(1, 0);
    sim.advance(Duration::from_millis(200));
    assert_eq!(sim.in_flight(), [0, 1]);
}

#[test]
fn a_path_that_says_nothing_is_left_soon_when_there_is_another() {
    let mut sim = Sim::with_fences(config(), true);
    // The first Keep Alive tells what is usual.
    sim.advance(seconds(1));
    sim.submit(WRITE, 0, 1, 1).unwrap();
    sim.silent[0] = true;
    sim.dead[0] = true;
    sim.advance(Duration::from_millis(290));
    assert_eq!(sim.in_flight(), [1, 0]);
    sim.advance(Duration::from_millis(20));
    assert_eq!(sim.in_flight(), [0, 1]);
    // The other one is the last.
    sim.silent[1] = true;
    sim.advance(seconds(2));
    assert_eq!(sim.in_flight(), [0, 1]);
    assert_eq!(sim.host.paths()[0].losses, 1);
}

#[test]
fn a_slow_drive_is_no_silent_path() {
    let mut sim = Sim::new(config());
    sim.submit(WRITE, 0, 1, 1).unwrap();
    sim.advance(seconds(20));
    assert_eq!(sim.in_flight(), [1, 0]);
    assert_eq!(sim.states(), [PathState::Live; PATHS]);
    assert_eq!(sim.host.paths()[0].round_trip, Some(Duration::ZERO));
}
