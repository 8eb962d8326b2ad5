//! The controller's side of NVMe/RDMA, with a host and a fabric in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use common::{BLOCK, BLOCKS, HOST, Memory, SUBSYSTEM, local, namespace, nqn, subsystem, table_at};
use proptest::prelude::*;
use roadstead_nvme::command::Blocks;
use roadstead_nvme::fabrics::{CNTLID_DYNAMIC, Connect, ConnectData};
use roadstead_nvme::identify::{IdentifyController, cns};
use roadstead_nvme::property::{self, Configuration};
use roadstead_nvme::{AdminCommand, Cqe, FabricsCommand, IoCommand, Portal, Sqe, Status};
use roadstead_rdma::private::{Reject, Request};
use roadstead_rdma::{DataPointer, Remote};
use roadstead_target::rdma::{self, Close, Connection, Port};
use roadstead_target::{Access, Registry, Table, Tag, Turn};
use zerocopy::{FromBytes, IntoBytes};

fn registry() -> Arc<Registry> {
    let registry = Registry::new();
    let served = subsystem(Access::Any, &[(1, namespace(BLOCKS))]);
    registry.apply(table_at(Portal::rdma(local()), &[(SUBSYSTEM, served)]));
    Arc::new(registry)
}

/// What the target asked its queue pair to do.
#[derive(Debug)]
enum Work {
    Fetch(Tag, Remote, Vec<u8>),
    Write(Remote, Vec<u8>),
    Respond(Cqe, Option<u32>),
}

#[derive(Debug, Default)]
struct Wire(VecDeque<Work>);

impl Port<Vec<u8>> for Wire {
    fn pending(&self) -> usize {
        let bytes = |work: &Work| match work {
            Work::Fetch(_, _, buffer) | Work::Write(_, buffer) => buffer.len(),
            Work::Respond(..) => 0,
        };
        self.0.iter().map(bytes).sum()
    }

    fn fetch(&mut self, tag: Tag, remote: Remote, buffer: Vec<u8>) {
        self.0.push_back(Work::Fetch(tag, remote, buffer));
    }

    fn write(&mut self, remote: Remote, buffer: Vec<u8>) {
        self.0.push_back(Work::Write(remote, buffer));
    }

    fn respond(&mut self, cqe: &Cqe, invalidate: Option<u32>) {
        self.0.push_back(Work::Respond(*cqe, invalidate));
    }
}

/// A host: its memory by key, and the responses that it got.
struct Host {
    connection: Connection,
    storage: Memory,
    wire: Wire,
    memory: BTreeMap<u32, Vec<u8>>,
    responses: Vec<(Cqe, Option<u32>)>,
    cid: u16,
}

/// Where a command's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Capsule,
    Key { invalidate: bool },
}

/// The address that a key's memory begins at.
const BASE: u64 = 0x7000_0000_0000;

impl Host {
    fn new(registry: &Arc<Registry>) -> Self {
        Self {
            connection: Connection::new(Arc::clone(registry), local(), 0),
            storage: Memory::new(BLOCKS * BLOCK),
            wire: Wire::default(),
            memory: BTreeMap::new(),
            responses: Vec::new(),
            cid: 0,
        }
    }

    fn pair(registry: &Arc<Registry>) -> (Self, Self) {
        let mut admin = Self::new(registry);
        let cntlid = admin.connect(0, CNTLID_DYNAMIC, How::Key { invalidate: false });
        let set = FabricsCommand::PropertySet {
            offset: property::CC,
            wide: false,
            value: u64::from(Configuration::enabled().0),
        };
        assert_eq!(
            admin
                .run(set.encode(0), &[], How::Key { invalidate: false })
                .0,
            Status::SUCCESS
        );
        let mut io = Self::new(registry);
        io.connect(1, cntlid, How::Capsule);
        (admin, io)
    }

    fn connect(&mut self, qid: u16, cntlid: u16, how: How) -> u16 {
        let data = ConnectData::new([5; 16], cntlid, &nqn(SUBSYSTEM), &nqn(HOST));
        let connect = Connect {
            qid,
            sqsize: 31,
            attributes: 0,
            kato_ms: 5000,
        };
        let sqe = FabricsCommand::Connect(connect).encode(0);
        let (status, result, _) = self.run(sqe, data.as_bytes(), how);
        assert_eq!(status, Status::SUCCESS);
        u16::try_from(result).unwrap()
    }

    /// Sends a command; its data, or the room for it, is in `data`. The key is the identifier.
    fn start(&mut self, mut sqe: Sqe, data: &[u8], how: How) -> Result<u16, Close> {
        self.cid += 1;
        let key = u32::from(self.cid);
        let length = u32::try_from(data.len()).unwrap();
        sqe.cid = self.cid.into();
        let mut capsule = Vec::new();
        match how {
            How::Capsule => {
                sqe.dptr = DataPointer::InCapsule { offset: 0, length }.encode();
                capsule.extend_from_slice(sqe.as_bytes());
                capsule.extend_from_slice(data);
            }
            How::Key { invalidate } => {
                let remote = Remote {
                    address: BASE,
                    key,
                    length,
                    invalidate,
                };
                sqe.dptr = DataPointer::Remote(remote).encode();
                self.memory.insert(key, data.to_vec());
                capsule.extend_from_slice(sqe.as_bytes());
            }
        }
        self.capsule(&capsule)?;
        Ok(self.cid)
    }

    fn capsule(&mut self, capsule: &[u8]) -> Result<(), Close> {
        let mut turn = Turn {
            rim: &mut self.storage,
            out: &mut self.wire,
            now_ms: 0,
        };
        self.connection.receive(capsule, &mut turn)
    }

    /// Does one piece of the target's work. False when there was none.
    fn step(&mut self) -> bool {
        if let Some(work) = self.wire.0.pop_front() {
            self.work(work);
            return true;
        }
        let Some((tag, request, mut buffer)) = self.storage.pending.pop_front() else {
            return false;
        };
        let mut none = Vec::new();
        let result = self
            .storage
            .perform(&request, buffer.as_mut().unwrap_or(&mut none));
        let mut turn = Turn {
            rim: &mut self.storage,
            out: &mut self.wire,
            now_ms: 0,
        };
        self.connection.complete(tag, result, buffer, &mut turn);
        true
    }

    fn work(&mut self, work: Work) {
        match work {
            Work::Fetch(tag, remote, mut buffer) => {
                let length = remote.length as usize;
                buffer[..length].copy_from_slice(self.place(remote));
                let mut turn = Turn {
                    rim: &mut self.storage,
                    out: &mut self.wire,
                    now_ms: 0,
                };
                self.connection.fetched(tag, buffer, &mut turn);
            }
            Work::Write(remote, buffer) => {
                self.place(remote)
                    .copy_from_slice(&buffer[..remote.length as usize]);
            }
            Work::Respond(cqe, invalidate) => self.responses.push((cqe, invalidate)),
        }
        // A buffer came free.
        if let Some(buffers) = &mut self.storage.buffers {
            *buffers += 1;
        }
        let mut turn = Turn {
            rim: &mut self.storage,
            out: &mut self.wire,
            now_ms: 0,
        };
        self.connection.resume(&mut turn);
    }

    fn place(&mut self, remote: Remote) -> &mut [u8] {
        let memory = self
            .memory
            .get_mut(&remote.key)
            .expect("a key that was given");
        let start = usize::try_from(remote.address - BASE).unwrap();
        &mut memory[start..start + remote.length as usize]
    }

    fn settle(&mut self) {
        while self.step() {}
    }

    /// Runs a command to its end: status without "more", result, what is in its memory then.
    fn run(&mut self, sqe: Sqe, data: &[u8], how: How) -> (Status, u64, Vec<u8>) {
        let cid = self.start(sqe, data, how).unwrap();
        self.settle();
        let (cqe, invalidated) = self.responses.pop().expect("an answer");
        assert!(self.responses.is_empty() && cqe.cid.get() == cid);
        let key = u32::from(cid);
        let wanted = (how == How::Key { invalidate: true }).then_some(key);
        assert_eq!(invalidated, wanted);
        let status = Status(cqe.status().0 & !Status::SUCCESS.more().0);
        (
            status,
            cqe.result.get(),
            self.memory.remove(&key).unwrap_or_default(),
        )
    }

    fn write(&mut self, lba: u64, data: &[u8], how: How) -> Status {
        let count = u32::try_from(data.len() as u64 / BLOCK).unwrap();
        let blocks = Blocks { start: lba, count };
        let write = IoCommand::Write {
            nsid: 1,
            blocks,
            fua: false,
        };
        self.run(write.encode(0), data, how).0
    }

    fn read(&mut self, lba: u64, count: u32, how: How) -> (Status, Vec<u8>) {
        let blocks = Blocks { start: lba, count };
        let read = IoCommand::Read {
            nsid: 1,
            blocks,
            fua: false,
        };
        let room = vec![0x11; (u64::from(count) * BLOCK) as usize];
        let (status, _, data) = self.run(read.encode(0), &room, how);
        (status, data)
    }
}

const KEY: How = How::Key { invalidate: false };
const INVALIDATED: How = How::Key { invalidate: true };

#[test]
fn data_goes_by_capsule_and_by_key() {
    for immediate in [false, true] {
        let (_admin, mut host) = Host::pair(&registry());
        host.storage.immediate = immediate;
        let data: Vec<u8> = (0..8 * BLOCK).map(|n| (n % 251) as u8).collect();
        for (lba, how) in [(0, How::Capsule), (100, KEY), (200, INVALIDATED)] {
            assert_eq!(host.write(lba, &data, how), Status::SUCCESS);
            for how in [KEY, INVALIDATED] {
                assert_eq!(host.read(lba, 8, how), (Status::SUCCESS, data.clone()));
            }
        }
        assert_eq!(
            host.read(300, 1, KEY),
            (Status::SUCCESS, vec![0; BLOCK as usize])
        );
        // A read has no place in a capsule, and what is refused touches no memory.
        let room = vec![0x11; BLOCK as usize];
        assert_eq!(
            host.read(0, 1, How::Capsule).0,
            Status::SGL_TYPE_INVALID.dnr()
        );
        assert_eq!(
            host.read(BLOCKS, 1, KEY),
            (Status::LBA_OUT_OF_RANGE.dnr(), room)
        );
        assert_eq!(host.connection.in_flight(), 0);
    }
}

#[test]
fn many_commands_wait_for_few_buffers_and_are_answered_once() {
    let (_admin, mut host) = Host::pair(&registry());
    host.storage.buffers = Some(2);
    for n in 0..30_u8 {
        let blocks = Blocks {
            start: u64::from(n),
            count: 1,
        };
        let write = IoCommand::Write {
            nsid: 1,
            blocks,
            fua: false,
        };
        let how = if n % 2 == 0 { KEY } else { How::Capsule };
        host.start(write.encode(0), &[n; BLOCK as usize], how)
            .unwrap();
    }
    assert!(host.connection.is_waiting());
    host.storage.buffers = Some(100);
    let mut turn = Turn {
        rim: &mut host.storage,
        out: &mut host.wire,
        now_ms: 0,
    };
    host.connection.resume(&mut turn);
    host.settle();
    let mut cids: Vec<_> = host
        .responses
        .drain(..)
        .map(|(cqe, _)| cqe.cid.get())
        .collect();
    cids.sort_unstable();
    assert_eq!(cids, (2..32).collect::<Vec<_>>());
    for n in 0..30_u8 {
        let read = host.read(u64::from(n), 1, KEY);
        assert_eq!(read, (Status::SUCCESS, vec![n; BLOCK as usize]));
    }
}

#[test]
fn the_controller_says_what_this_transport_can() {
    let (mut admin, _io) = Host::pair(&registry());
    let identify = AdminCommand::Identify {
        cns: cns::CONTROLLER,
        cntlid: 0,
        nsid: 0,
        command_set: 0,
    };
    let (status, _, data) = admin.run(identify.encode(0), &[0; 4096], INVALIDATED);
    assert_eq!(status, Status::SUCCESS);
    let data = IdentifyController::ref_from_bytes(&data).unwrap();
    assert_eq!(data.io_command_capsule.get() * 16, 64 + 4096);
    let sgl = data.sgl.get();
    assert!(sgl & IdentifyController::SGL_KEYED != 0);
    assert!(sgl & IdentifyController::SGL_TRANSPORT == 0);
}

#[test]
fn requests_to_connect_are_checked() {
    let registry = registry();
    let good = Request {
        qid: 0,
        receive_entries: 32,
        send_entries: 32,
        cntlid: 0,
    };
    let answer = |request: Request| rdma::accept(&registry, &request.encode());
    assert_eq!(answer(good).unwrap().receive_entries, 32);
    for (request, reject) in [
        (Request { qid: 1000, ..good }, Reject::InvalidQueue),
        (
            Request {
                send_entries: 65_536,
                ..good
            },
            Reject::InvalidSendSize,
        ),
        (
            Request {
                receive_entries: 0,
                ..good
            },
            Reject::InvalidReceiveSize,
        ),
        (
            Request {
                qid: 1,
                cntlid: 77,
                ..good
            },
            Reject::InvalidController,
        ),
    ] {
        assert_eq!(answer(request), Err(reject));
    }
    assert_eq!(rdma::accept(&registry, &[0; 8]), Err(Reject::InvalidLength));
}

#[test]
fn a_host_that_breaks_the_rules_costs_its_connection() {
    let (_admin, mut host) = Host::pair(&registry());
    assert_eq!(host.capsule(&[0; 63]), Err(Close::ShortCapsule));
    assert_eq!(host.capsule(&[0; 64]), Err(Close::Closed));
    let (_admin, mut host) = Host::pair(&registry());
    let flush = IoCommand::Flush { nsid: 1 };
    for _ in 0..32 {
        host.start(flush.encode(0), &[], KEY).unwrap();
    }
    assert_eq!(host.start(flush.encode(0), &[], KEY), Err(Close::QueueFull));
    // Its controller's portal is not there any more.
    let registry = registry();
    let (_admin, mut host) = Host::pair(&registry);
    registry.apply(Table::new(vec![Portal::tcp(local())]));
    assert!(matches!(
        host.start(flush.encode(0), &[], KEY),
        Err(Close::Ended(_))
    ));
}

#[test]
fn capsule_data_must_be_there() {
    let (_admin, mut host) = Host::pair(&registry());
    let blocks = Blocks { start: 0, count: 8 };
    let mut sqe = IoCommand::Write {
        nsid: 1,
        blocks,
        fua: false,
    }
    .encode(9);
    let length = u32::try_from(8 * BLOCK).unwrap();
    for (offset, sent, status) in [
        (0, 8 * BLOCK - 1, Status::SGL_LENGTH_INVALID),
        (1, 8 * BLOCK, Status::SGL_OFFSET_INVALID),
        (0, 8 * BLOCK, Status::SUCCESS),
    ] {
        sqe.dptr = DataPointer::InCapsule { offset, length }.encode();
        let mut capsule = sqe.as_bytes().to_vec();
        capsule.resize(64 + usize::try_from(sent).unwrap(), 3);
        host.capsule(&capsule).unwrap();
        host.settle();
        let (cqe, _) = host.responses.pop().unwrap();
        assert_eq!(cqe.status().code(), status.code());
    }
}

proptest! {
    #[test]
    fn any_capsules_do_no_harm(capsules in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..20)) {
        let (_admin, mut host) = Host::pair(&registry());
        for capsule in capsules {
            let _ = host.capsule(&capsule);
            host.wire.0.clear();
        }
    }

    #[test]
    fn it_does_what_a_vector_of_bytes_does(
        operations in proptest::collection::vec((any::<bool>(), 0..64_u64, 1..16_u32, any::<u8>(), 0..3_u8), 1..60),
        immediate: bool,
    ) {
        let (_admin, mut host) = Host::pair(&registry());
        host.storage.immediate = immediate;
        let mut model = vec![0_u8; (80 * BLOCK) as usize];
        for (is_write, lba, count, fill, how) in operations {
            let range = (lba * BLOCK) as usize..((lba + u64::from(count)) * BLOCK) as usize;
            let how = [How::Capsule, KEY, INVALIDATED][usize::from(how)];
            if is_write {
                let data = vec![fill; range.len()];
                prop_assert_eq!(host.write(lba, &data, how), Status::SUCCESS);
                model[range].copy_from_slice(&data);
            } else {
                let how = if how == How::Capsule { KEY } else { how };
                prop_assert_eq!(host.read(lba, count, how), (Status::SUCCESS, model[range].to_vec()));
            }
        }
    }
}
