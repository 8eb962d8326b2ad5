//! A real target over real sockets with a volume in memory, whose connections a test can cut.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use roadstead_initiator::{Identity, IoError, Limits, NamespaceRequest, Nqn, Op, Spec, Wanted};
use roadstead_target::tcp::{Connection, Flow};
use roadstead_target::{
    Access, BlockSize, IoOp, IoRequest, IoResult, Namespace, PortalRules, Registry, Subsystem,
    Table, Tag, VolumeKey,
};
use roadstead_target::{Rim, Turn};
use uuid::Uuid;

pub const NQN: &str = "nqn.2026-11.io.roadstead:test";
pub const UUID: Uuid = Uuid::from_u128(0x77);
pub const BLOCK: usize = 4096;

/// The target; ends with all its connections when dropped.
pub struct Target {
    /// Its first portal.
    pub address: SocketAddr,
    /// All of them.
    pub portals: Vec<SocketAddr>,
    shared: Arc<Shared>,
    acceptors: Vec<JoinHandle<()>>,
}

struct Shared {
    registry: Arc<Registry>,
    memory: Mutex<Vec<u8>>,
    /// With their portals.
    streams: Mutex<Vec<(usize, TcpStream)>>,
    /// Connections are closed as soon as they come, by portal.
    refuse: Vec<AtomicBool>,
    /// Connections are kept, but nothing is answered.
    mute: AtomicBool,
    ended: AtomicBool,
    accepted: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
}

impl Target {
    pub fn new(blocks: u64, access: Access) -> Self {
        Self::with_portals(1, blocks, access)
    }

    pub fn with_portals(count: usize, blocks: u64, access: Access) -> Self {
        let bind = |_| TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners: Vec<_> = (0..count).map(bind).collect();
        let address = |listener: &TcpListener| listener.local_addr().unwrap();
        let portals: Vec<_> = listeners.iter().map(address).collect();
        let shared = Arc::new(Shared {
            registry: Arc::new(Registry::new()),
            memory: Mutex::new(Vec::new()),
            streams: Mutex::new(Vec::new()),
            refuse: (0..count).map(|_| AtomicBool::new(false)).collect(),
            mute: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
        });
        let start = |(portal, listener)| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.accept(portal, &listener))
        };
        let acceptors = listeners.into_iter().enumerate().map(start).collect();
        let target = Self {
            address: portals[0],
            portals,
            shared,
            acceptors,
        };
        target.serve(blocks, access);
        target
    }

    /// Serves the volume with this size to these hosts from now on.
    pub fn serve(&self, blocks: u64, access: Access) {
        let bytes = usize::try_from(blocks).unwrap() * BLOCK;
        self.shared.memory.lock().unwrap().resize(bytes, 0);
        self.apply(Some(blocks), access);
    }

    /// Refers to these discovery services from now on.
    pub fn refer_to(&self, services: &[SocketAddr]) {
        let mut table = Table::new(self.portals.iter().copied().map(Into::into).collect());
        let rules = PortalRules {
            referrals: services.iter().copied().map(Into::into).collect(),
            ..PortalRules::default()
        };
        table.set_rules(rules).unwrap();
        self.shared.registry.apply(table);
    }

    /// The subsystem has no namespace from now on.
    pub fn serve_nothing(&self) {
        self.apply(None, Access::Any);
    }

    fn apply(&self, blocks: Option<u64>, access: Access) {
        let namespace = |blocks| Namespace {
            volume: VolumeKey(1),
            uuid: UUID,
            blocks,
            block_size: BlockSize::B4096,
            read_only: false,
            ana_group: 1,
            cache_epoch: None,
        };
        let namespaces = blocks.map(|blocks| (1, namespace(blocks)));
        let subsystem = Subsystem {
            serial: "TEST".into(),
            namespaces: Arc::new(namespaces.into_iter().collect()),
            access,
        };
        let mut table = Table::new(self.portals.iter().copied().map(Into::into).collect());
        table.add(Nqn::new(NQN).unwrap(), subsystem).unwrap();
        self.shared.registry.apply(table);
    }

    /// Ends every connection.
    pub fn cut(&self) {
        for portal in 0..self.portals.len() {
            self.cut_portal(portal);
        }
    }

    /// Ends every connection of a portal.
    pub fn cut_portal(&self, portal: usize) {
        let mut streams = self.shared.streams.lock().unwrap();
        for (_, stream) in streams.extract_if(.., |(of, _)| *of == portal) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn refuse(&self, refuse: bool) {
        for portal in 0..self.portals.len() {
            self.refuse_portal(portal, refuse);
        }
    }

    pub fn refuse_portal(&self, portal: usize, refuse: bool) {
        self.shared.refuse[portal].store(refuse, Ordering::Relaxed);
    }

    pub fn mute(&self, mute: bool) {
        self.shared.mute.store(mute, Ordering::Relaxed);
    }

    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    pub fn writes(&self) -> u64 {
        self.shared.writes.load(Ordering::Relaxed)
    }

    pub fn flushes(&self) -> u64 {
        self.shared.flushes.load(Ordering::Relaxed)
    }

    pub fn memory(&self) -> Vec<u8> {
        self.shared.memory.lock().unwrap().clone()
    }

    /// What connects to this target.
    pub fn spec(&self) -> Spec {
        Spec {
            identity: Identity {
                nqn: Nqn::new("nqn.2014-08.org.nvmexpress:uuid:test").unwrap(),
                id: Uuid::from_u128(5),
                keys: None,
            },
            subsystem_nqn: Nqn::new(NQN).unwrap(),
            namespace: Wanted::Uuid(UUID),
            paths: self.portals.iter().copied().map(Into::into).collect(),
            limits: Limits::default(),
            header_digest: false,
            data_digest: false,
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for portal in &self.portals {
            let _ = TcpStream::connect(portal);
        }
        self.cut();
        for thread in self.acceptors.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, portal: usize, listener: &TcpListener) {
        let mut threads = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            if self.ended.load(Ordering::Relaxed) {
                break;
            }
            stream.set_nodelay(true).unwrap();
            let kept = stream.try_clone().unwrap();
            // With the lock of `cut`: after a refusal and a cut no connection is left.
            let mut streams = self.streams.lock().unwrap();
            if self.refuse[portal].load(Ordering::Relaxed) {
                continue;
            }
            streams.push((portal, kept));
            drop(streams);
            self.accepted.fetch_add(1, Ordering::Relaxed);
            let shared = Arc::clone(self);
            threads.push(std::thread::spawn(move || shared.serve(stream)));
        }
        self.streams.lock().unwrap().iter().for_each(|(_, stream)| {
            let _ = stream.shutdown(Shutdown::Both);
        });
        for thread in threads {
            thread.join().unwrap();
        }
    }

    fn serve(self: &Arc<Self>, mut stream: TcpStream) {
        let tick = Duration::from_millis(20);
        stream.set_read_timeout(Some(tick)).unwrap();
        let started = Instant::now();
        let local = stream.local_addr().unwrap();
        let mut connection = Connection::new(Arc::clone(&self.registry), local, 0);
        let mut rim = Memory(Arc::clone(self), Vec::new());
        let mut out = Vec::<u8>::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = match stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => length,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    0
                }
                Err(_) => return,
            };
            let now_ms = u64::try_from(started.elapsed().as_millis()).unwrap();
            let mut input = &buffer[..length];
            loop {
                let mut turn = Turn {
                    rim: &mut rim,
                    out: &mut out,
                    now_ms,
                };
                let ended = match length {
                    0 => connection.tick(&mut turn).map(|()| Flow::Open),
                    _ => connection.receive(&mut input, &mut turn),
                };
                for (tag, request, mut buffer) in std::mem::take(&mut rim.1) {
                    let data = buffer.as_deref_mut().unwrap_or_default();
                    let result = rim.perform(&request, data);
                    let mut turn = Turn {
                        rim: &mut rim,
                        out: &mut out,
                        now_ms,
                    };
                    connection.complete(tag, result, buffer, &mut turn);
                }
                while self.mute.load(Ordering::Relaxed) && !self.ended.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let sent = stream.write_all(&out);
                out.clear();
                match ended {
                    _ if sent.is_err() => return,
                    Err(_) => return,
                    Ok(Flow::Open) => break,
                    Ok(Flow::Blocked) => {}
                }
            }
        }
    }
}

/// The volume. Reads and small writes are done at once, the others at the end of the turn.
struct Memory(Arc<Shared>, Vec<(Tag, IoRequest, Option<Vec<u8>>)>);

impl Memory {
    fn range(request: &IoRequest) -> std::ops::Range<usize> {
        let start = usize::try_from(request.offset).unwrap();
        start..start + request.length as usize
    }

    fn perform(&self, request: &IoRequest, data: &mut [u8]) -> IoResult {
        let mut memory = self.0.memory.lock().unwrap();
        let length = request.length as usize;
        match &request.op {
            IoOp::Read => data[..length].copy_from_slice(&memory[Self::range(request)]),
            IoOp::Write => {
                self.0.writes.fetch_add(1, Ordering::Relaxed);
                memory[Self::range(request)].copy_from_slice(&data[..length]);
            }
            IoOp::WriteZeroes { .. } => memory[Self::range(request)].fill(0),
            IoOp::Flush => {
                self.0.flushes.fetch_add(1, Ordering::Relaxed);
            }
            IoOp::Deallocate { .. } => {}
            other => panic!("no host here sends {other:?}"),
        }
        Ok(())
    }
}

impl Rim for Memory {
    type Buffer = Vec<u8>;

    fn allocate(&mut self, length: usize) -> Option<Vec<u8>> {
        Some(vec![0; length])
    }

    fn is_immediate(&self, _: VolumeKey) -> bool {
        true
    }

    fn read_now(&mut self, request: &IoRequest, into: &mut [u8]) -> Option<IoResult> {
        Some(self.perform(request, into))
    }

    fn write_now(&mut self, request: &IoRequest, data: &[u8]) -> Option<IoResult> {
        Some(self.perform(request, &mut data.to_vec()))
    }

    fn submit(&mut self, tag: Tag, request: IoRequest, buffer: Option<Vec<u8>>) {
        self.1.push((tag, request, buffer));
    }
}

/// Waits for a condition.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Does one request and waits for it.
pub fn run(
    namespace: &roadstead_initiator::Namespace,
    op: Op,
    lba: u64,
    blocks: u32,
    bytes: Vec<u8>,
) -> Result<Vec<u8>, IoError> {
    let (sender, receiver) = channel();
    let request = NamespaceRequest {
        op,
        lba,
        blocks,
        bytes,
        start: 0,
        done: Box::new(move |result, bytes| drop(sender.send(result.map(|()| bytes)))),
    };
    assert!(namespace.submit(request).is_ok());
    receiver.recv_timeout(Duration::from_secs(60)).unwrap()
}

pub fn pattern(blocks: u32, seed: usize) -> Vec<u8> {
    (0..blocks as usize * BLOCK)
        .map(|at| u8::try_from((at / 3 + seed * 7) % 251).unwrap())
        .collect()
}

pub fn read(namespace: &roadstead_initiator::Namespace, lba: u64, blocks: u32) -> Vec<u8> {
    let memory = vec![0; blocks as usize * BLOCK];
    run(namespace, Op::Read, lba, blocks, memory).unwrap()
}

/// Does something while workers write and read back, each its own blocks over and over. No request fails.
pub fn at_work(
    target: &Target,
    namespace: &roadstead_initiator::Namespace,
    workers: u64,
    something: impl FnOnce(&dyn Fn()),
) {
    const WRITE: Op = Op::Write { durable: false };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (namespace, stop) = (namespace.clone(), &stop);
            scope.spawn(move || {
                let blocks = if worker % 2 == 0 { 1 } else { 16 };
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    let data = pattern(blocks, round);
                    run(&namespace, WRITE, worker * 16, blocks, data.clone()).unwrap();
                    assert!(read(&namespace, worker * 16, blocks) == data);
                }
            });
        }
        let some_writes = || {
            let before = target.writes();
            wait_for("writes", || target.writes() > before + 8);
        };
        something(&some_writes);
        some_writes();
        stop.store(true, Ordering::Relaxed);
    });
}
