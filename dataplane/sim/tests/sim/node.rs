//! The target's process: connections, their I/O, the table. What the daemon's reactor does, without one.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use roadstead_nvme::{AnaState, Nqn, Portal};
use roadstead_target::tcp::{Close, Connection, Flow, Output};
use roadstead_target::{
    Abandoned, Access, AnaStates, BlockSize, IoError, IoOp, IoRequest, IoResult, Namespace,
    PortalRules, Registry, Subsystem, Table, Tag, VolumeKey, limits,
};
use roadstead_target::{Rim, Turn};
use uuid::Uuid;

use crate::drive::Drive;
use crate::plan::{Broken, Plan};
use crate::rng::Rng;

pub const VOLUME: VolumeKey = VolumeKey(1);
/// Where hosts connect.
pub const PORTALS: [SocketAddr; 2] = [portal(1), portal(2)];

const fn portal(last: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 4420)
}

pub const UUID: Uuid = Uuid::from_u128(0x5eed);

pub fn nqn(name: &str) -> Nqn {
    Nqn::new(name).unwrap_or_else(|_| Nqn::discovery())
}

pub fn subsystem_nqn() -> Nqn {
    nqn("nqn.2026-11.io.roadstead:sim")
}

pub fn host_nqn(host: usize) -> Nqn {
    nqn(&format!("nqn.2014-08.org.nvmexpress:uuid:host-{host}"))
}

/// A buffer that is counted.
pub struct Buf {
    bytes: Vec<u8>,
    used: Rc<Cell<usize>>,
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.used.set(self.used.get() - self.bytes.len());
    }
}

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for Buf {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// What waits for a connection's socket.
#[derive(Default)]
pub struct Wire(pub VecDeque<u8>, Vec<u8>);

impl Wire {
    /// Moves a filled area to the rest.
    fn settle(&mut self) {
        self.0.extend(self.1.drain(..));
    }

    pub fn take(&mut self, most: usize) -> Vec<u8> {
        self.settle();
        let most = most.min(self.0.len());
        self.0.drain(..most).collect()
    }
}

impl Output<Buf> for Wire {
    fn pending(&self) -> usize {
        self.0.len() + self.1.len()
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.settle();
        self.0.extend(bytes);
    }

    fn area(&mut self, length: usize) -> &mut [u8] {
        self.settle();
        self.1.resize(length, 0xdd);
        &mut self.1
    }

    fn retract(&mut self, length: usize) {
        assert_eq!(self.1.len(), length, "the last area, and the whole of it");
        self.1.clear();
    }

    fn buffer(&mut self, buffer: Buf, length: usize) {
        self.bytes(&buffer.bytes[..length]);
    }
}

/// An I/O that was handed out.
pub struct Job {
    pub link: u64,
    pub tag: Tag,
    pub request: IoRequest,
    pub buffer: Option<Buf>,
    /// Blocks that are done.
    pub done: usize,
    pub error: Option<IoError>,
}

/// The storage side.
pub struct Storage {
    pub drive: Drive,
    pub rng: Rng,
    immediate: bool,
    /// Buffers of the connection that is being called.
    used: Rc<Cell<usize>>,
    all_used: Vec<Rc<Cell<usize>>>,
    limit: usize,
    link: u64,
    pub submitted: Vec<Job>,
    /// What is at the drive, by connection; bytes of those that write.
    changing: Vec<(u64, Tag, Range<u64>)>,
    /// Connections that have ended and have I/O in flight.
    lost: BTreeSet<u64>,
}

impl Rim for Storage {
    type Buffer = Buf;

    fn allocate(&mut self, length: usize) -> Option<Buf> {
        let all: usize = self.all_used.iter().map(|used| used.get()).sum();
        if all + length > self.limit {
            return None;
        }
        self.used.set(self.used.get() + length);
        let used = Rc::clone(&self.used);
        Some(Buf {
            bytes: vec![0xee; length],
            used,
        })
    }

    fn is_immediate(&self, _: VolumeKey) -> bool {
        self.immediate
    }

    fn read_now(&mut self, request: &IoRequest, into: &mut [u8]) -> Option<IoResult> {
        self.now(request, into)
    }

    fn write_now(&mut self, request: &IoRequest, data: &[u8]) -> Option<IoResult> {
        self.now(request, &mut data.to_vec())
    }

    fn submit(&mut self, tag: Tag, request: IoRequest, buffer: Option<Buf>) {
        let link = self.link;
        self.submitted.push(Job {
            link,
            tag,
            request,
            buffer,
            done: 0,
            error: None,
        });
    }
}

impl Storage {
    fn now(&mut self, request: &IoRequest, bytes: &mut [u8]) -> Option<IoResult> {
        if self.rng.permille(100) || self.is_fenced(request) {
            return None;
        }
        let count = self.drive.count(request);
        assert_eq!(bytes.len(), usize::try_from(request.length).unwrap_or(0));
        Some(self.drive.perform(request, bytes, 0, count))
    }
}

impl Storage {
    /// Whether an I/O has to wait for a write of a connection that is lost.
    fn is_fenced(&self, request: &IoRequest) -> bool {
        let bytes = bytes_of(request);
        let mut changing = self.changing.iter();
        self.drive.broken != Broken::Overtakes
            && changing.any(|(link, _, other)| {
                self.lost.contains(link) && other.start < bytes.end && bytes.start < other.end
            })
    }

    /// What the drive is to begin with now.
    pub fn take_ready(&mut self) -> Vec<Job> {
        let mut ready = Vec::new();
        for job in std::mem::take(&mut self.submitted) {
            if self.is_fenced(&job.request) && !self.lost.contains(&job.link) {
                self.submitted.push(job);
                continue;
            }
            // What has not begun when its connection is lost has no effect.
            if !self.lost.contains(&job.link) && job.request.op != IoOp::Read {
                let bytes = bytes_of(&job.request);
                self.changing.push((job.link, job.tag, bytes));
            }
            ready.push(job);
        }
        ready
    }

    /// Whether the connection of this job is lost.
    pub fn has_lost(&self, job: &Job) -> bool {
        self.lost.contains(&job.link)
    }

    fn ended(&mut self, job: &Job) {
        self.changing
            .retain(|(link, tag, _)| (*link, *tag) != (job.link, job.tag));
    }
}

fn bytes_of(request: &IoRequest) -> Range<u64> {
    request.offset..request.offset + u64::from(request.length)
}

#[derive(Default)]
struct Served {
    core: Option<Connection<Buf>>,
    wire: Wire,
    /// Input that was not taken because too much output waits.
    left: Vec<u8>,
    used: Rc<Cell<usize>>,
    /// I/O at the drive.
    in_flight: usize,
    abandoned: Option<Abandoned>,
    /// The socket is gone.
    gone: bool,
}

/// How a call of a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Open,
    /// Close it when its output is sent.
    Ended(Close),
}

/// The process.
pub struct Node {
    registry: Arc<Registry>,
    pub storage: Storage,
    served: BTreeMap<u64, Served>,
    block_size: BlockSize,
    pub blocks: u64,
    pub is_present: bool,
    pub has_namespace: bool,
    pub refused: BTreeSet<usize>,
    /// Another after each loss of power.
    pub cache_epoch: u128,
    /// Of its portals.
    pub ana: [AnaState; 2],
    hosts: usize,
}

impl Node {
    pub fn new(plan: &Plan, rng: &mut Rng, blocks: u64, room: u64) -> Self {
        let storage = Storage {
            drive: Drive::new(plan.block_bytes, room, plan.broken),
            rng: Rng::new(rng.next()),
            immediate: plan.immediate,
            used: Rc::default(),
            all_used: Vec::new(),
            limit: plan.target_buffers,
            link: 0,
            submitted: Vec::new(),
            changing: Vec::new(),
            lost: BTreeSet::new(),
        };
        let mut node = Self {
            registry: Arc::new(Registry::new()),
            storage,
            served: BTreeMap::new(),
            block_size: BlockSize::from_bytes(plan.block_bytes).unwrap_or(BlockSize::B512),
            blocks,
            is_present: true,
            has_namespace: true,
            refused: BTreeSet::new(),
            cache_epoch: 1,
            ana: Default::default(),
            hosts: plan.hosts,
        };
        node.apply();
        node
    }

    /// The process dies and starts again; what the drive holds stays.
    pub fn restart(&mut self) {
        self.served.clear();
        self.storage.all_used.clear();
        self.storage.submitted.clear();
        self.storage.changing.clear();
        self.storage.lost.clear();
        self.registry = Arc::new(Registry::new());
        self.apply();
    }

    /// Serves what the fields say.
    pub fn apply(&mut self) {
        let namespace = Namespace {
            volume: VOLUME,
            uuid: UUID,
            blocks: self.blocks,
            block_size: self.block_size,
            read_only: false,
            ana_group: 1,
            cache_epoch: Some(Uuid::from_u128(self.cache_epoch)),
        };
        let allowed = (0..self.hosts).filter(|host| !self.refused.contains(host));
        let subsystem = Subsystem {
            serial: "SIM".into(),
            namespaces: Arc::new(
                self.has_namespace
                    .then_some((1, namespace))
                    .into_iter()
                    .collect(),
            ),
            access: Access::Hosts(allowed.map(host_nqn).collect()),
        };
        let mut table = Table::new(PORTALS.map(Portal::tcp).to_vec());
        let states = |(portal, state): (SocketAddr, AnaState)| {
            let others = state;
            (
                Portal::tcp(portal),
                AnaStates {
                    others,
                    ..AnaStates::default()
                },
            )
        };
        let rules = PortalRules {
            ana: PORTALS.into_iter().zip(self.ana).map(states).collect(),
            ..PortalRules::default()
        };
        assert_eq!(table.set_rules(rules), Ok(()));
        if self.is_present {
            assert_eq!(table.add(subsystem_nqn(), subsystem), Ok(()));
        }
        self.registry.apply(table);
    }

    pub fn accept(&mut self, link: u64, local: SocketAddr, now_ms: u64) {
        let served = Served {
            core: Some(Connection::new(Arc::clone(&self.registry), local, now_ms)),
            ..Served::default()
        };
        self.storage.all_used.push(Rc::clone(&served.used));
        self.served.insert(link, served);
    }

    pub fn links(&self) -> Vec<u64> {
        let open = |(_, served): &(&u64, &Served)| served.core.is_some();
        self.served
            .iter()
            .filter(open)
            .map(|(link, _)| *link)
            .collect()
    }

    /// Connections whose commands wait.
    pub fn waiting(&self) -> Vec<u64> {
        let waits = |(_, served): &(&u64, &Served)| {
            served.core.as_ref().is_some_and(Connection::is_waiting)
        };
        self.served
            .iter()
            .filter(waits)
            .map(|(link, _)| *link)
            .collect()
    }

    /// Whether the connection's input has to wait.
    pub fn is_paused(&self, link: u64) -> bool {
        self.served
            .get(&link)
            .is_some_and(|served| !served.left.is_empty())
    }

    fn call<T>(
        &mut self,
        link: u64,
        now_ms: u64,
        with: impl FnOnce(&mut Connection<Buf>, &mut Turn<'_, Storage, Wire>) -> T,
    ) -> Option<T> {
        let served = self.served.get_mut(&link)?;
        let core = served.core.as_mut()?;
        self.storage.used = Rc::clone(&served.used);
        self.storage.link = link;
        let before = self.storage.submitted.len();
        let mut turn = Turn {
            rim: &mut self.storage,
            out: &mut served.wire,
            now_ms,
        };
        let result = with(core, &mut turn);
        served.in_flight += self.storage.submitted.len() - before;
        let capsules = usize::from(limits::QUEUE_ENTRIES_MAX)
            * usize::try_from(limits::IN_CAPSULE_BYTES_MAX).unwrap_or(0);
        let reply = usize::try_from(limits::TRANSFER_BYTES_MAX).unwrap_or(0);
        let output = served.wire.pending();
        let bound = limits::BUFFERED_BYTES_MAX.max(limits::OUTPUT_BYTES_MAX) + reply;
        assert!(output <= bound, "{output} bytes of output");
        assert!(
            served.used.get() + output <= bound + capsules,
            "too much memory in use"
        );
        assert!(core.in_flight() <= usize::from(limits::QUEUE_ENTRIES_MAX));
        Some(result)
    }

    /// Bytes came.
    pub fn received(&mut self, link: u64, bytes: &[u8], now_ms: u64) -> Outcome {
        let mut input = bytes;
        let flow = self.call(link, now_ms, |core, turn| core.receive(&mut input, turn));
        let left = input.to_vec();
        match flow {
            None | Some(Ok(Flow::Open)) => Outcome::Open,
            Some(Ok(Flow::Blocked)) => {
                if let Some(served) = self.served.get_mut(&link) {
                    served.left = left;
                }
                Outcome::Open
            }
            Some(Err(close)) => self.end(link, close),
        }
    }

    /// Output was sent: takes input that was left, and goes on with commands that wait.
    pub fn sent(&mut self, link: u64, now_ms: u64) -> Outcome {
        self.call(link, now_ms, |core, turn| {
            if core.is_waiting() {
                core.resume(turn);
            }
        });
        let left = match self.served.get_mut(&link) {
            Some(served) if !served.left.is_empty() => std::mem::take(&mut served.left),
            _ => return Outcome::Open,
        };
        self.received(link, &left, now_ms)
    }

    pub fn tick(&mut self, link: u64, now_ms: u64) -> Outcome {
        match self.call(link, now_ms, |core, turn| core.tick(turn)) {
            Some(Err(close)) => self.end(link, close),
            _ => Outcome::Open,
        }
    }

    /// An I/O ended.
    pub fn complete(&mut self, job: Job, result: IoResult, now_ms: u64) {
        let link = job.link;
        self.storage.ended(&job);
        let Some(served) = self.served.get_mut(&link) else {
            return; // Of the process before.
        };
        served.in_flight -= 1;
        self.call(link, now_ms, |core, turn| {
            core.complete(job.tag, result, job.buffer, turn)
        });
        self.sweep();
    }

    fn end(&mut self, link: u64, close: Close) -> Outcome {
        self.abandon(link);
        Outcome::Ended(close)
    }

    fn abandon(&mut self, link: u64) {
        if let Some(served) = self.served.get_mut(&link) {
            served.left = Vec::new();
            if let Some(core) = served.core.take() {
                let abandoned = core.abandon();
                abandoned.keep_order();
                served.abandoned = Some(abandoned);
                self.storage.lost.insert(link);
            }
        }
    }

    /// The socket is gone.
    pub fn closed(&mut self, link: u64) {
        self.abandon(link);
        if let Some(served) = self.served.get_mut(&link) {
            served.gone = true;
            served.wire = Wire::default();
        }
        self.sweep();
    }

    /// Forgets connections of which nothing is left.
    fn sweep(&mut self) {
        self.served.retain(|_, served| {
            if served.core.is_none() && served.in_flight == 0 {
                served.abandoned = None;
            }
            !served.gone || served.in_flight > 0
        });
        let kept = &self.served;
        self.storage.lost.retain(|link| kept.contains_key(link));
        self.storage.all_used.retain(|used| {
            used.get() > 0 || kept.values().any(|served| Rc::ptr_eq(&served.used, used))
        });
    }

    /// Output to be sent, at most this much.
    pub fn output(&mut self, link: u64, most: usize) -> Vec<u8> {
        self.served
            .get_mut(&link)
            .map(|served| served.wire.take(most))
            .unwrap_or_default()
    }

    pub fn output_len(&self, link: u64) -> usize {
        self.served
            .get(&link)
            .map_or(0, |served| served.wire.pending())
    }

    /// Checks that nothing is left of connections that are closed.
    pub fn assert_empty(&self) {
        assert_eq!(
            self.registry.controllers(),
            [],
            "controllers of no connection"
        );
        assert!(self.served.is_empty(), "I/O that nobody waits for");
        let used: usize = self.storage.all_used.iter().map(|used| used.get()).sum();
        assert_eq!(used, 0, "buffers that nobody uses");
    }
}
