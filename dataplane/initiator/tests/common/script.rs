//! A controller that does what a test says, byte by byte, with a volume in memory.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use roadstead_nvme::command::{AdminCommand, IoCommand};
use roadstead_nvme::fabrics::FabricsCommand;
use roadstead_nvme::identify::{IdentifyController, IdentifyNamespace, NamespaceDescriptor, cns};
use roadstead_nvme::{Cqe, Sqe, Status, opcode, property};
use roadstead_tcp::pdu::{C2hData, IcReq, IcResp, R2t, alignment_bytes};
use roadstead_tcp::{Event, Pdu, PduReader, PduWriter, Role, Settings};
use uuid::Uuid;
use zerocopy::IntoBytes;

pub const BLOCK: usize = 512;
pub const BLOCKS: usize = 1024;
pub const UUID: Uuid = Uuid::from_u128(0x5c);

/// What the controller is, and what it does with reads and writes.
#[derive(Clone)]
pub struct Script {
    pub ic: IcResp,
    /// Bytes of data in a command capsule.
    pub in_capsule: u32,
    /// Transfer limit, a power of two of 4096 bytes; 0: none.
    pub mdts: u8,
    pub read: fn(&mut Peer, Sqe, &[u8]),
    pub write: fn(&mut Peer, Sqe, usize, Vec<u8>) -> Vec<u8>,
    pub identify: fn(&mut IdentifyController),
    /// Sees every command first; true: it has answered it.
    pub gate: fn(&mut Peer, &Sqe, &[u8]) -> bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            ic: IcResp {
                version: 0,
                alignment: 0,
                header_digest: false,
                data_digest: false,
                max_data: 4096,
            },
            in_capsule: 0,
            mdts: 0,
            read: |peer, sqe, data| {
                peer.data(&sqe, 0, data, true, false);
                peer.complete(&sqe, Status::SUCCESS, 0);
            },
            write: |peer, sqe, length, capsule| match capsule.is_empty() {
                true => peer.ask(&sqe, &[(0, length)]),
                false => capsule,
            },
            identify: |_| {},
            gate: |_, _, _| false,
        }
    }
}

/// A connection from the controller's side.
pub struct Peer {
    stream: TcpStream,
    reader: PduReader,
    writer: PduWriter,
    input: Vec<u8>,
    /// Came while something else was awaited.
    later: VecDeque<(Pdu, Vec<u8>)>,
    /// What the host asked for.
    pub request: Option<IcReq>,
    /// The result of Connect.
    pub connected: u64,
    /// For the gate to remember things in.
    pub notes: Vec<Vec<u8>>,
    seen: Arc<Mutex<Seen>>,
}

/// What was seen of the host, over all connections.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub memory: Vec<u8>,
    pub connections: usize,
    /// Connections of I/O queues.
    pub io_queues: usize,
    /// Bytes of each read and write.
    pub transfers: Vec<usize>,
    /// Data that came in capsules, and in H2CData.
    pub in_capsule: usize,
    pub h2c_lengths: Vec<u32>,
}

impl Peer {
    fn new(stream: TcpStream, seen: Arc<Mutex<Seen>>) -> Self {
        Self {
            stream,
            reader: PduReader::new(Role::Controller),
            writer: PduWriter::new(Settings::default()),
            input: Vec::new(),
            later: VecDeque::new(),
            request: None,
            connected: 1,
            notes: Vec::new(),
            seen,
        }
    }

    pub fn send(&mut self, pdu: &Pdu, data: &[u8]) {
        let mut head = [0; PduWriter::HEAD_MAX];
        let length = self.writer.head(pdu, &mut head);
        let mut bytes = head[..length].to_vec();
        bytes.extend_from_slice(data);
        if !data.is_empty() {
            bytes.extend(self.writer.data_digest(data).into_iter().flatten());
        }
        self.raw(&bytes);
    }

    /// A head alone.
    pub fn head(&mut self, pdu: &Pdu) {
        let mut head = [0; PduWriter::HEAD_MAX];
        let length = self.writer.head(pdu, &mut head);
        self.raw(&head[..length]);
    }

    pub fn digest(&self, data: &[u8]) -> Vec<u8> {
        self.writer.data_digest(data).unwrap_or_default().to_vec()
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next PDU with its data; `None` when the host has gone, or sent what it must not.
    pub fn next(&mut self) -> Option<(Pdu, Vec<u8>)> {
        let (mut found, mut data) = (None, Vec::new());
        loop {
            let input = std::mem::take(&mut self.input);
            let mut rest = input.as_slice();
            let mut is_done = false;
            while !is_done && let Some(event) = self.reader.next(&mut rest).ok()? {
                match event {
                    Event::Pdu(pdu) => {
                        is_done = pdu.data_length() == 0;
                        found = Some(pdu);
                    }
                    Event::Data(bytes) => data.extend_from_slice(bytes),
                    Event::DataEnd { intact } => {
                        assert!(intact, "the host's digest");
                        is_done = true;
                    }
                }
            }
            self.input = rest.to_vec();
            if is_done {
                return Some((found?, data));
            }
            let mut buffer = vec![0; 1 << 16];
            let length = self.stream.read(&mut buffer).ok().filter(|l| *l > 0)?;
            self.input.extend_from_slice(&buffer[..length]);
        }
    }

    pub fn complete(&mut self, sqe: &Sqe, status: Status, result: u64) {
        self.send(
            &Pdu::CapsuleResp(Cqe::new(sqe.cid.get(), status, result)),
            &[],
        );
    }

    pub fn data(&mut self, sqe: &Sqe, offset: usize, data: &[u8], last: bool, success: bool) {
        let head = C2hData {
            cid: sqe.cid.get(),
            offset: u32::try_from(offset).unwrap(),
            length: u32::try_from(data.len()).unwrap(),
            last,
            success,
        };
        self.send(&Pdu::C2hData(head), data);
    }

    /// Asks for the pieces (offset and length) of a write, all at once, and takes them as they come.
    pub fn ask(&mut self, sqe: &Sqe, pieces: &[(usize, usize)]) -> Vec<u8> {
        let mut missing = 0;
        for ((offset, length), tag) in pieces.iter().zip(7..) {
            missing += length;
            let r2t = R2t {
                cid: sqe.cid.get(),
                tag,
                offset: u32::try_from(*offset).unwrap(),
                length: u32::try_from(*length).unwrap(),
            };
            self.send(&Pdu::R2t(r2t), &[]);
        }
        let end = pieces.iter().map(|(offset, length)| offset + length).max();
        let mut all = vec![0; end.unwrap_or(0)];
        let mut expected: Vec<_> = pieces.to_vec();
        while missing > 0 {
            let (head, data) = match self.next() {
                Some((Pdu::H2cData(head), data)) => (head, data),
                // The next command.
                Some(other) => {
                    self.later.push_back(other);
                    continue;
                }
                None => return all,
            };
            self.seen.lock().unwrap().h2c_lengths.push(head.length);
            let (offset, length) = &mut expected[usize::from(head.tag - 7)];
            assert_eq!(*offset, head.offset as usize, "in order");
            *offset += data.len();
            *length -= data.len();
            assert_eq!(head.last, *length == 0);
            missing -= data.len();
            all[head.offset as usize..][..data.len()].copy_from_slice(&data);
        }
        all
    }

    fn serve(&mut self, script: &Script) -> Option<()> {
        let (Pdu::IcReq(request), _) = self.next()? else {
            panic!("not the first PDU");
        };
        self.request = Some(request);
        self.send(&Pdu::IcResp(script.ic), &[]);
        let both = Settings {
            header_digest: script.ic.header_digest,
            data_digest: script.ic.data_digest,
            ..Settings::default()
        };
        self.reader.settle(Settings {
            max_in_capsule: 8192.max(script.in_capsule),
            max_data: script.ic.max_data,
            alignment_bytes: alignment_bytes(script.ic.alignment),
            ..both
        });
        self.writer = PduWriter::new(both);
        let mut is_io = false;
        loop {
            let next = self.later.pop_front().or_else(|| self.next());
            let (Pdu::CapsuleCmd { sqe, .. }, data) = next? else {
                panic!("not a command");
            };
            if (script.gate)(self, &sqe, &data) {
                continue;
            }
            if sqe.opcode == opcode::FABRICS {
                is_io |= self.fabrics(&sqe);
            } else if is_io {
                self.io(script, &sqe, data);
            } else {
                self.admin(script, &sqe);
            }
        }
    }

    /// True for an I/O queue.
    fn fabrics(&mut self, sqe: &Sqe) -> bool {
        let command = FabricsCommand::parse(sqe).unwrap();
        let result = match command {
            FabricsCommand::PropertyGet { offset, .. } if offset == property::CAP => {
                property::Capabilities::new(128, 10).0
            }
            FabricsCommand::Connect(_) => self.connected,
            _ => 1,
        };
        let is_io = matches!(command, FabricsCommand::Connect(connect) if connect.qid > 0);
        self.seen.lock().unwrap().io_queues += usize::from(is_io);
        self.complete(sqe, Status::SUCCESS, result);
        is_io
    }

    fn admin(&mut self, script: &Script, sqe: &Sqe) {
        let page = match AdminCommand::parse(sqe).unwrap() {
            AdminCommand::Identify { cns, .. } => match cns {
                cns::CONTROLLER => {
                    let mut data = IdentifyController::zeroed();
                    data.transfer_max = script.mdts;
                    data.io_command_capsule = ((64 + script.in_capsule) / 16).into();
                    (script.identify)(&mut data);
                    data.as_bytes().to_vec()
                }
                cns::ACTIVE_NAMESPACES => {
                    let mut page = vec![0; 4096];
                    page[0] = 1;
                    page
                }
                cns::NAMESPACE_DESCRIPTORS => {
                    let mut page = Vec::new();
                    NamespaceDescriptor::Uuid(UUID.into_bytes()).write(&mut page);
                    page.resize(4096, 0);
                    page
                }
                cns::NAMESPACE => {
                    let mut data = IdentifyNamespace::zeroed();
                    data.size = (BLOCKS as u64).into();
                    data.lba_formats[0].data_shift = 9;
                    data.as_bytes().to_vec()
                }
                _ => return self.complete(sqe, Status::INVALID_FIELD.dnr(), 0),
            },
            AdminCommand::AsyncEventRequest => return,
            AdminCommand::SetFeatures { value, .. } => {
                return self.complete(sqe, Status::SUCCESS, value.into());
            }
            _ => return self.complete(sqe, Status::SUCCESS, 0),
        };
        self.data(sqe, 0, &page, true, false);
        self.complete(sqe, Status::SUCCESS, 0);
    }

    fn io(&mut self, script: &Script, sqe: &Sqe, capsule: Vec<u8>) {
        let range = |blocks: roadstead_nvme::command::Blocks| {
            let start = usize::try_from(blocks.start).unwrap() * BLOCK;
            start..start + blocks.count as usize * BLOCK
        };
        match IoCommand::parse(sqe).unwrap() {
            IoCommand::Read { blocks, .. } => {
                let range = range(blocks);
                let mut seen = self.seen.lock().unwrap();
                seen.transfers.push(range.len());
                let data = seen.memory[range].to_vec();
                drop(seen);
                (script.read)(self, *sqe, &data);
            }
            IoCommand::Write { blocks, .. } => {
                let range = range(blocks);
                let mut seen = self.seen.lock().unwrap();
                seen.transfers.push(range.len());
                seen.in_capsule += capsule.len();
                drop(seen);
                let data = (script.write)(self, *sqe, range.len(), capsule);
                if data.len() == range.len() {
                    self.seen.lock().unwrap().memory[range].copy_from_slice(&data);
                    self.complete(sqe, Status::SUCCESS, 0);
                }
            }
            _ => self.complete(sqe, Status::SUCCESS, 0),
        }
    }
}

/// Runs a script for every connection that comes; the threads end with the test's process.
pub fn start(script: Script) -> (SocketAddr, Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let memory = (0..BLOCKS * BLOCK).map(|at| u8::try_from(at / 3 % 251).unwrap());
    let seen = Arc::new(Mutex::new(Seen {
        memory: memory.collect(),
        ..Seen::default()
    }));
    let shared = Arc::clone(&seen);
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nodelay(true).unwrap();
            shared.lock().unwrap().connections += 1;
            let mut peer = Peer::new(stream, Arc::clone(&shared));
            let script = script.clone();
            std::thread::spawn(move || peer.serve(&script));
        }
    });
    (address, seen)
}
