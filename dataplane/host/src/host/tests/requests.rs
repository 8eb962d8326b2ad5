//! One path, or any: connecting, carrying requests, noticing what is wrong.

use super::super::control::{CID_CONNECT, CID_SEQUENCE};
use super::*;

#[test]
fn it_connects_and_finds_the_namespace_by_uuid() {
    let sim = Sim::new(config());
    let info = sim.host.info().unwrap();
    assert_eq!((info.nsid, info.uuid), (5, Some(UUID)));
    assert_eq!((info.blocks, info.block_bytes), (BLOCKS, 4096));
    assert!(info.has_write_zeroes && !info.read_only);
    let ups = sim.log.iter().filter(|a| matches!(a, Action::Up { .. }));
    assert_eq!(ups.count(), PATHS);
    assert_eq!(sim.open.len(), 3 * PATHS, "admin and two I/O queues each");
    assert_eq!(sim.states(), [PathState::Live; PATHS]);
}

#[test]
fn requests_before_the_namespace_is_known_are_refused() {
    let mut host = Host::new(config(), Instant::now());
    let read = Request {
        op: Op::Read,
        lba: 0,
        blocks: 1,
        token: 0,
    };
    assert_eq!(host.submit(read), Err(Refused::NotConnected));
    let mut sim = Sim::new(config());
    for (op, lba, blocks) in [
        (Op::Read, BLOCKS, 1),
        (Op::Read, u64::MAX, 2),
        (Op::Read, 0, 0),
        (Op::Flush, 0, 1),
    ] {
        assert_eq!(sim.submit(op, lba, blocks, 1), Err(Refused::OutOfRange));
    }
}

#[test]
fn no_more_is_in_flight_than_the_queues_take() {
    let mut sim = Sim::new(config());
    for token in 0..12 {
        sim.submit(Op::Read, 0, 1, token).unwrap();
    }
    assert_eq!(sim.sent.len(), 2 * 3, "one less than each queue's entries");
    assert_eq!(sim.submit(Op::Read, 0, 1, 12), Err(Refused::Full));
    sim.complete(0, Status::SUCCESS);
    assert_eq!(sim.sent.len(), 6);
}

#[test]
fn a_silent_target_is_noticed() {
    let mut sim = Sim::new(config());
    sim.submit(Op::Read, 0, 1, 1).unwrap();
    let epoch = sim.epoch(0);
    sim.advance(seconds(20));
    assert_eq!(sim.epoch(0), epoch, "keep-alive is answered");
    sim.mute = true;
    sim.advance(seconds(8));
    assert_ne!(sim.epoch(0), epoch);
    sim.mute = false;
    sim.finish();
    assert_eq!(sim.done.len(), 1);
}

#[test]
fn a_stuck_command_is_aborted_and_then_its_controller_reset() {
    let mut sim = Sim::new(config());
    sim.submit(Op::Read, 0, 1, 1).unwrap();
    sim.submit(Op::Read, 1, 1, 2).unwrap();
    let (epoch, cid) = (sim.epoch(0), sim.sent[0].sqe.cid.get());
    sim.advance(seconds(29));
    sim.complete(1, Status::SUCCESS);
    assert_eq!((sim.done.len(), sim.aborts.len()), (1, 0));
    sim.advance(seconds(2));
    assert_eq!((sim.epoch(0), sim.aborts.as_slice()), (epoch, &[cid][..]));
    // Aborted: it is sent again.
    let mut answered = sim.sent.len();
    sim.complete(0, Status::ABORT_REQUESTED);
    assert!(sim.sent.is_empty(), "after a pause");
    sim.advance(seconds(1));
    answered += sim.sent.len();
    assert_eq!(answered, 2);
    // The next time the target does not answer.
    sim.advance(seconds(34));
    assert_eq!((sim.epoch(0), sim.aborts.len()), (epoch, 2));
    sim.advance(seconds(2));
    assert_ne!(sim.epoch(0), epoch);
    assert_eq!(sim.in_flight(), [0, 1], "sent again over the other path");
    assert!(sim.epoch(1).attempt == 1, "the other path is well");
}

#[test]
fn an_event_and_a_request_to_look_show_the_new_size() {
    let mut sim = Sim::new(config());
    sim.blocks = 32;
    sim.event(0, AsyncEvent::NAMESPACE_ATTRIBUTES);
    assert_eq!(sim.host.info().unwrap().blocks, 32);
    assert!(sim.events[0].is_some(), "asked for the next event");
    let read = |action: &&Action| match action {
        Action::Send { sqe, .. } => {
            sqe.opcode == opcode::admin::GET_LOG_PAGE && sqe.cdw10.to_bytes()[0] == 4
        }
        _ => false,
    };
    assert_eq!(
        sim.log.iter().filter(read).count(),
        1,
        "the event is armed again"
    );
    sim.blocks = 64;
    sim.host.look();
    assert!(sim.host.is_looking());
    sim.settle();
    assert!(!sim.host.is_looking());
    let changes = sim.log.iter().filter(|a| matches!(a, Action::Changed(_)));
    assert_eq!(changes.count(), 2);
    assert!(sim.submit(Op::Read, 63, 1, 1).is_ok());
}

#[test]
fn an_event_during_a_look_is_looked_at_too() {
    let mut sim = Sim::new(config());
    sim.mute = true;
    sim.host.look();
    sim.settle();
    // The answers on their way are old by now.
    for _ in 0..5 {
        sim.event(0, AsyncEvent::NAMESPACE_ATTRIBUTES);
    }
    sim.log.clear();
    sim.mute = false;
    sim.settle();
    let looks = sim.log.iter().filter(|action| match action {
        Action::Send { epoch, sqe, .. } => epoch.path == 0 && sqe.opcode == opcode::admin::IDENTIFY,
        _ => false,
    });
    assert_eq!(looks.count(), 1, "one for all that came meanwhile");
    assert!(!sim.host.is_looking());
}

#[test]
fn an_event_of_another_kind_is_armed_again() {
    let mut sim = Sim::new(config());
    let health = AsyncEvent {
        kind: 1,
        information: 1,
        log_page: 2,
    };
    sim.event(0, health);
    let read = sim.log.iter().any(|action| match action {
        Action::Send { sqe, .. } => {
            sqe.opcode == opcode::admin::GET_LOG_PAGE && sqe.cdw10.to_bytes()[0] == 2
        }
        _ => false,
    });
    assert!(read && sim.events[0].is_some());
}

#[test]
fn nonsense_from_the_target_ends_the_connection_only() {
    let wrong: [fn(&mut Sim); 5] = [
        |sim| {
            let command = sim.sent[0];
            let cqe = Cqe::new(command.sqe.cid.get(), Status::SUCCESS, 0); // without the data
            sim.host
                .completed(command.epoch, command.qid, &cqe, &[], sim.now);
        },
        |sim| {
            let cqe = Cqe::new(0x7fff, Status::SUCCESS, 0);
            sim.host.completed(sim.epoch(0), 1, &cqe, &[], sim.now);
        },
        |sim| {
            let cqe = Cqe::new(CID_SEQUENCE | 0x77, Status::SUCCESS, 0);
            sim.host.completed(sim.epoch(0), 0, &cqe, &[], sim.now);
        },
        |sim| {
            let cqe = Cqe::new(CID_CONNECT, Status::SUCCESS, 0);
            sim.host.completed(sim.epoch(0), 9, &cqe, &[], sim.now);
        },
        |sim| {
            let cqe = Cqe::new(super::super::control::CID_ABORT, Status::SUCCESS, 0);
            sim.host.completed(sim.epoch(0), 0, &cqe, &[], sim.now);
        },
    ];
    for act in wrong {
        let mut sim = Sim::new(config());
        sim.submit(Op::Read, 0, 1, 1).unwrap();
        let before = sim.epoch(0).attempt;
        act(&mut sim);
        sim.settle();
        assert_eq!(sim.epoch(0).attempt, before + 1);
        sim.finish();
        assert_eq!(sim.done.len(), 1);
    }
}

#[test]
fn data_must_be_the_next_and_fit() {
    let mut sim = Sim::new(config());
    sim.submit(Op::Read, 0, 1, 1).unwrap();
    let command = sim.sent[0];
    let (epoch, qid, cid) = (command.epoch, command.qid, command.sqe.cid.get());
    let old = Epoch {
        attempt: epoch.attempt - 1,
        ..epoch
    };
    assert!(sim.host.received(epoch, qid, cid, 4, 4).is_none());
    assert!(sim.host.received(epoch, qid, cid, 0, 5000).is_none());
    assert!(sim.host.received(epoch, qid, cid, 0, 4000).is_some());
    assert!(sim.host.received(epoch, qid, cid, 0, 96).is_none());
    assert!(sim.host.received(epoch, qid, cid, 4000, 96).is_some());
    assert!(sim.host.received(old, qid, cid, 0, 4).is_none());
    assert!(sim.host.asked(epoch, qid, cid, 4096, 4).is_none());
    sim.submit(WRITE, 1, 1, 2).unwrap();
    let command = sim.sent[1];
    let (qid, cid) = (command.qid, command.sqe.cid.get());
    assert!(sim.host.received(epoch, qid, cid, 0, 4).is_none());
    assert!(sim.host.asked(epoch, qid, cid, 0, 4096).is_some());
    assert!(sim.host.asked(epoch, qid, cid, 0, 4096).is_none(), "once");
}

#[test]
fn closing_ends_everything() {
    let mut sim = Sim::new(config());
    sim.submit(Op::Read, 0, 1, 1).unwrap();
    sim.host.close();
    sim.settle();
    assert_eq!(sim.ended(), [(1, Err(IoError::Closed))]);
    assert!(sim.open.is_empty());
    assert_eq!(sim.host.deadline(), None);
    sim.submit(Op::Flush, 0, 0, 2).unwrap();
    assert_eq!(sim.ended().last(), Some(&(2, Err(IoError::Closed))));
}

#[test]
fn what_goes_over_a_path_is_counted_once() {
    let mut sim = Sim::new(config());
    // Split into three commands; a flush and zeroes carry no data.
    sim.submit(Op::Read, 0, 5, 1).unwrap();
    sim.submit(WRITE, 8, 1, 2).unwrap();
    sim.submit(Op::Flush, 0, 0, 3).unwrap();
    sim.submit(Op::WriteZeroes { deallocate: true }, 9, 1, 4)
        .unwrap();
    for _ in 0..6 {
        sim.complete(0, Status::SUCCESS);
    }
    let counted = |reads, read_blocks: u64, writes, written_blocks: u64| Traffic {
        reads,
        writes,
        read_bytes: read_blocks * 4096,
        written_bytes: written_blocks * 4096,
    };
    assert_eq!(sim.done.len(), 4);
    assert_eq!(sim.host.paths()[0].traffic, counted(3, 5, 1, 1));
    // What fails, or is lost with the path, counts where it is carried out.
    sim.submit(WRITE, 0, 2, 5).unwrap();
    sim.complete(0, Status::INTERNAL_PATH);
    sim.advance(seconds(1));
    sim.submit(Op::Read, 0, 1, 6).unwrap();
    sim.kill(0);
    assert_eq!(sim.in_flight(), [0, 2]);
    sim.complete(0, Status::SUCCESS);
    sim.complete(0, Status::SUCCESS);
    let traffic: Vec<_> = sim.host.paths().iter().map(|p| p.traffic).collect();
    assert_eq!(traffic, [counted(3, 5, 1, 1), counted(1, 1, 1, 2)]);
    // A path counts on over its next controller.
    sim.dead[0] = false;
    sim.advance(seconds(3));
    sim.submit(Op::Read, 0, 1, 7).unwrap();
    sim.complete(0, Status::SUCCESS);
    assert_eq!(sim.host.paths()[0].traffic, counted(4, 6, 1, 1));
}
