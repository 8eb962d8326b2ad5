//! A host on a real socket, as simple as can be: blocking, one connection, one queue.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use roadstead_nvme::command::{Blocks, DsmRange, IoCommand};
use roadstead_nvme::fabrics::{CNTLID_DYNAMIC, Connect, ConnectData, FabricsCommand};
use roadstead_nvme::property::{self, Configuration};
use roadstead_nvme::{DataPointer, Nqn, Sqe, Status};
use roadstead_tcp::pdu::{H2cData, IcReq};
use roadstead_tcp::{Event, Pdu, PduReader, PduWriter, Role, Settings};
use zerocopy::IntoBytes;

pub(super) const HOST: &str =
    "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555";
/// Largest data in a capsule, as the target allows it.
const IN_CAPSULE: usize = 16 * 1024;

#[derive(Clone, Copy, Default)]
pub(super) struct Options {
    pub(super) digests: bool,
    pub(super) kato_ms: u32,
    /// Bytes of each piece that is written to the socket; 0 for all at once.
    pub(super) piece: usize,
    /// Another host than the usual.
    pub(super) host: u8,
}

pub(super) struct Completed {
    pub(super) status: Status,
    pub(super) result: u64,
    pub(super) data: Vec<u8>,
}

pub(super) struct Host {
    pub(super) stream: TcpStream,
    options: Options,
    reader: PduReader,
    writer: PduWriter,
    unsent: HashMap<u16, Vec<u8>>,
    incoming: HashMap<u16, Vec<u8>>,
    done: HashMap<u16, Completed>,
    sink: u16,
    /// No response follows the data.
    sink_succeeds: bool,
    next_cid: u16,
    /// The target has said that the protocol was broken.
    pub(super) terminated: bool,
}

impl Host {
    /// A connection with the exchange of settings done.
    pub(super) fn open(address: SocketAddr, options: Options) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let settings = Settings {
            header_digest: options.digests,
            data_digest: options.digests,
            ..Settings::default()
        };
        let mut host = Self {
            stream,
            options,
            reader: PduReader::new(Role::Host),
            writer: PduWriter::new(Settings::default()),
            unsent: HashMap::new(),
            incoming: HashMap::new(),
            done: HashMap::new(),
            sink: 0,
            sink_succeeds: false,
            next_cid: 0,
            terminated: false,
        };
        let (header_digest, data_digest) = (options.digests, options.digests);
        host.send(
            &Pdu::IcReq(IcReq {
                version: 0,
                alignment: 0,
                header_digest,
                data_digest,
                max_r2t: 1,
            }),
            &[],
        );
        let mut response = [0; 128];
        host.stream.read_exact(&mut response).unwrap();
        assert!(matches!(
            host.reader.next(&mut &response[..]),
            Ok(Some(Event::Pdu(Pdu::IcResp(_))))
        ));
        host.reader.settle(settings);
        host.writer = PduWriter::new(settings);
        host
    }

    /// An admin queue with its controller enabled; and the controller's identifier. Waits while old I/O of this host
    /// is in flight.
    pub(super) fn admin(address: SocketAddr, nqn: &str, options: Options) -> (Self, u16) {
        let mut host = Self::open(address, options);
        let mut connected = host.connect(0, CNTLID_DYNAMIC, nqn);
        let deadline = Instant::now() + Duration::from_secs(20);
        while connected.status == Status::CONNECT_CONTROLLER_BUSY && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
            connected = host.connect(0, CNTLID_DYNAMIC, nqn);
        }
        assert_eq!(connected.status, Status::SUCCESS);
        let value = u64::from(Configuration::enabled().0);
        let enable = FabricsCommand::PropertySet {
            offset: property::CC,
            wide: false,
            value,
        };
        assert_eq!(host.run(enable.encode(0), &[]).status, Status::SUCCESS);
        (host, u16::try_from(connected.result & 0xffff).unwrap())
    }

    /// Admin queue and first I/O queue.
    pub(super) fn pair(address: SocketAddr, nqn: &str, options: Options) -> (Self, Self) {
        let (admin, cntlid) = Self::admin(address, nqn, options);
        let mut queue = Self::open(address, options);
        assert_eq!(queue.connect(1, cntlid, nqn).status, Status::SUCCESS);
        (admin, queue)
    }

    pub(super) fn connect(&mut self, qid: u16, cntlid: u16, nqn: &str) -> Completed {
        let data = ConnectData::new(
            [7 ^ self.options.host; 16],
            cntlid,
            &Nqn::new(nqn).unwrap(),
            &Nqn::new(HOST).unwrap(),
        );
        let kato_ms = self.options.kato_ms;
        let connect = Connect {
            qid,
            sqsize: 127,
            attributes: Connect::NO_FLOW_CONTROL,
            kato_ms,
        };
        self.run(FabricsCommand::Connect(connect).encode(0), data.as_bytes())
    }

    pub(super) fn read_command(start: u64, count: u32, block: u32) -> Sqe {
        let mut sqe = IoCommand::Read {
            nsid: 1,
            blocks: Blocks { start, count },
            fua: false,
        }
        .encode(0);
        sqe.dptr = DataPointer::Transport {
            length: count * block,
        }
        .encode();
        sqe
    }

    pub(super) fn read(&mut self, start: u64, count: u32, block: u32) -> Completed {
        self.run(Self::read_command(start, count, block), &[])
    }

    pub(super) fn write_command(start: u64, count: u32, fua: bool) -> Sqe {
        IoCommand::Write {
            nsid: 1,
            blocks: Blocks { start, count },
            fua,
        }
        .encode(0)
    }

    pub(super) fn write(&mut self, start: u64, data: &[u8], block: usize, fua: bool) -> Status {
        let count = u32::try_from(data.len() / block).unwrap();
        self.run(Self::write_command(start, count, fua), data)
            .status
    }

    pub(super) fn zero(&mut self, start: u64, count: u32, fua: bool) -> Status {
        let blocks = Blocks { start, count };
        self.run(
            IoCommand::WriteZeroes {
                nsid: 1,
                blocks,
                fua,
                deallocate: false,
                all: false,
            }
            .encode(0),
            &[],
        )
        .status
    }

    pub(super) fn deallocate(&mut self, ranges: &[(u64, u32)]) -> Status {
        let data: Vec<u8> = ranges
            .iter()
            .flat_map(|&(start, count)| DsmRange::new(start, count).as_bytes().to_vec())
            .collect();
        let ranges = u16::try_from(ranges.len()).unwrap();
        self.run(
            IoCommand::DatasetManagement {
                nsid: 1,
                ranges,
                deallocate: true,
            }
            .encode(0),
            &data,
        )
        .status
    }

    pub(super) fn flush_command() -> Sqe {
        IoCommand::Flush { nsid: 1 }.encode(0)
    }

    pub(super) fn flush(&mut self) -> Status {
        self.run(Self::flush_command(), &[]).status
    }

    /// Sends a command; returns its identifier.
    pub(super) fn start(&mut self, mut sqe: Sqe, data: &[u8]) -> u16 {
        let cid = self.next_cid;
        self.next_cid = self.next_cid.wrapping_add(1);
        sqe.cid = cid.into();
        let length = u32::try_from(data.len()).unwrap();
        let capsule = if !data.is_empty() && data.len() <= IN_CAPSULE {
            sqe.dptr = DataPointer::InCapsule { offset: 0, length }.encode();
            data
        } else {
            if !data.is_empty() {
                sqe.dptr = DataPointer::Transport { length }.encode();
                self.unsent.insert(cid, data.to_vec());
            }
            &[]
        };
        let data_length = u32::try_from(capsule.len()).unwrap();
        self.send(&Pdu::CapsuleCmd { sqe, data_length }, capsule);
        cid
    }

    pub(super) fn run(&mut self, sqe: Sqe, data: &[u8]) -> Completed {
        let cid = self.start(sqe, data);
        self.wait(cid).unwrap()
    }

    /// Waits for the end of a command; an error when the connection ends before.
    pub(super) fn wait(&mut self, cid: u16) -> io::Result<Completed> {
        loop {
            if let Some(done) = self.done.remove(&cid) {
                return Ok(done);
            }
            self.hear()?;
        }
    }

    /// Whether the end of a command was heard.
    pub(super) fn has_ended(&self, cid: u16) -> bool {
        self.done.contains_key(&cid)
    }

    /// Takes in what the target sends next.
    pub(super) fn hear(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        let count = self.stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut input = &buffer[..count];
        while let Some(event) = self.reader.next(&mut input).unwrap() {
            match event {
                Event::Pdu(Pdu::CapsuleResp(cqe)) => {
                    self.complete(cqe.cid.get(), cqe.status().without_more(), cqe.result.get())
                }
                Event::Pdu(Pdu::C2hData(head)) => {
                    self.sink = head.cid;
                    self.incoming.entry(head.cid).or_default();
                    self.sink_succeeds = head.success;
                }
                Event::Pdu(Pdu::R2t(r2t)) => {
                    let data = self.unsent.remove(&r2t.cid).unwrap();
                    let head = H2cData {
                        cid: r2t.cid,
                        tag: r2t.tag,
                        offset: r2t.offset,
                        length: r2t.length,
                        last: true,
                    };
                    self.send(&Pdu::H2cData(head), &data);
                }
                Event::Pdu(Pdu::C2hTermReq(_)) => self.terminated = true,
                Event::Pdu(pdu) => panic!("unexpected {pdu:?}"),
                Event::Data(bytes) => self
                    .incoming
                    .entry(self.sink)
                    .or_default()
                    .extend_from_slice(bytes),
                Event::DataEnd { intact } => {
                    assert!(intact);
                    if self.sink_succeeds {
                        self.complete(self.sink, Status::SUCCESS, 0);
                    }
                }
            }
        }
        Ok(())
    }

    fn complete(&mut self, cid: u16, status: Status, result: u64) {
        let data = self.incoming.remove(&cid).unwrap_or_default();
        self.done.insert(
            cid,
            Completed {
                status,
                result,
                data,
            },
        );
    }

    fn send(&mut self, pdu: &Pdu, data: &[u8]) {
        let mut head = [0; PduWriter::HEAD_MAX];
        let length = self.writer.head(pdu, &mut head);
        let mut bytes = head[..length].to_vec();
        bytes.extend_from_slice(data);
        if let Some(digest) = self.writer.data_digest(data).filter(|_| !data.is_empty()) {
            bytes.extend_from_slice(&digest);
        }
        let piece = if self.options.piece == 0 {
            bytes.len()
        } else {
            self.options.piece
        };
        for part in bytes.chunks(piece) {
            self.stream.write_all(part).unwrap();
            if self.options.piece != 0 {
                // Lets the pieces travel alone.
                std::thread::yield_now();
            }
        }
    }

    /// Whether the target closes the connection, whatever it sends before.
    pub(super) fn is_closed_by_target(&mut self) -> bool {
        loop {
            match self.hear() {
                Ok(()) => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }
}
