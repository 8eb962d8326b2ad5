//! A host and a reactor in memory, to drive connections with.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use roadstead_nvme::command::Blocks;
use roadstead_nvme::fabrics::{CNTLID_DYNAMIC, Connect, ConnectData};
use roadstead_nvme::property::{self, Configuration};
use roadstead_nvme::{
    AdminCommand, Cqe, DataPointer, FabricsCommand, IoCommand, Nqn, Portal, Sqe, Status,
};
use roadstead_target::tcp::{Close, Connection, Flow, Output};
use roadstead_target::{
    Access, BlockSize, ByteRange, IoError, IoOp, IoRequest, IoResult, Namespace, Registry,
    Subsystem, Table, Tag, VolumeKey,
};
use roadstead_target::{Rim, Turn};
use roadstead_tcp::pdu::{H2cData, IcReq, alignment_bytes};
use roadstead_tcp::{Event, Pdu, PduReader, PduWriter, Role, Settings};
use uuid::Uuid;
use zerocopy::IntoBytes;

pub const SUBSYSTEM: &str = "nqn.2026-11.io.roadstead:test";
pub const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:host-a";
pub const VOLUME: VolumeKey = VolumeKey(7);
pub const BLOCK: u64 = 512;
pub const BLOCKS: u64 = 8192;

pub fn nqn(name: &str) -> Nqn {
    Nqn::new(name).unwrap_or_else(|_| Nqn::discovery())
}

pub fn namespace(blocks: u64) -> Namespace {
    Namespace {
        volume: VOLUME,
        uuid: Uuid::from_bytes([9; 16]),
        blocks,
        block_size: BlockSize::B512,
        read_only: false,
        ana_group: 1,
        cache_epoch: None,
    }
}

pub fn subsystem(access: Access, namespaces: &[(u32, Namespace)]) -> Subsystem {
    Subsystem {
        serial: "RS0001".to_owned(),
        namespaces: Arc::new(namespaces.iter().copied().collect()),
        access,
    }
}

pub fn hosts(names: &[&str]) -> Access {
    Access::Hosts(names.iter().map(|name| nqn(name)).collect::<BTreeSet<_>>())
}

pub fn table(subsystems: &[(&str, Subsystem)]) -> Table {
    table_at(Portal::tcp(SocketAddr::from(([0; 4], 4420))), subsystems)
}

pub fn table_at(portal: Portal, subsystems: &[(&str, Subsystem)]) -> Table {
    let mut table = Table::new(vec![portal]);
    for (name, subsystem) in subsystems {
        assert_eq!(table.add(nqn(name), subsystem.clone()), Ok(()));
    }
    table
}

pub fn registry() -> Arc<Registry> {
    let registry = Registry::new();
    registry.apply(table(&[(
        SUBSYSTEM,
        subsystem(Access::Any, &[(1, namespace(BLOCKS))]),
    )]));
    Arc::new(registry)
}

pub fn local() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 4420))
}

/// Volumes in memory.
#[derive(Default)]
pub struct Memory {
    pub bytes: BTreeMap<VolumeKey, Vec<u8>>,
    /// Do I/O at once.
    pub immediate: bool,
    /// Refuse to do it at once, though announced.
    pub reluctant: bool,
    /// Buffers left; none for no limit.
    pub buffers: Option<usize>,
    /// Submitted and not done.
    pub pending: VecDeque<(Tag, IoRequest, Option<Vec<u8>>)>,
    /// What the next I/O fails with.
    pub failure: Option<IoError>,
    /// The reservations that were kept last.
    pub saved: Option<Vec<u8>>,
    pub requests: Vec<IoRequest>,
}

impl Memory {
    pub fn new(length: u64) -> Self {
        let length = usize::try_from(length).unwrap_or(0);
        Self {
            bytes: BTreeMap::from([(VOLUME, vec![0; length])]),
            ..Self::default()
        }
    }

    fn range(&mut self, request: &IoRequest, offset: u64, length: u64) -> &mut [u8] {
        let bytes = self
            .bytes
            .get_mut(&request.volume)
            .map_or(&mut [][..], |bytes| bytes.as_mut_slice());
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start + usize::try_from(length).unwrap_or(usize::MAX);
        &mut bytes[start..end]
    }

    pub fn perform(&mut self, request: &IoRequest, buffer: &mut [u8]) -> IoResult {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        let length = usize::try_from(request.length).unwrap_or(usize::MAX);
        let place = self.range(request, request.offset, u64::from(request.length));
        match &request.op {
            IoOp::Read => buffer[..length].copy_from_slice(place),
            IoOp::Write => place.copy_from_slice(&buffer[..length]),
            IoOp::Compare if *place == buffer[..length] => {}
            IoOp::CompareAndWrite { expected, new } if *place == **expected => {
                place.copy_from_slice(new);
            }
            IoOp::Compare | IoOp::CompareAndWrite { .. } => return Err(IoError::Miscompare),
            IoOp::WriteZeroes { .. } => place.fill(0),
            IoOp::ZeroAll => self.range(request, 0, BLOCKS * BLOCK).fill(0),
            IoOp::Flush | IoOp::Verify => {}
            IoOp::Deallocate { ranges } => {
                for range in ranges {
                    self.range(request, range.offset, range.length).fill(0);
                }
            }
            IoOp::Copy { sources } => {
                let of = |range: &ByteRange| (range.offset, range.length);
                let mut all = Vec::new();
                for (offset, length) in sources.iter().map(of) {
                    all.extend_from_slice(self.range(request, offset, length));
                }
                let place = self.range(request, request.offset, u64::from(request.length));
                place.copy_from_slice(&all);
            }
            IoOp::SaveReservations { reservations } => {
                self.saved = Some(reservations.0.to_bytes());
            }
        }
        Ok(())
    }
}

impl Rim for Memory {
    type Buffer = Vec<u8>;

    fn allocate(&mut self, length: usize) -> Option<Vec<u8>> {
        if let Some(left) = &mut self.buffers {
            *left = left.checked_sub(1)?;
        }
        Some(vec![0xee; length])
    }

    fn is_immediate(&self, _: VolumeKey) -> bool {
        self.immediate
    }

    fn read_now(&mut self, request: &IoRequest, into: &mut [u8]) -> Option<IoResult> {
        (!self.reluctant).then(|| self.perform(request, into))
    }

    fn write_now(&mut self, request: &IoRequest, data: &[u8]) -> Option<IoResult> {
        assert_eq!(data.len(), usize::try_from(request.length).unwrap_or(0));
        (!self.reluctant).then(|| self.perform(request, &mut data.to_vec()))
    }

    fn submit(&mut self, tag: Tag, request: IoRequest, buffer: Option<Vec<u8>>) {
        self.requests.push(request.clone());
        self.pending.push_back((tag, request, buffer));
    }
}

/// What goes to the socket.
#[derive(Default)]
pub struct Wire {
    pub bytes: Vec<u8>,
    pub most: usize,
}

impl Wire {
    fn note(&mut self) {
        self.most = self.most.max(self.bytes.len());
    }
}

impl Output<Vec<u8>> for Wire {
    fn pending(&self) -> usize {
        self.bytes.len()
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.note();
    }

    fn area(&mut self, length: usize) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.resize(start + length, 0xdd);
        self.note();
        &mut self.bytes[start..]
    }

    fn retract(&mut self, length: usize) {
        self.bytes.truncate(self.bytes.len() - length);
    }

    fn buffer(&mut self, buffer: Vec<u8>, length: usize) {
        self.bytes(&buffer[..length]);
    }
}

/// How the host behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub header_digest: bool,
    pub data_digest: bool,
    pub alignment: u8,
    pub flow_control: bool,
    /// Data up to this many bytes goes in the capsule.
    pub in_capsule: u32,
    /// Data in an H2CData.
    pub max_data: u32,
    /// Bytes given to the target at once.
    pub chunk: usize,
    pub immediate: bool,
    pub reluctant: bool,
    pub entries: u16,
    /// Every byte of its identifier.
    pub host: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            header_digest: false,
            data_digest: false,
            alignment: 0,
            flow_control: true,
            in_capsule: 8192,
            max_data: 1 << 20,
            chunk: usize::MAX,
            immediate: false,
            reluctant: false,
            entries: 32,
            host: 5,
        }
    }
}

/// A completed command.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    pub cid: u16,
    /// Without "more".
    pub status: Status,
    /// The error log says more.
    pub is_more: bool,
    pub result: u64,
    pub data: Vec<u8>,
    /// None when no response capsule came.
    pub sqhd: Option<u16>,
}

/// Data that a write sends when it is asked.
struct Outgoing {
    data: Vec<u8>,
}

/// A host's end of one queue, with the target's end and its reactor.
pub struct Host {
    pub registry: Arc<Registry>,
    pub connection: Connection<Vec<u8>>,
    pub memory: Memory,
    pub wire: Wire,
    pub now_ms: u64,
    pub options: Options,
    pub done: VecDeque<Done>,
    pub closed: Option<Close>,
    /// Bytes that the target did not take yet.
    pub backlog: Vec<u8>,
    /// Leave what the target sends where it is.
    pub deaf: bool,
    reader: PduReader,
    writer: PduWriter,
    incoming: BTreeMap<u16, Vec<u8>>,
    outgoing: BTreeMap<u16, Outgoing>,
    current: Option<(u16, bool)>,
    next_cid: u16,
}

impl Host {
    /// A connection before initialisation.
    pub fn raw(registry: &Arc<Registry>, options: Options) -> Self {
        let memory = Memory {
            immediate: options.immediate,
            reluctant: options.reluctant,
            ..Memory::new(BLOCKS * BLOCK)
        };
        Self {
            registry: Arc::clone(registry),
            connection: Connection::new(Arc::clone(registry), local(), 0),
            memory,
            wire: Wire::default(),
            now_ms: 0,
            options,
            done: VecDeque::new(),
            closed: None,
            backlog: Vec::new(),
            deaf: false,
            reader: PduReader::new(Role::Host),
            writer: PduWriter::new(Settings::default()),
            incoming: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            current: None,
            next_cid: 100,
        }
    }

    /// An initialised connection.
    pub fn initialised(registry: &Arc<Registry>, options: Options) -> Self {
        let mut host = Self::raw(registry, options);
        host.initialise();
        host
    }

    /// A connected admin queue of an enabled controller.
    pub fn admin(registry: &Arc<Registry>, options: Options) -> Self {
        let mut host = Self::initialised(registry, options);
        let done = host.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, HOST);
        assert_eq!(done.status, Status::SUCCESS);
        host.enable();
        host
    }

    /// An I/O queue of this host's controller.
    pub fn io(&self, qid: u16, cntlid: u16) -> Self {
        let mut host = Self::initialised(&self.registry, self.options);
        let done = host.connect(qid, cntlid, SUBSYSTEM, HOST);
        assert_eq!(done.status, Status::SUCCESS);
        host
    }

    /// Admin queue and first I/O queue.
    pub fn pair(registry: &Arc<Registry>, options: Options) -> (Self, Self) {
        let admin = Self::admin(registry, options);
        let cntlid = registry.controllers().last().map_or(0, |info| info.cntlid);
        let io = admin.io(1, cntlid);
        (admin, io)
    }

    pub fn initialise(&mut self) {
        let Options {
            header_digest,
            data_digest,
            alignment,
            ..
        } = self.options;
        self.send(
            &Pdu::IcReq(IcReq {
                version: 0,
                alignment,
                header_digest,
                data_digest,
                max_r2t: 1,
            }),
            &[],
        );
        let settings = Settings {
            header_digest,
            data_digest,
            alignment_bytes: alignment_bytes(alignment),
            ..Settings::default()
        };
        self.reader.settle(settings);
        self.writer = PduWriter::new(Settings {
            alignment_bytes: 4,
            ..settings
        });
    }

    pub fn enable(&mut self) {
        let set = FabricsCommand::PropertySet {
            offset: property::CC,
            wide: false,
            value: u64::from(Configuration::enabled().0),
        };
        assert_eq!(self.fabrics(set).status, Status::SUCCESS);
    }

    pub fn connect(&mut self, qid: u16, cntlid: u16, subsystem: &str, host: &str) -> Done {
        let data = ConnectData::new([self.options.host; 16], cntlid, &nqn(subsystem), &nqn(host));
        self.connect_with(qid, self.options.entries - 1, &data)
    }

    pub fn connect_with(&mut self, qid: u16, sqsize: u16, data: &ConnectData) -> Done {
        let attributes = if self.options.flow_control {
            0
        } else {
            Connect::NO_FLOW_CONTROL
        };
        let connect = Connect {
            qid,
            sqsize,
            attributes,
            kato_ms: 5000,
        };
        let sqe = FabricsCommand::Connect(connect).encode(0);
        self.run(sqe, data.as_bytes())
    }

    pub fn fabrics(&mut self, command: FabricsCommand) -> Done {
        self.run(command.encode(0), &[])
    }

    /// What Identify answers.
    pub fn identify(&mut self, cns: u8, nsid: u32) -> Vec<u8> {
        let done = self.run_admin(AdminCommand::Identify {
            cns,
            cntlid: 0,
            nsid,
            command_set: 0,
        });
        assert_eq!(done.status, Status::SUCCESS);
        done.data
    }

    /// Sets a feature; returns the command's result.
    pub fn set_feature(&mut self, id: u8, value: u32) -> u64 {
        let done = self.run_admin(AdminCommand::SetFeatures {
            id,
            save: false,
            nsid: 0,
            value,
        });
        assert_eq!(done.status, Status::SUCCESS);
        done.result
    }

    /// Starts a write of the first blocks and stops where the target has asked for its data: command and transfer tag.
    pub fn write_asked_for(&mut self, count: u32) -> (u16, u16) {
        self.deaf = true;
        let write = IoCommand::Write {
            nsid: 1,
            blocks: Blocks { start: 0, count },
            fua: false,
        };
        let data = vec![1; count as usize * 512];
        let cid = self.start(write.encode(0), &data);
        assert_eq!(self.wire.bytes[0], 9, "R2T");
        let tag = u16::from_le_bytes([self.wire.bytes[10], self.wire.bytes[11]]);
        (cid, tag)
    }

    pub fn run_admin(&mut self, command: AdminCommand) -> Done {
        self.run(command.encode(0), &[])
    }

    pub fn read(&mut self, start: u64, count: u32) -> Done {
        let command = IoCommand::Read {
            nsid: 1,
            blocks: Blocks { start, count },
            fua: false,
        };
        let mut sqe = command.encode(0);
        let length = count * u32::try_from(BLOCK).unwrap_or(0);
        sqe.dptr = DataPointer::Transport { length }.encode();
        self.run(sqe, &[])
    }

    pub fn write(&mut self, start: u64, data: &[u8]) -> Done {
        let count = u32::try_from(data.len()).unwrap_or(0) / u32::try_from(BLOCK).unwrap_or(1);
        let command = IoCommand::Write {
            nsid: 1,
            blocks: Blocks { start, count },
            fua: false,
        };
        self.run(command.encode(0), data)
    }

    /// Starts a command with data to the host; its identifier is chosen here.
    pub fn start(&mut self, mut sqe: Sqe, data: &[u8]) -> u16 {
        let cid = self.next_cid;
        self.next_cid = self.next_cid.wrapping_add(1);
        sqe.cid = cid.into();
        let length = u32::try_from(data.len()).unwrap_or(0);
        let mut capsule = &[][..];
        if length > 0 && length <= self.options.in_capsule {
            sqe.dptr = DataPointer::InCapsule { offset: 0, length }.encode();
            capsule = data;
        } else if length > 0 {
            sqe.dptr = DataPointer::Transport { length }.encode();
            self.outgoing.insert(
                cid,
                Outgoing {
                    data: data.to_vec(),
                },
            );
        }
        let data_length = u32::try_from(capsule.len()).unwrap_or(0);
        self.send(&Pdu::CapsuleCmd { sqe, data_length }, capsule);
        cid
    }

    /// Starts a command and drives everything until it is done.
    pub fn run(&mut self, sqe: Sqe, data: &[u8]) -> Done {
        let cid = self.start(sqe, data);
        self.settle();
        let index = self.done.iter().position(|done| done.cid == cid);
        let index = index.unwrap_or_else(|| panic!("no completion; closed: {:?}", self.closed));
        self.done
            .remove(index)
            .unwrap_or_else(|| panic!("no completion"))
    }

    /// Does I/O until nothing happens any more.
    pub fn settle(&mut self) {
        self.pump();
        while let Some((tag, request, buffer)) = self.memory.pending.pop_front() {
            self.finish(tag, &request, buffer);
            self.pump();
        }
    }

    /// Ends one I/O.
    pub fn finish(&mut self, tag: Tag, request: &IoRequest, mut buffer: Option<Vec<u8>>) {
        let result = self
            .memory
            .perform(request, buffer.as_deref_mut().unwrap_or_default());
        if buffer.is_some()
            && let Some(left) = &mut self.memory.buffers
        {
            *left += 1;
        }
        let Self {
            connection,
            memory,
            wire,
            now_ms,
            ..
        } = self;
        connection.complete(
            tag,
            result,
            buffer,
            &mut Turn {
                rim: memory,
                out: wire,
                now_ms: *now_ms,
            },
        );
    }

    pub fn tick(&mut self) {
        let Self {
            connection,
            memory,
            wire,
            now_ms,
            ..
        } = self;
        if let Err(close) = connection.tick(&mut Turn {
            rim: memory,
            out: wire,
            now_ms: *now_ms,
        }) {
            self.closed.get_or_insert(close);
        }
        self.pump();
    }

    pub fn send(&mut self, pdu: &Pdu, data: &[u8]) {
        let mut head = [0; PduWriter::HEAD_MAX];
        let length = self.writer.head(pdu, &mut head);
        let mut bytes = head[..length].to_vec();
        if !data.is_empty() {
            bytes.extend_from_slice(data);
            bytes.extend(self.writer.data_digest(data).into_iter().flatten());
        }
        self.send_bytes(&bytes);
    }

    /// Gives bytes to the target in pieces.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.backlog.extend_from_slice(bytes);
        self.pump();
    }

    /// Moves bytes both ways until nothing moves.
    pub fn pump(&mut self) {
        loop {
            let before = (self.backlog.len(), self.wire.bytes.len(), self.done.len());
            self.give();
            if !self.deaf {
                self.hear();
            }
            if before == (self.backlog.len(), self.wire.bytes.len(), self.done.len()) {
                return;
            }
        }
    }

    fn give(&mut self) {
        let backlog = std::mem::take(&mut self.backlog);
        let Self {
            connection,
            memory,
            wire,
            now_ms,
            ..
        } = self;
        let mut turn = Turn {
            rim: memory,
            out: wire,
            now_ms: *now_ms,
        };
        let mut left = &backlog[..];
        while !left.is_empty() && self.closed.is_none() {
            let (mut piece, rest) = left.split_at(left.len().min(self.options.chunk));
            let length = piece.len();
            match connection.receive(&mut piece, &mut turn) {
                Ok(Flow::Open) => left = rest,
                Ok(Flow::Blocked) => {
                    left = &left[length - piece.len()..];
                    break;
                }
                Err(close) => {
                    self.closed = Some(close);
                }
            }
        }
        if connection.is_waiting() {
            connection.resume(&mut turn);
        }
        self.backlog = left.to_vec();
    }

    fn hear(&mut self) {
        let bytes = std::mem::take(&mut self.wire.bytes);
        let mut input = &bytes[..];
        loop {
            let event = self
                .reader
                .next(&mut input)
                .unwrap_or_else(|fatal| panic!("target sent {fatal}"));
            match event {
                None => return,
                Some(Event::Pdu(Pdu::CapsuleResp(cqe))) => self.response(&cqe),
                Some(Event::Pdu(Pdu::C2hData(data))) => {
                    let so_far = self.incoming.entry(data.cid).or_default();
                    assert_eq!(so_far.len(), usize::try_from(data.offset).unwrap_or(0));
                    self.current = Some((data.cid, data.success));
                }
                Some(Event::Data(bytes)) => {
                    let cid = self.current.map_or(0, |(cid, _)| cid);
                    self.incoming
                        .entry(cid)
                        .or_default()
                        .extend_from_slice(bytes);
                }
                Some(Event::DataEnd { intact }) => {
                    assert!(intact);
                    if let Some((cid, true)) = self.current.take() {
                        let data = self.incoming.remove(&cid).unwrap_or_default();
                        self.done.push_back(Done {
                            cid,
                            status: Status::SUCCESS,
                            is_more: false,
                            result: 0,
                            data,
                            sqhd: None,
                        });
                    }
                }
                Some(Event::Pdu(Pdu::R2t(r2t))) => {
                    self.answer(r2t.cid, r2t.tag, r2t.offset, r2t.length)
                }
                Some(Event::Pdu(Pdu::IcResp(response))) => {
                    assert_eq!(response.header_digest, self.options.header_digest);
                    assert_eq!(response.data_digest, self.options.data_digest);
                }
                Some(Event::Pdu(Pdu::C2hTermReq(_))) => {
                    assert!(matches!(self.closed, Some(Close::Protocol(_))))
                }
                Some(Event::Pdu(other)) => panic!("target sent {other:?}"),
            }
        }
    }

    fn response(&mut self, cqe: &Cqe) {
        let cid = cqe.cid.get();
        let data = self.incoming.remove(&cid).unwrap_or_default();
        self.done.push_back(Done {
            cid,
            status: cqe.status().without_more(),
            is_more: cqe.status().is_more(),
            result: cqe.result.get(),
            data,
            sqhd: Some(cqe.sqhd.get()),
        });
    }

    /// Sends data that was asked for.
    fn answer(&mut self, cid: u16, tag: u16, offset: u32, length: u32) {
        let Some(outgoing) = self.outgoing.get(&cid) else {
            return;
        };
        let start = usize::try_from(offset).unwrap_or(0);
        let all = outgoing.data[start..start + usize::try_from(length).unwrap_or(0)].to_vec();
        let mut at = offset;
        let step = usize::try_from(self.options.max_data).unwrap_or(usize::MAX);
        let mut pieces = all.chunks(step).peekable();
        while let Some(piece) = pieces.next() {
            let length = u32::try_from(piece.len()).unwrap_or(0);
            let last = pieces.peek().is_none();
            let mut head = [0; PduWriter::HEAD_MAX];
            let pdu = Pdu::H2cData(H2cData {
                cid,
                tag,
                offset: at,
                length,
                last,
            });
            let head_length = self.writer.head(&pdu, &mut head);
            self.backlog.extend_from_slice(&head[..head_length]);
            self.backlog.extend_from_slice(piece);
            self.backlog
                .extend(self.writer.data_digest(piece).into_iter().flatten());
            at += length;
        }
    }
}
