//! One NVMe/RDMA connection of a reactor.

use std::net::{Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use roadstead_rdma::private::Accept;
use roadstead_ring::{Io, IoBuf};
use roadstead_target::rdma::{Close, Connection};
use roadstead_target::{Tag, Turn};
use roadstead_verbs::{
    Adapter, Attention, ConnectLimits, Counts, Finished, Id, Kind, Next, QueuePair, QueueSizes,
    Received, VerbsError, WorkStatus,
};

use super::super::backend::{Backend, Weight};
use super::super::jobs::{Done, Life, Place};
use super::super::rim::Data;
use super::port::{Registered, Way};

/// Work requests that a command needs at most at once, and some more for those that are being completed.
const SENDS_PER_COMMAND: u32 = 3;
/// Messages that may come beyond the commands in flight.
const RECEIVES_MORE: u32 = 8;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Gone {
    /// The host ended it.
    #[error("the host disconnected")]
    Disconnected,
    /// The device was removed.
    #[error("the RDMA device was removed")]
    Device,
    /// It never came to be.
    #[error("the connection could not be made")]
    NotConnected,
    /// The core ended it.
    #[error("{0}")]
    Core(#[from] Close),
    /// Its work failed.
    #[error("the connection failed: {0}")]
    Work(WorkStatus),
    /// The queue pair failed.
    #[error("{0}")]
    Failed(String),
}

impl Gone {
    /// Whether it is the host's or the network's fault, which is worth a line in the log.
    fn is_fault(&self) -> bool {
        match self {
            Self::Disconnected | Self::NotConnected => false,
            Self::Work(status) => !status.is_flushed(),
            Self::Core(close) => matches!(close, Close::ShortCapsule | Close::QueueFull),
            Self::Device | Self::Failed(_) => true,
        }
    }
}

/// A connection.
pub(super) struct Host {
    core: Connection,
    way: Way,
    life: Rc<Life>,
    part: usize,
    peer: Option<SocketAddr>,
    weight: Weight,
    attention: Attention,
    /// Is in the list of those that wait.
    is_listed: bool,
}

impl Host {
    pub(super) fn new(
        backend: &Backend,
        io: &Io,
        number: usize,
        part: &Adapter,
        id: Id,
        accept: Accept,
        token: u64,
    ) -> Result<Self, VerbsError> {
        let entries = u32::from(accept.receive_entries);
        let sizes = QueueSizes {
            sends: entries.saturating_mul(SENDS_PER_COMMAND),
            receives: entries.saturating_add(RECEIVES_MORE),
        };
        let peer = id.peer();
        let local = id.local().unwrap_or((Ipv6Addr::UNSPECIFIED, 0).into());
        let (receives, events) = (&part.receives, &part.events);
        let pair = QueuePair::new(id, &part.region, receives, events, sizes, token)?;
        Ok(Self {
            core: Connection::new(Arc::clone(&backend.registry), local, backend.now_ms(io)),
            way: Way::new(pair),
            life: Rc::new(Life::default()),
            part: number,
            peer,
            weight: Weight::counted(),
            attention: Attention::default(),
            is_listed: false,
        })
    }

    /// Lets the host in.
    pub(super) fn accept(
        &mut self,
        part: &Adapter,
        reads_max: u8,
        accept: Accept,
    ) -> Result<(), VerbsError> {
        let limits = ConnectLimits {
            reads_outbound: reads_max.min(part.limits.reads_outbound),
            reads_inbound: 0,
        };
        self.way.pair.accept(limits, &accept.encode())
    }

    /// The number of its device's part.
    pub(super) fn part(&self) -> usize {
        self.part
    }

    /// Whether it is this one.
    pub(super) fn is(&self, life: &Rc<Life>) -> bool {
        Rc::ptr_eq(&self.life, life)
    }

    /// Takes completions.
    pub(super) fn poll(
        &mut self,
        part: &mut Adapter,
        received: &mut Vec<Received>,
        finished: &mut Vec<Finished<IoBuf>>,
    ) -> Result<usize, VerbsError> {
        self.way.pair.poll(&mut part.receives, received, finished)
    }

    /// Calls the core, then starts the I/O that it handed out.
    fn call<T>(
        &mut self,
        backend: &mut Backend,
        io: &mut Io,
        part: &Adapter,
        index: usize,
        with: impl FnOnce(&mut Connection, &mut Turn<'_, Registered<'_>, Way>) -> T,
    ) -> T {
        let now_ms = backend.now_ms(io);
        let mut rim = Registered {
            storage: &mut backend.storage,
            pool: part.region.pool(),
        };
        let mut turn = Turn {
            rim: &mut rim,
            out: &mut self.way,
            now_ms,
        };
        let result = with(&mut self.core, &mut turn);
        if backend.start_submitted(io, Place::Rdma(index), &self.life) {
            self.weight.works(backend.load());
        }
        result
    }

    /// A message came.
    pub(super) fn received(
        &mut self,
        backend: &mut Backend,
        io: &mut Io,
        part: &Adapter,
        index: usize,
        one: Received,
    ) -> Result<(), Gone> {
        if !one.status.is_success() {
            return Err(Gone::Work(one.status));
        }
        let capsule = part.receives.bytes(one.slot, one.length);
        self.call(backend, io, part, index, |core, turn| {
            core.receive(capsule, turn)
        })?;
        Ok(())
    }

    /// Work of the queue pair ended.
    pub(super) fn finished(
        &mut self,
        backend: &mut Backend,
        io: &mut Io,
        part: &Adapter,
        index: usize,
        one: Finished<IoBuf>,
    ) -> Result<(), Gone> {
        if let Some(buffer) = &one.buffer {
            self.way.returned(buffer);
        }
        if !one.status.is_success() {
            return Err(Gone::Work(one.status));
        }
        if let (Kind::Read, Some(buffer)) = (one.kind, one.buffer) {
            let tag = Tag(u16::try_from(one.token).unwrap_or(u16::MAX));
            self.call(backend, io, part, index, |core, turn| {
                core.fetched(tag, Data::Buffer(buffer), turn);
            });
        }
        Ok(())
    }

    /// An I/O ended.
    pub(super) fn complete(
        &mut self,
        backend: &mut Backend,
        io: &mut Io,
        part: &Adapter,
        index: usize,
        done: Done,
    ) {
        let Done { owner, result, buf } = done;
        self.call(backend, io, part, index, |core, turn| {
            core.complete(owner.tag, result, buf.map(Data::Buffer), turn);
        });
    }

    /// Goes on with what waits.
    pub(super) fn resume(
        &mut self,
        backend: &mut Backend,
        io: &mut Io,
        part: &Adapter,
        index: usize,
    ) {
        self.is_listed = false;
        self.call(backend, io, part, index, |core, turn| core.resume(turn));
    }

    /// Looks at time-outs and changes.
    pub(super) fn tick(
        &mut self,
        backend: &mut Backend,
        io: &mut Io,
        part: &Adapter,
        index: usize,
    ) -> Result<(), Gone> {
        self.weight.tick(backend.load());
        if let Some(error) = self.way.take_failure() {
            return Err(Gone::Failed(error.to_string()));
        }
        self.call(backend, io, part, index, |core, turn| core.tick(turn))?;
        Ok(())
    }

    /// Hands what was queued to the device.
    pub(super) fn flush(&mut self) {
        self.way.flush();
    }

    /// Whether it must be listed as one that waits; it is then.
    pub(super) fn lists(&mut self) -> bool {
        self.core.is_waiting() && !std::mem::replace(&mut self.is_listed, true)
    }

    /// See [`Connection::is_draining`].
    pub(super) fn is_draining(&self) -> bool {
        self.core.is_draining()
    }

    /// See [`Attention::wakes`].
    pub(super) fn wakes(&mut self) -> bool {
        self.attention.wakes()
    }

    /// See [`Attention::sleeps`].
    pub(super) fn sleeps(&mut self) {
        self.attention.sleeps();
    }

    /// The device tells of its next completion.
    pub(super) fn arm(&mut self) {
        // One that fails has failed altogether, which its work will say.
        let _ = self.way.pair.arm();
    }

    /// After a poll that found something or did not: whether it is polled on.
    pub(super) fn stays_busy(&mut self, worked: bool) -> bool {
        let next = self.attention.polled(worked);
        if next == Next::Arm {
            self.arm();
        }
        next != Next::Wait
    }

    /// Whether all data and responses are with the device.
    pub(super) fn is_quiet(&self) -> bool {
        self.way.is_quiet()
    }

    /// Ends it.
    pub(super) fn counts(&self) -> Counts {
        self.way.pair.counts()
    }

    pub(super) fn end(mut self, backend: &mut Backend, part: &mut Adapter, gone: &Gone) {
        let peer = self.peer.map(|peer| peer.to_string()).unwrap_or_default();
        if gone.is_fault() && backend.may_log() {
            tracing::warn!(peer, reason = %gone, "an RDMA connection was ended");
        } else {
            tracing::debug!(peer, reason = %gone, "an RDMA connection was ended");
        }
        backend.ended(&self.life, Some(self.core.abandon()));
        self.weight.remove(backend.load());
        self.way.pair.end(&mut part.receives);
    }
}
