//! A device, and both ends of a connection on it.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use roadstead_ring::{BufPool, IoBuf};
use roadstead_verbs::{
    Access, Channel, CmEvent, CmEventKind, CompletionChannel, ConnectLimits, Device, Domain,
    Finished, Id, Listener, MemoryRegion, QueuePair, QueueSizes, Received, SharedReceives,
};

/// Whatever is waited for comes within this time, or never.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Messages that fit an end, and their bytes.
pub(crate) const SLOTS: u32 = 32;
pub(crate) const SLOT_BYTES: u32 = 8192;
pub(crate) const SIZES: QueueSizes = QueueSizes {
    sends: 64,
    receives: 64,
};
pub(crate) const LIMITS: ConnectLimits = ConnectLimits {
    reads_outbound: 4,
    reads_inbound: 4,
};
/// Tokens.
pub(crate) const LISTENER: u64 = 7;
pub(crate) const CLIENT: u64 = 8;
pub(crate) const SERVER: u64 = 9;

/// One test at a time, for they count what is left on the device.
pub(crate) struct Lab {
    _alone: MutexGuard<'static, ()>,
    address: IpAddr,
    before: String,
}

static ALONE: Mutex<()> = Mutex::new(());
static PORT: AtomicU16 = AtomicU16::new(18_515);

/// None: no device is to be tried.
pub(crate) fn lab() -> Option<Lab> {
    let Ok(address) = std::env::var("ROADSTEAD_RDMA_ADDRESS") else {
        println!("skipped: ROADSTEAD_RDMA_ADDRESS is not set");
        return None;
    };
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut lab = Lab {
        _alone: alone,
        address: address.parse().unwrap(),
        before: String::new(),
    };
    // The libraries keep a device that they have opened.
    let channel = Channel::new().unwrap();
    drop(channel.listen(lab.next_address(), LISTENER, 1).unwrap());
    // The library keeps a domain of its own on it, too.
    assert!(resolved(&channel, lab.next_address()).device().is_some());
    drop(channel);
    lab.before = in_use();
    Some(lab)
}

impl Lab {
    pub(crate) fn ip(&self) -> IpAddr {
        self.address
    }

    pub(crate) fn next_address(&self) -> SocketAddr {
        (self.address, PORT.fetch_add(1, Ordering::Relaxed)).into()
    }
}

impl Drop for Lab {
    /// Nothing is left: neither objects of the device, nor descriptors.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let end = Instant::now() + PATIENCE;
        while in_use() != self.before {
            assert!(
                Instant::now() < end,
                "left behind: {} before, {} now",
                self.before,
                in_use()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// What there is on all devices, and open descriptors.
fn in_use() -> String {
    let output = Command::new("rdma").args(["resource", "show"]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    format!("{} descriptors, {}", descriptors, text.trim())
}

/// Waits until a descriptor is readable.
pub(crate) fn readable(fd: BorrowedFd<'_>) {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(
        fd,
        rustix::event::PollFlags::IN,
    )];
    let timeout = PATIENCE.try_into().unwrap();
    let ready = rustix::event::poll(&mut fds, Some(&timeout)).unwrap();
    assert_eq!(ready, 1, "nothing came");
}

/// The next event.
pub(crate) fn event(channel: &Channel) -> CmEvent {
    loop {
        if let Some(event) = channel.next_event().unwrap() {
            return event;
        }
        readable(channel.fd());
    }
}

/// What a device gives one end.
pub(crate) struct Part {
    pub(crate) pool: BufPool,
    pub(crate) region: Arc<MemoryRegion>,
    pub(crate) receives: SharedReceives,
    pub(crate) events: CompletionChannel,
}

impl Part {
    pub(crate) fn new(device: Device) -> Self {
        let domain = Domain::new(device).unwrap();
        let pool = BufPool::in_arena(16 << 20).unwrap();
        Self {
            region: Arc::new(MemoryRegion::new(&domain, &pool, Access::Remote).unwrap()),
            receives: SharedReceives::new(&domain, SLOTS, SLOT_BYTES).unwrap(),
            events: CompletionChannel::new(device).unwrap(),
            pool,
        }
    }

    pub(crate) fn pair(&self, id: Id, token: u64) -> QueuePair {
        let (region, receives, events) = (&self.region, &self.receives, &self.events);
        QueuePair::new(id, region, receives, events, SIZES, token).unwrap()
    }

    /// A buffer with a pattern.
    pub(crate) fn filled(&self, length: usize, seed: usize) -> IoBuf {
        let mut buffer = self.pool.alloc(length).unwrap();
        fill(&mut buffer, seed);
        buffer
    }
}

pub(crate) fn fill(bytes: &mut [u8], seed: usize) {
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = ((at * 7 + at / 4096 + seed) % 251) as u8;
    }
}

pub(crate) fn pattern(length: usize, seed: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fill(&mut bytes, seed);
    bytes
}

/// One end of a connection. The queue pair goes first.
pub(crate) struct End {
    pub(crate) pair: QueuePair,
    pub(crate) part: Part,
    pub(crate) channel: Channel,
    pub(crate) received: Vec<Received>,
    pub(crate) finished: Vec<Finished<IoBuf>>,
}

impl End {
    pub(crate) fn new(channel: Channel, part: Part, pair: QueuePair) -> Self {
        let (received, finished) = (Vec::new(), Vec::new());
        Self {
            pair,
            part,
            channel,
            received,
            finished,
        }
    }

    fn poll(&mut self) -> usize {
        let (received, finished) = (&mut self.received, &mut self.finished);
        self.pair
            .poll(&mut self.part.receives, received, finished)
            .unwrap()
    }

    /// Waits for completions, by the completion channel where there are none yet.
    pub(crate) fn wait(&mut self) {
        if self.poll() > 0 {
            return;
        }
        self.pair.arm().unwrap();
        while self.poll() == 0 {
            readable(self.part.events.fd());
            if self.part.events.next_event().unwrap().is_some() {
                self.pair.arm().unwrap();
            }
        }
    }

    pub(crate) fn wait_received(&mut self, count: usize) {
        while self.received.len() < count {
            self.wait();
        }
    }

    pub(crate) fn wait_finished(&mut self, count: usize) {
        while self.finished.len() < count {
            self.wait();
        }
    }

    /// Takes a message, and gives its slot back.
    pub(crate) fn message(&mut self) -> Vec<u8> {
        self.wait_received(1);
        let one = self.received.remove(0);
        assert!(one.status.is_success(), "{}", one.status);
        let bytes = self.part.receives.bytes(one.slot, one.length).to_vec();
        self.part.receives.give_back(one.slot);
        assert!(self.part.receives.bytes(one.slot, one.length).is_empty());
        bytes
    }
}

/// An identifier that knows its route.
pub(crate) fn resolved(channel: &Channel, address: SocketAddr) -> Id {
    let mut id = channel.connect(address, CLIENT, PATIENCE).unwrap();
    let one = event(channel);
    assert!(matches!(one.kind, CmEventKind::AddressResolved), "{one:?}");
    id.resolve_route(PATIENCE).unwrap();
    let one = event(channel);
    assert!(matches!(one.kind, CmEventKind::RouteResolved), "{one:?}");
    assert_eq!(one.token, CLIENT);
    id
}

/// The next request for a connection.
pub(crate) fn request(channel: &Channel) -> (Id, Vec<u8>) {
    let one = event(channel);
    assert_eq!(one.token, LISTENER);
    match one.kind {
        CmEventKind::Request {
            id, private_data, ..
        } => (id, private_data),
        other => panic!("{other:?}"),
    }
}

/// A connection: the end that asked for it, the one that accepted, and the listener.
pub(crate) fn connected(lab: &Lab) -> (End, End, Listener) {
    let address = lab.next_address();
    let (listening, channel) = (Channel::new().unwrap(), Channel::new().unwrap());
    let listener = listening.listen(address, LISTENER, 16).unwrap();
    let id = resolved(&channel, address);
    let part = Part::new(id.device().unwrap());
    let mut pair = part.pair(id, CLIENT);
    pair.connect(LIMITS, b"hello").unwrap();
    let client = End::new(channel, part, pair);

    let (mut id, _) = request(&listening);
    let part = Part::new(id.device().unwrap());
    id.set_token(SERVER);
    let mut pair = part.pair(id, SERVER);
    pair.accept(LIMITS, b"welcome").unwrap();
    let server = End::new(listening, part, pair);
    for channel in [&client.channel, &server.channel] {
        let one = event(channel);
        assert!(
            matches!(one.kind, CmEventKind::Established { .. }),
            "{one:?}"
        );
    }
    (client, server, listener)
}
