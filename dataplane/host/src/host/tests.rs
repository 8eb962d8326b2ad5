use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use roadstead_nvme::command::IoCommand;
use roadstead_nvme::fabrics::FabricsCommand;
use roadstead_nvme::identify::{
    IdentifyController, IdentifyControllerNvm, IdentifyNamespace, NamespaceDescriptor,
};
use roadstead_nvme::nqn::Nqn;
use roadstead_nvme::{Cqe, Status, event::AsyncEvent, identify::cns, opcode, property};
use uuid::Uuid;
use zerocopy::{FromZeros, IntoBytes};

use super::control::{CID_CONNECT, CID_SEQUENCE};
use super::*;
use crate::config::{Identity, Limits, Wanted};

const UUID: Uuid = Uuid::from_u128(0xabc);
const BLOCKS: u64 = 16;
const PATHS: usize = 2;
/// 2 pages: larger requests are split.
const MDTS: u8 = 1;

fn config() -> HostConfig {
    HostConfig {
        identity: Identity {
            nqn: Nqn::new("nqn.2014-08.org.nvmexpress:uuid:1").unwrap(),
            id: Uuid::from_u128(1),
        },
        subsystem_nqn: Nqn::new("nqn.2026-11.io.roadstead:example").unwrap(),
        namespace: Wanted::Uuid(UUID),
        paths: PATHS,
        limits: Limits {
            io_queues: 2,
            queue_depth: 3,
            requests_max: 12,
            ..Limits::default()
        },
    }
}

/// A target that answers as the test wants, and the network to it.
struct Sim {
    host: Host,
    now: Instant,
    blocks: u64,
    uuid: Uuid,
    /// Paths that refuse connections.
    dead: [bool; PATHS],
    /// Open connections of the attempt.
    open: Vec<(u32, u16)>,
    /// Control commands not answered: the target is silent while `mute`.
    mute: bool,
    control: VecDeque<(u32, u16, Box<Sqe>)>,
    event: Option<(u32, u16)>,
    /// I/O commands in flight.
    sent: Vec<(u32, Command)>,
    store: Vec<u64>,
    /// What a request writes, or what it has read, by block.
    data: HashMap<u64, Vec<u64>>,
    log: Vec<Action>,
    done: Vec<Done>,
}

impl Sim {
    fn new(config: HostConfig) -> Self {
        let now = Instant::now();
        let mut sim = Self {
            host: Host::new(config, now),
            now,
            blocks: BLOCKS,
            uuid: UUID,
            dead: [false; PATHS],
            open: Vec::new(),
            mute: false,
            control: VecDeque::new(),
            event: None,
            sent: Vec::new(),
            store: vec![0; usize::try_from(BLOCKS).unwrap()],
            data: HashMap::new(),
            log: Vec::new(),
            done: Vec::new(),
        };
        sim.host.tick(now);
        sim.settle();
        sim
    }

    /// Lets the host and the control side of the target run until nothing moves.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            while let Some(action) = self.host.next_action() {
                moved = true;
                self.act(action);
            }
            while !self.mute
                && let Some((epoch, qid, sqe)) = self.control.pop_front()
            {
                moved = true;
                self.answer(epoch, qid, &sqe);
            }
            while let Some(command) = self.host.next_command(self.now) {
                moved = true;
                self.sent.push((self.host.epoch, command));
            }
            self.done
                .extend(std::iter::from_fn(|| self.host.next_done()));
            if !moved {
                return;
            }
        }
    }

    fn act(&mut self, action: Action) {
        match &action {
            Action::Open { epoch, qid, path } => {
                if self.dead[*path] {
                    self.host.lost(*epoch, "refused".into(), self.now);
                } else {
                    self.open.push((*epoch, *qid));
                    self.host.ready(*epoch, *qid);
                }
            }
            Action::Send {
                epoch, qid, sqe, ..
            } => {
                assert!(self.open.contains(&(*epoch, *qid)), "sent on no connection");
                self.control.push_back((*epoch, *qid, sqe.clone()));
            }
            Action::Close { epoch } => {
                self.open.retain(|(e, _)| e != epoch);
                self.control.retain(|(e, ..)| e != epoch);
                self.sent.retain(|(e, _)| e != epoch);
                self.event = self.event.filter(|(e, _)| e != epoch);
            }
            _ => {}
        }
        self.log.push(action);
    }

    fn answer(&mut self, epoch: u32, qid: u16, sqe: &Sqe) {
        let cid = sqe.cid.get();
        let [cns, ..] = sqe.cdw10.to_bytes();
        let mut page = Vec::new();
        let result = match (sqe.opcode, cns) {
            (opcode::FABRICS, _) => match FabricsCommand::parse(sqe).unwrap() {
                FabricsCommand::PropertyGet { offset, .. } if offset == property::CAP => {
                    property::Capabilities::new(128, 10).0
                }
                _ => 1,
            },
            (opcode::admin::IDENTIFY, cns::CONTROLLER) => {
                let mut data = IdentifyController::zeroed();
                data.transfer_max = MDTS;
                data.events = 0x100.into();
                data.io_commands = IdentifyController::ONCS_WRITE_ZEROES.into();
                page = data.as_bytes().to_vec();
                0
            }
            (opcode::admin::IDENTIFY, cns::COMMAND_SET_CONTROLLER) => {
                let mut data = IdentifyControllerNvm::new_zeroed();
                data.write_zeroes_max = MDTS + 1;
                page = data.as_bytes().to_vec();
                0
            }
            (opcode::admin::IDENTIFY, cns::ACTIVE_NAMESPACES) => {
                page = vec![0; 4096];
                page[..8].copy_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
                0
            }
            (opcode::admin::IDENTIFY, cns::NAMESPACE_DESCRIPTORS) => {
                let uuid = match sqe.nsid.get() {
                    5 => self.uuid,
                    _ => Uuid::from_u128(1),
                };
                NamespaceDescriptor::Uuid(uuid.into_bytes()).write(&mut page);
                0
            }
            (opcode::admin::IDENTIFY, _) => {
                let mut data = IdentifyNamespace::zeroed();
                data.size = self.blocks.into();
                data.lba_formats[0].data_shift = 12;
                page = data.as_bytes().to_vec();
                0
            }
            (opcode::admin::SET_FEATURES, _) => 0x0001_0001,
            (opcode::admin::ASYNC_EVENT, _) => {
                self.event = Some((epoch, cid));
                return;
            }
            _ => 0,
        };
        let cqe = Cqe::new(cid, Status::SUCCESS, result);
        self.host.completed(epoch, qid, &cqe, &page, self.now);
    }

    /// The target does a command.
    fn execute(&mut self, command: &Command) {
        let (blocks, is_write) = match IoCommand::parse(&command.sqe).unwrap() {
            IoCommand::Read { blocks, .. } => (blocks, false),
            IoCommand::Write { blocks, .. } => (blocks, true),
            IoCommand::WriteZeroes { blocks, .. } => {
                assert!(blocks.count <= 4, "the limit is kept");
                let start = usize::try_from(blocks.start).unwrap();
                self.store[start..start + blocks.count as usize].fill(0);
                return;
            }
            IoCommand::Flush { .. } => return,
            other => panic!("{other:?}"),
        };
        let (Payload::Read(transfer) | Payload::Write(transfer)) = command.payload else {
            panic!("no payload");
        };
        assert_eq!(transfer.is_read, !is_write);
        assert_eq!(transfer.length_bytes, blocks.count * 4096);
        let data = self.data.get_mut(&transfer.token).unwrap();
        let first = usize::try_from(transfer.offset_bytes / 4096).unwrap();
        for index in 0..blocks.count as usize {
            let place = &mut self.store[usize::try_from(blocks.start).unwrap() + index];
            match is_write {
                true => *place = data[first + index],
                false => data[first + index] = *place,
            }
        }
    }

    /// One command is done and answered.
    fn complete(&mut self, index: usize, status: Status) {
        if self.sent.is_empty() {
            return;
        }
        let (epoch, command) = self.sent.swap_remove(index % self.sent.len());
        let cid = command.sqe.cid.get();
        if status.is_success() {
            self.execute(&command);
            if let Payload::Read(transfer) = command.payload {
                let bytes = transfer.length_bytes;
                let got = self.host.received(epoch, command.qid, cid, 0, bytes);
                assert_eq!(got, Some(transfer));
            }
        }
        let cqe = Cqe::new(cid, status, 0);
        self.host.completed(epoch, command.qid, &cqe, &[], self.now);
        self.settle();
    }

    /// The connection breaks; the bits say which commands in flight the target did before.
    fn cut(&mut self, executed: u32) {
        for index in 0..self.sent.len() {
            if executed >> (index % 32) & 1 == 1 {
                let command = self.sent[index].1;
                self.execute(&command);
            }
        }
        let epoch = self.host.epoch;
        self.host.lost(epoch, "reset".into(), self.now);
        self.settle();
    }

    fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.host.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.host.tick(self.now);
            self.settle();
        }
        self.now = end;
        self.host.tick(self.now);
        self.settle();
    }

    fn submit(&mut self, op: Op, lba: u64, blocks: u32, token: u64) -> Result<(), Refused> {
        let result = self.host.submit(Request {
            op,
            lba,
            blocks,
            token,
        });
        if result.is_ok() {
            self.data.insert(token, vec![token; blocks as usize]);
        }
        self.settle();
        result
    }

    fn finish(&mut self) {
        self.dead = [false; PATHS];
        self.mute = false;
        self.settle();
        while self.host.outstanding() > 0 {
            self.advance(Duration::from_secs(3));
            self.complete(0, Status::SUCCESS);
        }
    }

    fn states(&self) -> Vec<PathState> {
        self.host.paths().iter().map(|p| p.state).collect()
    }
}

const WRITE: Op = Op::Write { durable: false };

#[test]
fn it_connects_and_finds_the_namespace_by_uuid() {
    let sim = Sim::new(config());
    let info = sim.host.info().unwrap();
    assert_eq!((info.nsid, info.uuid), (5, Some(UUID)));
    assert_eq!((info.blocks, info.block_bytes), (BLOCKS, 4096));
    assert!(info.has_write_zeroes && !info.read_only);
    let ups = sim.log.iter().filter(|a| matches!(a, Action::Up { .. }));
    assert_eq!(ups.count(), 1);
    assert_eq!(sim.open.len(), 3, "admin and two I/O queues");
    assert_eq!(sim.states(), [PathState::Live, PathState::Connecting]);
}

#[test]
fn another_namespace_is_not_taken() {
    let mut sim = Sim::new(config());
    sim.uuid = Uuid::from_u128(9);
    sim.cut(0);
    let last = sim.log.iter().rev().find_map(|action| match action {
        Action::Down { error, .. } => Some(error.to_string()),
        _ => None,
    });
    let text = last.unwrap();
    assert!(
        text.contains("no namespace") && text.contains(&UUID.to_string()),
        "{text}"
    );
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
fn the_other_path_is_used_when_the_first_fails() {
    let mut sim = Sim::new(config());
    sim.submit(Op::Read, 0, 1, 7).unwrap();
    sim.dead[0] = true;
    sim.cut(0);
    assert_eq!(sim.states(), [PathState::Connecting, PathState::Live]);
    assert!(sim.host.paths()[0].message.contains("refused"));
    sim.complete(0, Status::SUCCESS);
    assert_eq!(
        sim.done,
        [Done {
            token: 7,
            result: Ok(())
        }]
    );
}

#[test]
fn a_path_related_status_moves_the_request_to_another_path() {
    let mut sim = Sim::new(config());
    sim.submit(WRITE, 0, 1, 7).unwrap();
    sim.complete(0, Status::ANA_INACCESSIBLE);
    assert!(sim.done.is_empty());
    sim.finish();
    assert_eq!(
        sim.done,
        [Done {
            token: 7,
            result: Ok(())
        }]
    );
}

#[test]
fn requests_wait_for_the_time_configured_and_fail_then() {
    let mut sim = Sim::new(config());
    sim.submit(Op::Read, 0, 1, 1).unwrap();
    sim.dead = [true; PATHS];
    sim.cut(0);
    sim.submit(WRITE, 0, 1, 2).unwrap();
    sim.advance(Duration::from_secs(599));
    assert!(sim.done.is_empty(), "not before");
    sim.advance(Duration::from_secs(2));
    let lost = |token| Done {
        token,
        result: Err(IoError::PathLost),
    };
    assert_eq!(sim.done, [lost(1), lost(2)]);
    assert_eq!(sim.states(), [PathState::Failed, PathState::Failed]);
    sim.submit(Op::Flush, 0, 0, 3).unwrap();
    assert_eq!(sim.done.last(), Some(&lost(3)), "at once");
    sim.dead = [false; PATHS];
    sim.advance(Duration::from_secs(10));
    assert_eq!(
        sim.states()[0],
        PathState::Live,
        "it comes back all the same"
    );
    sim.submit(Op::Flush, 0, 0, 4).unwrap();
    sim.complete(0, Status::SUCCESS);
    assert_eq!(
        sim.done.last(),
        Some(&Done {
            token: 4,
            result: Ok(())
        })
    );
}

#[test]
fn a_silent_target_is_noticed() {
    let mut sim = Sim::new(config());
    sim.submit(Op::Read, 0, 1, 1).unwrap();
    let epoch = sim.host.epoch;
    sim.advance(Duration::from_secs(20));
    assert_eq!(sim.host.epoch, epoch, "keep-alive is answered");
    sim.mute = true;
    sim.advance(Duration::from_secs(8));
    assert_ne!(sim.host.epoch, epoch);
    sim.mute = false;
    sim.finish();
    assert_eq!(sim.done.len(), 1);
}

#[test]
fn stalled_commands_are_noticed_while_keep_alive_works() {
    let mut sim = Sim::new(config());
    sim.submit(Op::Read, 0, 1, 1).unwrap();
    let epoch = sim.host.epoch;
    sim.advance(Duration::from_secs(31));
    assert_eq!(sim.host.epoch, epoch + 1);
    assert_eq!(sim.sent.len(), 1, "sent again");
}

#[test]
fn an_event_and_a_request_to_look_show_the_new_size() {
    let mut sim = Sim::new(config());
    sim.blocks = 32;
    let (epoch, cid) = sim.event.take().unwrap();
    let event = u64::from(AsyncEvent::NAMESPACE_ATTRIBUTES.encode());
    let cqe = Cqe::new(cid, Status::SUCCESS, event);
    sim.host.completed(epoch, 0, &cqe, &[], sim.now);
    sim.settle();
    assert_eq!(sim.host.info().unwrap().blocks, 32);
    assert!(sim.event.is_some(), "asked for the next event");
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
fn nonsense_from_the_target_ends_the_connection_only() {
    let wrong: [fn(&mut Sim); 4] = [
        |sim| {
            let (epoch, command) = sim.sent[0];
            let cid = command.sqe.cid.get();
            let cqe = Cqe::new(cid, Status::SUCCESS, 0); // without the data
            sim.host.completed(epoch, command.qid, &cqe, &[], sim.now);
        },
        |sim| {
            let cqe = Cqe::new(0x7fff, Status::SUCCESS, 0);
            sim.host.completed(sim.host.epoch, 1, &cqe, &[], sim.now);
        },
        |sim| {
            let cqe = Cqe::new(CID_SEQUENCE | 0x77, Status::SUCCESS, 0);
            sim.host.completed(sim.host.epoch, 0, &cqe, &[], sim.now);
        },
        |sim| {
            let cqe = Cqe::new(CID_CONNECT, Status::SUCCESS, 0);
            sim.host.completed(sim.host.epoch, 9, &cqe, &[], sim.now);
        },
    ];
    for act in wrong {
        let mut sim = Sim::new(config());
        sim.submit(Op::Read, 0, 1, 1).unwrap();
        let epoch = sim.host.epoch;
        act(&mut sim);
        sim.settle();
        assert_eq!(sim.host.epoch, epoch + 1);
        sim.finish();
        assert_eq!(sim.done.len(), 1);
    }
}

#[test]
fn data_must_be_the_next_and_fit() {
    let mut sim = Sim::new(config());
    sim.submit(Op::Read, 0, 1, 1).unwrap();
    let (epoch, command) = sim.sent[0];
    let (qid, cid) = (command.qid, command.sqe.cid.get());
    assert!(sim.host.received(epoch, qid, cid, 4, 4).is_none());
    assert!(sim.host.received(epoch, qid, cid, 0, 5000).is_none());
    assert!(sim.host.received(epoch, qid, cid, 0, 4000).is_some());
    assert!(sim.host.received(epoch, qid, cid, 0, 96).is_none());
    assert!(sim.host.received(epoch, qid, cid, 4000, 96).is_some());
    assert!(sim.host.received(epoch - 1, qid, cid, 0, 4).is_none());
    assert!(sim.host.asked(epoch, qid, cid, 4096, 4).is_none());
    sim.submit(WRITE, 1, 1, 2).unwrap();
    let (epoch, command) = sim.sent[1];
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
    let result = Err(IoError::Closed);
    assert_eq!(sim.done, [Done { token: 1, result }]);
    assert!(sim.open.is_empty());
    assert_eq!(sim.host.deadline(), None);
}

#[derive(Clone, Debug)]
enum Step {
    Submit { kind: u8, lba: u64, blocks: u32 },
    Complete { index: usize, passing: bool },
    Cut { executed: u32 },
    Dead { path: usize, dead: bool },
    Mute(bool),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..4, 0..BLOCKS, 0u32..6)
            .prop_map(|(kind, lba, blocks)| Step::Submit { kind, lba, blocks }),
        8 => (0usize..8, prop::bool::weighted(0.1))
            .prop_map(|(index, passing)| Step::Complete { index, passing }),
        2 => any::<u32>().prop_map(|executed| Step::Cut { executed }),
        1 => (0..PATHS, any::<bool>()).prop_map(|(path, dead)| Step::Dead { path, dead }),
        1 => any::<bool>().prop_map(Step::Mute),
        2 => (1u64..4000).prop_map(Step::Advance),
    ]
}

proptest! {
    /// Whatever breaks and when: each request is done once, reads see what the model says, and at the end the
    /// target holds what the model holds. The model is an array, changed when a write is submitted: overlapping
    /// requests are not in flight together.
    #[test]
    fn nothing_is_lost_or_done_twice(steps in prop::collection::vec(step(), 1..120)) {
        let mut sim = Sim::new(config());
        let mut model = vec![0u64; usize::try_from(BLOCKS).unwrap()];
        let mut busy: HashMap<u64, (Op, u64, u32)> = HashMap::new();
        let mut token = 0;
        let mut checked = 0;
        for step in steps.into_iter().map(Some).chain([None]) {
            match step {
                Some(Step::Submit { kind, lba, blocks }) => {
                    let op = match kind {
                        0 => Op::Read,
                        1 => WRITE,
                        2 => Op::WriteZeroes { deallocate: true },
                        _ => Op::Flush,
                    };
                    let (lba, blocks) = if op == Op::Flush { (0, 0) } else { (lba, blocks) };
                    let end = lba + u64::from(blocks);
                    let overlaps = busy.values().any(|(_, l, b)| *l < end && lba < l + u64::from(*b));
                    if overlaps {
                        continue;
                    }
                    token += 1;
                    if sim.submit(op, lba, blocks, token).is_ok() {
                        busy.insert(token, (op, lba, blocks));
                        let range = usize::try_from(lba).unwrap()..usize::try_from(end).unwrap();
                        match op {
                            WRITE => model[range].fill(token),
                            Op::WriteZeroes { .. } => model[range].fill(0),
                            _ => {}
                        }
                    }
                }
                Some(Step::Complete { index, passing: false }) => sim.complete(index, Status::SUCCESS),
                Some(Step::Complete { index, passing: true }) => {
                    sim.complete(index, Status::NAMESPACE_NOT_READY);
                }
                Some(Step::Cut { executed }) => sim.cut(executed),
                Some(Step::Dead { path, dead }) => sim.dead[path] = dead,
                Some(Step::Mute(mute)) => {
                    sim.mute = mute;
                    sim.settle();
                }
                Some(Step::Advance(ms)) => sim.advance(Duration::from_millis(ms)),
                None => sim.finish(),
            }
            for done in &sim.done[checked..] {
                let (op, lba, blocks) = busy.remove(&done.token).expect("done once");
                prop_assert_eq!(done.result, Ok(()));
                if op == Op::Read {
                    let start = usize::try_from(lba).unwrap();
                    let expected = &model[start..start + blocks as usize];
                    prop_assert_eq!(&sim.data[&done.token], expected);
                }
            }
            checked = sim.done.len();
        }
        prop_assert!(busy.is_empty());
        prop_assert_eq!(sim.store, model);
    }
}
