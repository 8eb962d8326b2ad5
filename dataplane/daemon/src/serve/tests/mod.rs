//! The server on real sockets, files and memory.

mod allocations;
mod ana;
mod commands;
mod faults;
mod host;
mod life;
mod local;
mod model;
mod reservations;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use roadstead_pool::media::FileMedia;
use roadstead_pool::{BlockSize, DriveHandle, DriveThread, OpenOptions, Pool, VolumeSpec};
use roadstead_ring::{ReactorConfig, SharedMemory};
use uuid::Uuid;

use super::{
    DriveIo, ExportedNamespace, ExportedSubsystem, Exports, HostAccess, MemoryDrive, ServeConfig,
    Server,
};

pub(super) const NQN: &str = "nqn.2026-11.io.roadstead:test";
pub(super) const VOLUME_BYTES: u64 = 8 << 20;
/// Small, so that I/O crosses their borders.
pub(super) const EXTENT_BYTES: u64 = 64 << 10;
const DRIVE_BYTES: usize = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Memory,
    File,
}

/// A server that exports one volume.
pub(super) struct Fixture {
    pub(super) server: Server,
    pub(super) address: SocketAddr,
    pub(super) drive: DriveHandle,
    pub(super) volume: Uuid,
    pub(super) io: DriveIo,
    thread: Option<DriveThread>,
    directory: tempfile::TempDir,
}

pub(super) struct Setup {
    pub(super) kind: Kind,
    pub(super) reactors: usize,
    pub(super) block_size: BlockSize,
    pub(super) buf_limit_bytes: usize,
    pub(super) connections: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            kind: Kind::Memory,
            reactors: 1,
            block_size: BlockSize::B4096,
            buf_limit_bytes: 16 << 20,
            connections: 1000,
        }
    }
}

fn open_drive(kind: Kind, directory: &Path) -> (Pool, DriveIo) {
    let mut options = OpenOptions::new("test");
    options.extent_bytes = EXTENT_BYTES;
    match kind {
        Kind::Memory => {
            let memory = Arc::new(SharedMemory::new(DRIVE_BYTES).unwrap());
            let media = Arc::new(MemoryDrive(Arc::clone(&memory)));
            (
                Pool::open_or_format(media, &options).unwrap(),
                DriveIo::Memory(memory),
            )
        }
        Kind::File => {
            let media = FileMedia::open_file(&directory.join("drive"), DRIVE_BYTES as u64).unwrap();
            let fd = Arc::new(OwnedFd::from(media.file().try_clone().unwrap()));
            (
                Pool::open_or_format(Arc::new(media), &options).unwrap(),
                DriveIo::File { fd },
            )
        }
    }
}

impl Fixture {
    pub(super) fn start(setup: &Setup) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (pool, io) = open_drive(setup.kind, directory.path());
        let thread = DriveThread::start(pool, "test-drive").unwrap();
        let drive = thread.handle().clone();
        let uuid = Uuid::from_u128(42);
        let spec = VolumeSpec {
            uuid,
            name: "test".into(),
            size_bytes: VOLUME_BYTES,
            block_size: setup.block_size,
            created_unix_s: 0,
        };
        drive.create_volume(spec).unwrap();
        let ring = ReactorConfig {
            buf_limit_bytes: setup.buf_limit_bytes,
            ..ReactorConfig::default()
        };
        let mut config = ServeConfig {
            reactors: vec![None; setup.reactors],
            ring,
            ..ServeConfig::default()
        };
        config.limits.connections = setup.connections;
        let server = Server::start(config).unwrap();
        let results = server
            .set_portals(&["127.0.0.1:0".parse().unwrap()])
            .unwrap();
        let address = results[0].listening.clone().unwrap().address;
        let fixture = Self {
            server,
            address,
            drive,
            volume: uuid,
            io,
            thread: Some(thread),
            directory,
        };
        fixture
            .server
            .set_exports(fixture.exports(HostAccess::Any))
            .unwrap();
        fixture
    }

    pub(super) fn exports(&self, hosts: HostAccess) -> Exports {
        let namespace = ExportedNamespace {
            volume: self.drive.volume(self.volume).unwrap(),
            drive: self.drive.clone(),
            io: self.io.clone(),
            cache_epoch: None,
        };
        let namespaces = BTreeMap::from([(1, namespace)]);
        let subsystem = ExportedSubsystem {
            nqn: NQN.into(),
            serial: "1".into(),
            hosts,
            namespaces,
            ana_groups: BTreeMap::new(),
        };
        Exports {
            subsystems: vec![subsystem],
        }
    }

    /// Ends everything and opens the drive again, as after a restart; gives the content of the volume's file drive.
    pub(super) fn restart(mut self, setup: &Setup) -> Self {
        drop(std::mem::replace(
            &mut self.server,
            Server::start(ServeConfig::default()).unwrap(),
        ));
        self.io = DriveIo::Memory(Arc::new(SharedMemory::new(4096).unwrap()));
        self.thread.take().unwrap().close();
        let (pool, io) = open_drive(setup.kind, self.directory.path());
        let thread = DriveThread::start(pool, "test-drive").unwrap();
        self.drive = thread.handle().clone();
        self.thread = Some(thread);
        self.io = io;
        let results = self
            .server
            .set_portals(&["127.0.0.1:0".parse().unwrap()])
            .unwrap();
        self.address = results[0].listening.clone().unwrap().address;
        self.server
            .set_exports(self.exports(HostAccess::Any))
            .unwrap();
        self
    }
}

/// Adds the allocations that `run` does in this thread.
pub(super) fn counted<T>(allocations: &AtomicU64, run: impl FnOnce() -> T) -> T {
    let mut result = None;
    let counted = allocation_counter::measure(|| result = Some(run()));
    allocations.fetch_add(counted.count_total, SeqCst);
    result.unwrap()
}

/// Waits until something is so.
pub(super) fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Numbers that look random and are the same in every run.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256).to_le_bytes()[0]).collect()
    }
}
