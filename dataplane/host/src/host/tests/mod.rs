//! A target on several paths, and tests against it.

mod model;
mod paths;
mod requests;
mod wanted;

use std::collections::HashMap;
use std::time::Duration;

use roadstead_nvme::command::AdminCommand;
use roadstead_nvme::event::AsyncEvent;
use roadstead_nvme::fabrics::FabricsCommand;
use roadstead_nvme::identify::{
    IdentifyController, IdentifyControllerNvm, IdentifyNamespace, NamespaceDescriptor,
};
use roadstead_nvme::nqn::Nqn;
use roadstead_nvme::{Cqe, Status, identify::cns, log, opcode, property};
use uuid::Uuid;
use zerocopy::{FromZeros, IntoBytes};

use super::*;
use crate::action::{PathState, Traffic};
use crate::config::{Identity, Limits, Wanted};

const UUID: Uuid = Uuid::from_u128(0xabc);
const BLOCKS: u64 = 16;
const PATHS: usize = 2;
/// Where paths can be; each is a portal, another one when a path has ended there.
const PLACES: usize = 4;
/// 2 pages: larger requests are split.
const MDTS: u8 = 1;
const WRITE: Op = Op::Write { durable: false };
/// The target's; s.
const ANA_TRANSITION: u8 = 10;

fn config() -> HostConfig {
    HostConfig {
        identity: Identity {
            nqn: Nqn::new("nqn.2014-08.org.nvmexpress:uuid:1").unwrap(),
            id: Uuid::from_u128(1),
            keys: None,
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

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// What is left on a path of a controller that was given up: it may take effect until it cannot any more.
struct Leftover {
    until: Instant,
    /// How many paths had ended at its place.
    ended: usize,
    command: Command,
}

/// A target that answers as the test wants, and the network to it.
struct Sim {
    host: Host,
    now: Instant,
    blocks: u64,
    uuid: [Uuid; PLACES],
    /// Paths that refuse connections.
    dead: [bool; PLACES],
    /// ANA state of the namespace's group.
    ana: [u8; PLACES],
    /// Open connections.
    open: Vec<(Epoch, u16)>,
    /// Control commands not answered: the target is silent while `mute`.
    mute: bool,
    /// Paths over which control commands are not answered.
    silent: [bool; PLACES],
    /// It knows Cross-Controller Reset.
    fences: bool,
    control: VecDeque<(Epoch, u16, Box<Sqe>)>,
    events: [Option<(Epoch, u16)>; PLACES],
    /// Occurred while no request for it was there.
    pending: [Option<AsyncEvent>; PLACES],
    /// Identifiers of aborted commands.
    aborts: Vec<u16>,
    /// I/O commands in flight.
    sent: Vec<Command>,
    /// How many paths have ended at each place.
    ended: [usize; PLACES],
    leftovers: Vec<Leftover>,
    store: Vec<u64>,
    /// What a request writes, or what it has read, by block.
    data: HashMap<u64, Vec<u64>>,
    log: Vec<Action>,
    done: Vec<Done>,
}

impl Sim {
    fn new(config: HostConfig) -> Self {
        Self::with_fences(config, false)
    }

    fn with_fences(config: HostConfig, fences: bool) -> Self {
        let now = Instant::now();
        let mut sim = Self {
            host: Host::new(config, now),
            now,
            blocks: BLOCKS,
            uuid: [UUID; PLACES],
            dead: [false; PLACES],
            ana: [log::ana::OPTIMIZED; PLACES],
            open: Vec::new(),
            mute: false,
            silent: [false; PLACES],
            fences,
            control: VecDeque::new(),
            events: [None; PLACES],
            pending: [None; PLACES],
            aborts: Vec::new(),
            sent: Vec::new(),
            ended: [0; PLACES],
            leftovers: Vec::new(),
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
            while let Some((epoch, qid, sqe)) = self.next_control() {
                moved = true;
                self.answer(epoch, qid, &sqe);
            }
            while let Some(command) = self.host.next_command(self.now) {
                moved = true;
                self.sent.push(command);
            }
            self.done
                .extend(std::iter::from_fn(|| self.host.next_done()));
            if !moved {
                return;
            }
        }
    }

    /// The next control command that is to be answered.
    fn next_control(&mut self) -> Option<(Epoch, u16, Box<Sqe>)> {
        let silent = self.silent;
        let is_heard = |(epoch, ..): &(Epoch, _, _)| !silent[usize::from(epoch.path)];
        let index = self.control.iter().position(is_heard);
        self.control.remove(index.filter(|_| !self.mute)?)
    }

    fn act(&mut self, action: Action) {
        match &action {
            Action::Open { epoch, qid, .. } => {
                if self.dead[usize::from(epoch.path)] {
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
                let event = &mut self.events[usize::from(epoch.path)];
                *event = event.filter(|(e, _)| e != epoch);
                let of_it = |command: &mut Command| command.epoch == *epoch;
                let until = self.now + self.host.config.limits.keep_alive * 6;
                let left = self.sent.extract_if(.., of_it);
                let left = left.filter(|command| !matches!(command.payload, Payload::Read(_)));
                let ended = self.ended[usize::from(epoch.path)];
                self.leftovers.extend(left.map(|command| Leftover {
                    until,
                    ended,
                    command,
                }));
            }
            Action::Removed { path } => {
                let is_open = |(epoch, _): &(Epoch, _)| usize::from(epoch.path) == *path;
                assert!(!self.open.iter().any(is_open), "closed before");
                self.ended[*path] += 1;
            }
            _ => {}
        }
        self.log.push(action);
    }

    /// Leftovers take effect, as late as they can.
    fn haunt(&mut self, is_due: impl Fn(&Leftover) -> bool) {
        let due: Vec<_> = self
            .leftovers
            .extract_if(.., |leftover| is_due(leftover))
            .collect();
        for leftover in due {
            self.execute(&leftover.command);
        }
    }

    fn answer(&mut self, epoch: Epoch, qid: u16, sqe: &Sqe) {
        let path = usize::from(epoch.path);
        let cid = sqe.cid.get();
        let [cns, ..] = sqe.cdw10.to_bytes();
        let mut page = Vec::new();
        let mut result = 0;
        match (sqe.opcode, cns) {
            (opcode::FABRICS, _) => {
                result = match FabricsCommand::parse(sqe).unwrap() {
                    FabricsCommand::PropertyGet { offset, .. } if offset == property::CAP => {
                        property::Capabilities::new(128, 10).0
                    }
                    FabricsCommand::Connect(connect) if connect.qid == 0 => {
                        // The target lets a host in after the last of its ended controllers' commands.
                        let ended = self.ended[path];
                        self.haunt(|leftover| {
                            leftover.command.epoch.path == epoch.path && leftover.ended == ended
                        });
                        1
                    }
                    _ => 1,
                };
            }
            (opcode::admin::IDENTIFY, cns) => page = self.identify(path, cns, sqe.nsid.get()),
            (opcode::admin::SET_FEATURES, _) => result = 0x0001_0001,
            (opcode::admin::GET_LOG_PAGE, log::id::ANA) => {
                page = vec![0; 48];
                page[8] = 1;
                page[16] = 1;
                page[32] = self.ana[path];
            }
            (opcode::admin::ASYNC_EVENT, _) => {
                self.events[path] = Some((epoch, cid));
                if let Some(event) = self.pending[path].take() {
                    self.event(path, event);
                }
                return;
            }
            (opcode::admin::CROSS_CONTROLLER_RESET, _) => {
                let Ok(AdminCommand::CrossControllerReset {
                    instance,
                    instance_random,
                    ..
                }) = AdminCommand::parse(sqe)
                else {
                    panic!("{sqe:?}");
                };
                assert_ne!(u16::from(instance), epoch.path + 1, "never its own");
                self.haunt(|leftover| {
                    let Epoch { path, attempt } = leftover.command.epoch;
                    path + 1 == u16::from(instance) && u64::from(attempt) == instance_random
                });
            }
            (opcode::admin::ABORT, _) => self.aborts.push(sqe.cdw10_high()),
            _ => {}
        }
        if sqe.opcode == opcode::admin::CROSS_CONTROLLER_RESET {
            result = 1;
        }
        let cqe = Cqe::new(cid, Status::SUCCESS, result);
        self.host.completed(epoch, qid, &cqe, &page, self.now);
    }

    fn identify(&self, path: usize, cns: u8, nsid: u32) -> Vec<u8> {
        match cns {
            cns::CONTROLLER => {
                let mut data = IdentifyController::zeroed();
                data.transfer_max = MDTS;
                data.events = 0x900.into();
                data.io_commands = IdentifyController::ONCS_WRITE_ZEROES.into();
                data.multipath = 8;
                data.ana_transition_s = ANA_TRANSITION;
                data.ana_groups = 1.into();
                if self.fences {
                    data.instance = u8::try_from(path).unwrap() + 1;
                    data.instance_random = u64::from(self.epoch(path).attempt).into();
                    data.cross_controller_resets = 1;
                }
                data.as_bytes().to_vec()
            }
            cns::COMMAND_SET_CONTROLLER => {
                let mut data = IdentifyControllerNvm::new_zeroed();
                data.write_zeroes_max = MDTS + 1;
                data.as_bytes().to_vec()
            }
            cns::ACTIVE_NAMESPACES => {
                let mut page = vec![0; 4096];
                page[..8].copy_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
                page
            }
            cns::NAMESPACE_DESCRIPTORS => {
                let uuid = match nsid {
                    5 => self.uuid[path],
                    _ => Uuid::from_u128(1),
                };
                let mut page = Vec::new();
                NamespaceDescriptor::Uuid(uuid.into_bytes()).write(&mut page);
                page
            }
            _ => {
                let mut data = IdentifyNamespace::zeroed();
                data.size = self.blocks.into();
                data.lba_formats[0].data_shift = 12;
                data.ana_group = 1.into();
                data.as_bytes().to_vec()
            }
        }
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
        let command = self.sent.swap_remove(index % self.sent.len());
        let (epoch, cid) = (command.epoch, command.sqe.cid.get());
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

    fn epoch(&self, path: usize) -> Epoch {
        self.host.paths[path].epoch
    }

    /// A path's connections break; the bits say which commands in flight the target did before.
    fn cut(&mut self, path: usize, executed: u32) {
        if self.host.paths.len() <= path {
            return;
        }
        let epoch = self.epoch(path);
        for index in 0..self.sent.len() {
            if self.sent[index].epoch == epoch && executed >> (index % 32) & 1 == 1 {
                let command = self.sent[index];
                self.execute(&command);
            }
        }
        self.host.lost(epoch, "reset".into(), self.now);
        self.settle();
    }

    /// A path breaks and stays so.
    fn kill(&mut self, path: usize) {
        self.dead[path] = true;
        self.cut(path, 0);
    }

    /// Other paths are wanted.
    fn want(&mut self, places: &[u16]) {
        self.host.want(places, self.now);
        self.host.tick(self.now);
        self.settle();
    }

    fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.host.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let now = self.now;
            self.haunt(|leftover| leftover.until <= now);
            self.host.tick(self.now);
            self.settle();
        }
        self.now = end;
        self.haunt(|leftover| leftover.until <= end);
        self.host.tick(self.now);
        self.settle();
    }

    fn event(&mut self, path: usize, event: AsyncEvent) {
        let Some((epoch, cid)) = self.events[path].take() else {
            self.pending[path] = Some(event);
            return;
        };
        let cqe = Cqe::new(cid, Status::SUCCESS, u64::from(event.encode()));
        self.host.completed(epoch, 0, &cqe, &[], self.now);
        self.settle();
    }

    fn set_ana(&mut self, path: usize, state: u8) {
        self.ana[path] = state;
        self.event(path, AsyncEvent::ANA_CHANGE);
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
        self.dead = [false; PLACES];
        self.silent = [false; PLACES];
        self.mute = false;
        for path in 0..PLACES {
            self.set_ana(path, log::ana::OPTIMIZED);
        }
        while self.host.outstanding() > 0 {
            self.advance(seconds(3));
            self.complete(0, Status::SUCCESS);
        }
    }

    fn states(&self) -> Vec<PathState> {
        self.host.paths().iter().map(|p| p.state).collect()
    }

    /// How many commands in flight are on each of the first paths.
    fn in_flight<const N: usize>(&self) -> [usize; N] {
        let mut count = [0; N];
        for command in &self.sent {
            count[usize::from(command.epoch.path)] += 1;
        }
        count
    }

    /// The requests that ended, with their results.
    fn ended(&self) -> Vec<(u64, Result<(), IoError>)> {
        self.done.iter().map(|d| (d.token, d.result)).collect()
    }
}
