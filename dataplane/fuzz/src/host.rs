//! A host whose target begins as it should and then does anything.
//!
//! The host is the production client, and behind every connection is the production target, so that the client comes as
//! far as it can; what the target sends is changed, cut and added to on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadstead_initiator::{Client, Identity, Limits, Op, Rim, Spec, Wanted};
use roadstead_nvme::{Cqe, Portal, Status};
use roadstead_ring::{Event, Output, RingError, SocketId, Stream, TimerId, WatchId};
use roadstead_target::tcp::{Connection, Flow};
use roadstead_target::{IoRequest, IoResult, Registry, Tag, VolumeKey};
use roadstead_target::{Rim as TargetRim, Turn};
use roadstead_tcp::pdu::{C2hData, IcResp, R2t, TermReq};
use roadstead_tcp::{FatalStatus, Pdu, PduWriter, Settings};

use crate::Input;
use crate::connection::end::{nqn, subsystem_nqn, table};

const BLOCKS: u64 = 64;
/// Exchanges until both ends have nothing to say: a way from nothing to a namespace takes fewer.
const ROUNDS_MAX: usize = 200;
/// Output of a connection: what all requests in flight may carry, and some.
const OUTPUT_BYTES_MAX: usize = 8 << 20;

/// A drive of zeroes.
#[derive(Default)]
struct Zeroes(Vec<(Tag, IoRequest, Option<Vec<u8>>)>);

impl TargetRim for Zeroes {
    type Buffer = Vec<u8>;

    fn allocate(&mut self, length: usize) -> Option<Vec<u8>> {
        Some(vec![0; length])
    }

    fn is_immediate(&self, _: VolumeKey) -> bool {
        true
    }

    fn read_now(&mut self, _: &IoRequest, into: &mut [u8]) -> Option<IoResult> {
        into.fill(0);
        Some(Ok(()))
    }

    fn write_now(&mut self, _: &IoRequest, _: &[u8]) -> Option<IoResult> {
        Some(Ok(()))
    }

    fn submit(&mut self, tag: Tag, request: IoRequest, buffer: Option<Vec<u8>>) {
        self.0.push((tag, request, buffer));
    }
}

/// A connection, with the target at its other end.
struct Link {
    token: u64,
    out: Output,
    target: Connection<Vec<u8>>,
    /// What has not arrived at the host yet.
    to_host: Vec<u8>,
    /// The host has heard that it is connected.
    is_up: bool,
}

/// What the client takes for its reactor.
struct Net {
    start: Instant,
    now_ms: u64,
    registry: Arc<Registry>,
    links: BTreeMap<u64, Link>,
    timers: BTreeMap<u64, (Instant, u64)>,
    next: u64,
}

impl Net {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn find(&self, socket: SocketId) -> Option<u64> {
        let mut links = self.links.keys().copied();
        links.find(|link| SocketId::simulated(*link) == socket)
    }
}

impl Rim for Net {
    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms)
    }

    fn connect(&mut self, address: SocketAddr, token: u64) -> Result<SocketId, RingError> {
        let number = self.number();
        let link = Link {
            token,
            out: Output::default(),
            target: Connection::new(Arc::clone(&self.registry), address, self.now_ms),
            to_host: Vec::new(),
            is_up: false,
        };
        self.links.insert(number, link);
        Ok(SocketId::simulated(number))
    }

    /// There is no target in the host's process here.
    fn adopt(&mut self, _: Stream, _: u64) -> Result<SocketId, RingError> {
        Err(RingError::Full { what: "socket" })
    }

    fn output(&mut self, socket: SocketId) -> Option<&mut Output> {
        let link = self.find(socket)?;
        self.links.get_mut(&link).map(|link| &mut link.out)
    }

    fn finish(&mut self, socket: SocketId) {
        self.close(socket);
    }

    fn close(&mut self, socket: SocketId) {
        if let Some(link) = self.find(socket) {
            self.links.remove(&link);
        }
    }

    fn set_timer(&mut self, delay: Duration, token: u64) -> Result<TimerId, RingError> {
        let number = self.number();
        self.timers.insert(number, (self.now() + delay, token));
        Ok(TimerId::simulated(number))
    }

    fn cancel_timer(&mut self, timer: TimerId) {
        self.timers
            .retain(|number, _| TimerId::simulated(*number) != timer);
    }

    /// There is no RDMA here.
    fn watch(&mut self, _: BorrowedFd<'_>, _: u64) -> Result<WatchId, RingError> {
        Err(RingError::Full { what: "watch" })
    }

    fn unwatch(&mut self, _: WatchId) {}
}

struct World {
    client: Client,
    net: Net,
    /// Requests that were accepted and have not ended.
    open: BTreeSet<u64>,
    next_request: u64,
}

/// Requests of a host with two paths, and everything that a target or a network can do to them.
pub fn host_connection(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new(input.u8());
    if !input.u8().is_multiple_of(4) {
        world.settle();
        assert!(world.client.info().is_some(), "undisturbed, it connects");
    }
    while !input.is_empty() {
        world.step(&mut input);
        world.look();
    }
    world.client.close(&mut world.net);
    world.look();
    assert!(world.open.is_empty(), "requests that never end");
    assert!(world.net.links.is_empty(), "connections that stay");
}

impl World {
    fn new(mode: u8) -> Self {
        let registry = Arc::new(Registry::new());
        registry.apply(table(true, true, BLOCKS));
        let net = Net {
            start: Instant::now(),
            now_ms: 0,
            registry,
            links: BTreeMap::new(),
            timers: BTreeMap::new(),
            next: 0,
        };
        let spec = Spec {
            identity: Identity::named(nqn("nqn.2014-08.org.nvmexpress:uuid:fuzz")),
            subsystem_nqn: subsystem_nqn(),
            namespace: Wanted::First,
            paths: [1, 2]
                .map(|host| Portal::tcp(([192, 0, 2, host], 4420).into()))
                .to_vec(),
            limits: Limits {
                io_queues: u16::from(mode >> 4 & 1) + 1,
                queue_depth: 8,
                requests_max: 32,
                ctrl_loss: Duration::from_secs(20),
                keep_alive: Duration::from_secs(2),
                connect: Duration::from_secs(2),
                io_timeout: Duration::from_secs(3),
                abort_timeout: Duration::from_secs(1),
                ..Limits::default()
            },
            header_digest: mode & 1 != 0,
            data_digest: mode & 2 != 0,
        };
        let mut world = Self {
            client: Client::new(spec, 0, net.start),
            net,
            open: BTreeSet::new(),
            next_request: 0,
        };
        world.client.pump(&mut world.net);
        world
    }

    /// What a reactor does at the end of a turn.
    fn look(&mut self) {
        self.client.pump(&mut self.net);
        while self.client.next_change().is_some() {}
        while let Some(done) = self.client.next_done() {
            assert!(self.open.remove(&done.token), "a request ends twice");
        }
        for link in self.net.links.values() {
            assert!(link.out.len() <= OUTPUT_BYTES_MAX, "output without a bound");
        }
    }

    /// Carries everything to and fro until nobody says anything.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let all: Vec<u64> = self.net.links.keys().copied().collect();
            let mut is_quiet = true;
            for link in all {
                is_quiet &= !self.carry(link, usize::MAX);
            }
            self.look();
            if is_quiet && !self.fire_timers() {
                return;
            }
        }
    }

    /// Carries what the host has sent to the target, and so many bytes back. True when there were any.
    fn carry(&mut self, number: u64, most: usize) -> bool {
        let now_ms = self.net.now_ms;
        let Some(link) = self.net.links.get_mut(&number) else {
            return false;
        };
        if !std::mem::replace(&mut link.is_up, true) {
            let (socket, token) = (SocketId::simulated(number), link.token);
            let event = Event::Connected { socket, token };
            self.client.event(&mut self.net, event);
            return true;
        }
        let mut bytes = Vec::new();
        link.out.take(&mut bytes);
        let mut is_moved = !bytes.is_empty();
        let is_ended = link.receive(&bytes, now_ms).is_err();
        let count = most.min(link.to_host.len());
        let data: Vec<u8> = link.to_host.drain(..count).collect();
        let (socket, token) = (SocketId::simulated(number), link.token);
        if !data.is_empty() {
            is_moved = true;
            let event = Event::Received {
                socket,
                token,
                data: &data,
            };
            self.client.event(&mut self.net, event);
        }
        if is_ended {
            self.closed(number);
        }
        is_moved
    }

    /// The target, or the network, ends a connection.
    fn closed(&mut self, number: u64) {
        if let Some(link) = self.net.links.remove(&number) {
            let event = Event::Closed {
                socket: SocketId::simulated(number),
                token: link.token,
                error: None,
            };
            self.client.event(&mut self.net, event);
        }
    }

    fn fire_timers(&mut self) -> bool {
        let now = self.net.now();
        let due = self.net.timers.iter().find(|(_, (at, _))| *at <= now);
        let Some((number, token)) = due.map(|(number, (_, token))| (*number, *token)) else {
            return false;
        };
        self.net.timers.remove(&number);
        let timer = TimerId::simulated(number);
        self.client
            .event(&mut self.net, Event::Timer { timer, token });
        true
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.u8();
        let links: Vec<u64> = self.net.links.keys().copied().collect();
        let chosen = links
            .get(usize::from(what >> 4) % links.len().max(1))
            .copied();
        match what % 12 {
            0 | 1 => self.settle(),
            2 => self.submit(input),
            3 => {
                for _ in 0..input.u8() % 9 {
                    self.submit(input);
                }
            }
            4 => {
                self.net.now_ms += u64::from(input.u16()) / 8;
                while self.fire_timers() {}
            }
            5 => self.net.registry.apply(table(
                !input.u8().is_multiple_of(4),
                what & 32 == 0,
                BLOCKS + u64::from(input.u8()),
            )),
            _ => {
                if let Some(chosen) = chosen {
                    self.harm(what % 12, chosen, input);
                }
            }
        }
    }

    /// What a target does that is broken or wicked, or a network.
    fn harm(&mut self, how: u8, number: u64, input: &mut Input<'_>) {
        let Some(link) = self.net.links.get_mut(&number) else {
            return;
        };
        match how {
            6 => {
                self.carry(number, usize::from(input.u8()));
            }
            7 => {
                let count = usize::from(input.u8());
                link.to_host.extend_from_slice(input.take(count));
            }
            8 | 9 => link.send_any(input),
            10 => {
                let at = usize::from(input.u16());
                if let Some(byte) = link.to_host.get_mut(at) {
                    *byte ^= input.u8();
                }
            }
            _ if input.u8().is_multiple_of(2) => link.to_host.clear(),
            _ => self.closed(number),
        }
    }

    fn submit(&mut self, input: &mut Input<'_>) {
        let [kind, start, count] = input.array();
        let op = match kind % 5 {
            0 => Op::Read,
            1 => Op::Write { durable: false },
            2 => Op::Write { durable: true },
            3 => Op::WriteZeroes { deallocate: true },
            _ => Op::Flush,
        };
        let blocks = match op {
            Op::Flush => 0,
            _ => u32::from(count % 32) + 1,
        };
        let lba = u64::from(start) % BLOCKS;
        let bytes = vec![kind; blocks as usize * 512];
        self.next_request += 1;
        let token = self.next_request;
        let lba = if blocks == 0 { 0 } else { lba };
        if self
            .client
            .submit(op, lba, blocks, (bytes, 0), token)
            .is_ok()
        {
            self.open.insert(token);
        }
    }
}

impl Link {
    /// The target takes in what the host has sent.
    fn receive(&mut self, bytes: &[u8], now_ms: u64) -> Result<(), roadstead_target::tcp::Close> {
        let mut input = bytes;
        let mut drive = Zeroes::default();
        loop {
            let mut turn = Turn {
                rim: &mut drive,
                out: &mut self.to_host,
                now_ms,
            };
            let flow = match bytes.is_empty() {
                true => self.target.tick(&mut turn).map(|()| Flow::Open),
                false => self.target.receive(&mut input, &mut turn),
            }?;
            for (tag, _, buffer) in std::mem::take(&mut drive.0) {
                let mut turn = Turn {
                    rim: &mut drive,
                    out: &mut self.to_host,
                    now_ms,
                };
                self.target.complete(tag, Ok(()), buffer, &mut turn);
            }
            if flow == Flow::Open {
                return Ok(());
            }
        }
    }

    /// A PDU that is right in its form.
    fn send_any(&mut self, input: &mut Input<'_>) {
        let [kind, a, b, c] = input.array();
        let cid = u16::from_le_bytes([a, b & 0x83]);
        let length = u32::from(c) * 64;
        let offset = u32::from(b >> 4) * 512;
        let (pdu, data) = match kind % 6 {
            0 | 1 => {
                let status = [
                    Status::SUCCESS,
                    Status::INTERNAL,
                    Status::INVALID_FIELD.dnr(),
                ];
                let status = status.get(usize::from(c) % 4).copied();
                let status = status.unwrap_or(Status::ANA_INACCESSIBLE);
                (
                    Pdu::CapsuleResp(Cqe::new(cid, status, input.u32().into())),
                    0,
                )
            }
            2 => {
                let data = C2hData {
                    cid,
                    offset,
                    length,
                    last: kind & 16 != 0,
                    success: kind & 32 != 0,
                };
                (Pdu::C2hData(data), length)
            }
            3 => {
                let r2t = R2t {
                    cid,
                    tag: u16::from(c),
                    offset,
                    length,
                };
                (Pdu::R2t(r2t), 0)
            }
            4 => {
                let response = IcResp {
                    version: u16::from(a % 8 == 7),
                    alignment: b % 32,
                    header_digest: c & 1 != 0,
                    data_digest: c & 2 != 0,
                    max_data: 4096 << (c >> 6),
                };
                (Pdu::IcResp(response), 0)
            }
            _ => {
                let term = TermReq {
                    status: FatalStatus(u16::from(a)),
                    information: length,
                };
                (Pdu::C2hTermReq(term), 0)
            }
        };
        let writer = PduWriter::new(Settings {
            header_digest: kind & 64 != 0,
            data_digest: kind & 128 != 0,
            ..Settings::default()
        });
        let mut head = [0; PduWriter::HEAD_MAX];
        let count = writer.head(&pdu, &mut head);
        self.to_host
            .extend_from_slice(head.get(..count).unwrap_or_default());
        let data = vec![a; data as usize];
        self.to_host.extend_from_slice(&data);
        if let Some(digest) = writer.data_digest(&data).filter(|_| !data.is_empty()) {
            self.to_host.extend_from_slice(&digest);
        }
    }
}
