//! Both ends of one connection.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use roadstead_nvme::fabrics::{CNTLID_DYNAMIC, Connect, ConnectData};
use roadstead_nvme::property::{self, Configuration};
use roadstead_nvme::{DataPointer, FabricsCommand, Nqn, Sqe};
use roadstead_target::tcp::{Connection, Flow};
use roadstead_target::{
    Access, BlockSize, IoError, IoOp, IoRequest, IoResult, Namespace, Registry, Subsystem, Table,
    Tag, VolumeKey, limits,
};
use roadstead_target::{Rim, Turn};
use roadstead_tcp::pdu::{IcReq, R2t};
use roadstead_tcp::{Event, Pdu, PduReader, PduWriter, Role, Settings};
use uuid::Uuid;
use zerocopy::IntoBytes;

pub(crate) fn nqn(name: &str) -> Nqn {
    Nqn::new(name).unwrap_or_else(|_| Nqn::discovery())
}

pub(crate) fn subsystem_nqn() -> Nqn {
    nqn("nqn.2026-11.io.roadstead:fuzz")
}

/// What is served.
pub(crate) fn table(with_subsystem: bool, with_namespace: bool, blocks: u64) -> Table {
    let namespace = Namespace {
        volume: VolumeKey(1),
        uuid: Uuid::from_u128(1),
        blocks,
        block_size: BlockSize::B512,
        read_only: false,
        ana_group: 1,
        cache_epoch: None,
    };
    let subsystem = Subsystem {
        serial: "FUZZ".to_owned(),
        namespaces: Arc::new(
            with_namespace
                .then_some((1, namespace))
                .into_iter()
                .collect(),
        ),
        access: Access::Any,
    };
    let mut table = Table::new(vec![SocketAddr::from(([0, 0, 0, 0], 4420)).into()]);
    if with_subsystem {
        assert_eq!(table.add(subsystem_nqn(), subsystem), Ok(()));
    }
    table
}

/// How both ends behave.
#[derive(Clone, Copy)]
pub(super) struct Mode(u8);

impl Mode {
    pub(super) fn new(bits: u8) -> Self {
        Self(bits)
    }

    fn settings(self) -> Settings {
        Settings {
            header_digest: self.0 & 1 != 0,
            data_digest: self.0 & 2 != 0,
            alignment_bytes: 4,
            ..Settings::default()
        }
    }

    fn is_immediate(self) -> bool {
        self.0 & 4 != 0
    }

    fn has_few_buffers(self) -> bool {
        self.0 & 8 != 0
    }

    fn attributes(self) -> u8 {
        if self.0 & 16 != 0 {
            Connect::NO_FLOW_CONTROL
        } else {
            0
        }
    }

    /// Bytes that the target gets at once.
    fn piece(self) -> usize {
        if self.0 & 32 != 0 { 7 } else { usize::MAX }
    }
}

struct Storage {
    mode: Mode,
    allocated: usize,
    jobs: VecDeque<(Tag, IoRequest, Option<Vec<u8>>)>,
    in_flight: BTreeSet<u16>,
}

impl Rim for Storage {
    type Buffer = Vec<u8>;

    fn allocate(&mut self, length: usize) -> Option<Vec<u8>> {
        self.allocated += 1;
        (!self.mode.has_few_buffers() || self.allocated.is_multiple_of(3))
            .then(|| vec![0xee; length])
    }

    fn is_immediate(&self, _: VolumeKey) -> bool {
        self.mode.is_immediate()
    }

    fn read_now(&mut self, request: &IoRequest, into: &mut [u8]) -> Option<IoResult> {
        assert_eq!(Ok(request.length), u32::try_from(into.len()));
        (request.offset.is_multiple_of(1024)).then_some(Ok(()))
    }

    fn write_now(&mut self, request: &IoRequest, data: &[u8]) -> Option<IoResult> {
        assert_eq!(Ok(request.length), u32::try_from(data.len()));
        (request.offset.is_multiple_of(1024)).then_some(Ok(()))
    }

    fn submit(&mut self, tag: Tag, request: IoRequest, buffer: Option<Vec<u8>>) {
        assert!(self.in_flight.insert(tag.0), "a tag twice");
        let has_data = matches!(request.op, IoOp::Read | IoOp::Write | IoOp::Compare);
        let room = buffer
            .as_ref()
            .map(|buffer| buffer.len() >= usize::try_from(request.length).unwrap_or(0));
        assert_eq!(room, has_data.then_some(true));
        self.jobs.push_back((tag, request, buffer));
    }
}

/// A connection with its host.
pub(super) struct End {
    connection: Option<Connection<Vec<u8>>>,
    storage: Storage,
    wire: Vec<u8>,
    now_ms: u64,
    mode: Mode,
    reader: PduReader,
    writer: PduWriter,
    r2ts: Vec<R2t>,
    cid: u16,
    backlog: Vec<u8>,
}

impl End {
    pub(super) fn new(registry: &Arc<Registry>, mode: Mode) -> Self {
        let local = SocketAddr::from(([192, 0, 2, 1], 4420));
        Self {
            connection: Some(Connection::new(Arc::clone(registry), local, 0)),
            storage: Storage {
                mode,
                allocated: 0,
                jobs: VecDeque::new(),
                in_flight: BTreeSet::new(),
            },
            wire: Vec::new(),
            now_ms: 0,
            mode,
            reader: PduReader::new(Role::Host),
            writer: PduWriter::new(Settings::default()),
            r2ts: Vec::new(),
            cid: 0,
            backlog: Vec::new(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    pub(super) fn next_cid(&mut self) -> u16 {
        self.cid = self.cid.wrapping_add(1);
        self.cid
    }

    pub(super) fn initialise(&mut self) {
        let settings = self.mode.settings();
        let request = IcReq {
            version: 0,
            alignment: 0,
            header_digest: settings.header_digest,
            data_digest: settings.data_digest,
            max_r2t: 0,
        };
        self.pdu(&Pdu::IcReq(request), &[]);
        self.writer = PduWriter::new(settings);
        self.hear();
    }

    fn connect(&mut self, qid: u16, cntlid: u16) {
        let connect = Connect {
            qid,
            sqsize: 7,
            attributes: self.mode.attributes(),
            kato_ms: 20_000,
        };
        let host = nqn("nqn.2014-08.org.nvmexpress:uuid:fuzz");
        let data = ConnectData::new([5; 16], cntlid, &subsystem_nqn(), &host);
        let cid = self.next_cid();
        self.capsule_of(
            FabricsCommand::Connect(connect).encode(cid),
            data.as_bytes().to_vec(),
        );
    }

    pub(super) fn connect_admin(&mut self) {
        self.connect(0, CNTLID_DYNAMIC);
        let set = FabricsCommand::PropertySet {
            offset: property::CC,
            wide: false,
            value: u64::from(Configuration::enabled().0),
        };
        let cid = self.next_cid();
        self.command(set.encode(cid), 0);
        self.hear();
    }

    pub(super) fn connect_io(&mut self) {
        // The first controller of a registry.
        self.connect(1, 1);
        self.hear();
        let is_queue = self
            .connection
            .as_ref()
            .is_some_and(|connection| connection.in_flight() == 0);
        assert!(is_queue, "the legal prefix is not taken");
    }

    /// A command whose data the transport moves.
    pub(super) fn command(&mut self, mut sqe: Sqe, length: usize) {
        let length = u32::try_from(length).unwrap_or(0);
        sqe.dptr = DataPointer::Transport { length }.encode();
        self.capsule(sqe, Vec::new());
    }

    /// A command with its data.
    pub(super) fn capsule_of(&mut self, mut sqe: Sqe, data: Vec<u8>) {
        let length = u32::try_from(data.len()).unwrap_or(0);
        sqe.dptr = DataPointer::InCapsule { offset: 0, length }.encode();
        self.capsule(sqe, data);
    }

    pub(super) fn capsule(&mut self, sqe: Sqe, data: Vec<u8>) {
        let data_length = u32::try_from(data.len()).unwrap_or(0);
        self.pdu(&Pdu::CapsuleCmd { sqe, data_length }, &data);
    }

    pub(super) fn pdu(&mut self, pdu: &Pdu, data: &[u8]) {
        let mut head = [0; PduWriter::HEAD_MAX];
        let length = self.writer.head(pdu, &mut head);
        let mut bytes = head.get(..length).unwrap_or_default().to_vec();
        if !data.is_empty() {
            bytes.extend_from_slice(data);
            bytes.extend(self.writer.data_digest(data).into_iter().flatten());
        }
        self.feed(&bytes);
    }

    /// Calls the connection; it is gone when it says so.
    fn call<T, E>(
        &mut self,
        with: impl FnOnce(&mut Connection<Vec<u8>>, &mut Turn<'_, Storage, Vec<u8>>) -> Result<T, E>,
    ) -> Option<T> {
        let connection = self.connection.as_mut()?;
        let mut turn = Turn {
            rim: &mut self.storage,
            out: &mut self.wire,
            now_ms: self.now_ms,
        };
        let result = with(connection, &mut turn);
        assert!(connection.in_flight() <= usize::from(limits::QUEUE_ENTRIES_MAX));
        assert!(
            self.wire.len() <= limits::OUTPUT_BYTES_MAX + (2 << 20),
            "unbounded output"
        );
        if result.is_err()
            && let Some(connection) = self.connection.take()
        {
            drop(connection.abandon());
        }
        result.ok()
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.backlog.extend_from_slice(bytes);
        while !self.backlog.is_empty() && self.is_open() {
            let bytes = std::mem::take(&mut self.backlog);
            let (now, later) = bytes.split_at(self.mode.piece().min(bytes.len()));
            let mut input = now;
            let flow = self.call(|connection, turn| connection.receive(&mut input, turn));
            self.backlog = [input, later].concat();
            if flow == Some(Flow::Blocked) {
                self.hear();
            }
        }
    }

    /// The drive ends an I/O.
    pub(super) fn finish(&mut self, which: u8) {
        let count = self.storage.jobs.len().max(1);
        let Some((tag, request, buffer)) = self.storage.jobs.remove(usize::from(which) % count)
        else {
            return;
        };
        self.storage.in_flight.remove(&tag.0);
        let errors = [
            IoError::Read,
            IoError::Write,
            IoError::NoSpace,
            IoError::Unavailable,
            IoError::Gone,
        ];
        let result = match errors.get(usize::from(which >> 4)) {
            Some(error) => Err(*error),
            None => Ok(()),
        };
        let buffer = buffer.filter(|_| request.op == IoOp::Read);
        self.call(|connection, turn| {
            connection.complete(tag, result, buffer, turn);
            Ok::<(), ()>(())
        });
    }

    pub(super) fn tick(&mut self, ms: u64) {
        self.now_ms += ms;
        self.call(|connection, turn| connection.tick(turn));
    }

    /// Reads what the target sent: a host must understand all of it.
    pub(super) fn hear(&mut self) {
        let bytes = std::mem::take(&mut self.wire);
        let mut rest = bytes.as_slice();
        loop {
            match self.reader.next(&mut rest) {
                Ok(None) => break,
                Ok(Some(Event::Pdu(Pdu::IcResp(answer)))) => self.reader.settle(Settings {
                    header_digest: answer.header_digest,
                    data_digest: answer.data_digest,
                    alignment_bytes: 4,
                    max_in_capsule: 0,
                    max_data: 1 << 24,
                }),
                Ok(Some(Event::Pdu(Pdu::R2t(r2t)))) => self.r2ts.push(r2t),
                Ok(Some(Event::DataEnd { intact })) => {
                    assert!(intact, "the target's digest is wrong")
                }
                Ok(Some(_)) => {}
                Err(fatal) => panic!("the target sends what no host understands: {fatal}"),
            }
        }
        self.call(|connection, turn| {
            connection.resume(turn);
            Ok::<(), ()>(())
        });
    }

    /// What the target asked for: command, tag, offset and length of what it did not get yet.
    pub(super) fn asked(&mut self, which: u8) -> Option<(u16, u16, u32, u32)> {
        self.hear();
        let r2t = self.r2ts.get(usize::from(which) % self.r2ts.len().max(1))?;
        Some((r2t.cid, r2t.tag, r2t.offset, r2t.length))
    }

    /// So much of it was sent.
    pub(super) fn sent_data(&mut self, which: u8, length: u32) {
        let index = usize::from(which) % self.r2ts.len().max(1);
        if let Some(r2t) = self.r2ts.get_mut(index) {
            let length = length.min(r2t.length);
            r2t.offset += length;
            r2t.length -= length;
            if r2t.length == 0 {
                self.r2ts.remove(index);
            }
        }
    }
}
