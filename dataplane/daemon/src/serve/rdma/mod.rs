//! The NVMe/RDMA side of one reactor: portals, devices, connections.
//!
//! Connections that are busy are polled in every turn of the reactor. Before it sleeps, their completion queues are
//! armed, so that the devices wake it; one that is idle for long is armed while others work. A connection that has
//! ended gives its buffers back when its queue pair is destroyed, not before.

mod activity;
mod host;
mod port;

use std::net::SocketAddr;

use roadstead_ring::{BufPool, Io, RingError};
use roadstead_target::rdma;
use roadstead_verbs::{
    Access, Adapter, Channel, CmEvent, CmEventKind, Counts, Device, Finished, Id, Listener,
    Received, VerbsError,
};

use super::backend::Backend;
use super::jobs::Done;
pub(crate) use activity::RdmaActivity;
use host::{Gone, Host};

/// Memory for the data of commands of a reactor, which RDMA devices know in advance, in bytes.
const BUFFERS_BYTES: usize = 32 << 20;
/// Connections that may wait to be taken at a portal.
const BACKLOG: i32 = 128;
/// Command capsules of all connections that may come before they are looked at. What is beyond it the network repeats.
const CAPSULES: u32 = 1024;

/// Token of the connection manager's channel; those of the devices' channels follow.
const MANAGER: u64 = 0;
/// Token of listeners. Connections have their number.
const LISTENER: u64 = u64::MAX >> 1;

/// Why an RDMA portal cannot be opened, or a connection not be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum FabricError {
    /// RDMA said no.
    #[error(transparent)]
    Verbs(#[from] VerbsError),
    /// The ring said no.
    #[error(transparent)]
    Ring(#[from] RingError),
}

/// A host that wants to connect. It may travel to another reactor.
pub(super) struct Request {
    id: Id,
    private_data: Vec<u8>,
    reads_max: u8,
}

/// The RDMA side of a reactor. Nothing is there before it is needed.
#[derive(Default)]
pub(super) struct Fabric {
    listeners: Vec<(SocketAddr, Listener)>,
    /// By number.
    hosts: Vec<Option<Host>>,
    free: Vec<usize>,
    /// Numbers of those that are polled.
    busy: Vec<usize>,
    /// Numbers of those whose commands wait for buffers.
    waiting: Vec<usize>,
    /// Hosts that want to connect.
    requests: Vec<Request>,
    /// Connections that have ended since this was last asked.
    ended: usize,
    /// What the queue pairs of ended connections have done.
    past: Counts,
    parts: Vec<Adapter>,
    pool: Option<BufPool>,
    channel: Option<Channel>,
    is_paused: bool,
    received: Vec<Received>,
    finished: Vec<Finished<roadstead_ring::IoBuf>>,
}

impl Fabric {
    /// The channel, opened when it is first needed.
    fn channel(&mut self, io: &mut Io) -> Result<&Channel, FabricError> {
        if self.channel.is_none() {
            let channel = Channel::new()?;
            io.watch(channel.fd(), MANAGER)?;
            self.channel = Some(channel);
        }
        self.channel
            .as_ref()
            .ok_or(FabricError::Verbs(VerbsError::NoDevice))
    }

    /// Opens a portal.
    pub(super) fn listen(&mut self, io: &mut Io, address: SocketAddr) -> Result<(), FabricError> {
        let listener = self.channel(io)?.listen(address, LISTENER, BACKLOG)?;
        self.listeners.push((address, listener));
        Ok(())
    }

    /// Closes a portal.
    pub(super) fn unlisten(&mut self, address: SocketAddr) {
        self.listeners.retain(|(listens, _)| *listens != address);
    }

    /// The next host that wants to connect, to be given to [`Self::adopt`] of any reactor.
    pub(super) fn next_request(&mut self) -> Option<Request> {
        self.requests.pop()
    }

    /// How many connections have ended since the last call.
    pub(super) fn take_ended(&mut self) -> usize {
        std::mem::take(&mut self.ended)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.hosts.len() - self.free.len()
    }

    /// Serves a connection. False when that is not possible; it is refused then.
    pub(super) fn adopt(&mut self, backend: &Backend, io: &mut Io, request: Request) -> bool {
        let peer = request.id.peer();
        let accept = match rdma::accept(&backend.registry, &request.private_data) {
            Ok(accept) => accept,
            Err(reject) => {
                tracing::warn!(?peer, reason = %reject, "an RDMA connection was refused");
                // What cannot be refused ends with its identifier.
                let _ = request.id.reject(&reject.encode());
                return false;
            }
        };
        match self.serve(backend, io, request, accept) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(?peer, %error, "an RDMA connection could not be taken");
                false
            }
        }
    }

    fn serve(
        &mut self,
        backend: &Backend,
        io: &mut Io,
        mut request: Request,
        accept: roadstead_rdma::private::Accept,
    ) -> Result<(), FabricError> {
        let index = self.free.last().copied().unwrap_or(self.hosts.len());
        let token = index as u64;
        request.id.migrate(self.channel(io)?)?;
        request.id.set_token(token);
        let device = request.id.device().ok_or(VerbsError::NoDevice)?;
        let number = self.part(io, device)?;
        let Some(part) = self.parts.get(number) else {
            return Err(VerbsError::NoDevice.into());
        };
        let mut host = Host::new(backend, io, number, part, request.id, accept, token)?;
        host.accept(part, request.reads_max, accept)?;
        host.wakes();
        if self.free.pop().is_none() {
            self.hosts.push(None);
        }
        if let Some(slot) = self.hosts.get_mut(index) {
            *slot = Some(host);
        }
        self.busy.push(index);
        Ok(())
    }

    /// The number of the part of a device, made when it is first needed.
    fn part(&mut self, io: &mut Io, device: Device) -> Result<usize, FabricError> {
        let known = self.parts.iter().position(|part| part.device() == device);
        if let Some(number) = known {
            return Ok(number);
        }
        let pool = match &self.pool {
            Some(pool) => pool.clone(),
            None => self.pool.insert(BufPool::in_arena(BUFFERS_BYTES)?).clone(),
        };
        let number = self.parts.len();
        let capsule_bytes = u32::try_from(rdma::CAPSULE_BYTES_MAX).unwrap_or(u32::MAX);
        let part = Adapter::new(device, &pool, Access::Local, CAPSULES, capsule_bytes)?;
        io.watch(part.events.fd(), MANAGER + 1 + number as u64)?;
        self.parts.push(part);
        Ok(number)
    }

    /// A descriptor that is watched is readable.
    pub(super) fn readable(&mut self, backend: &mut Backend, token: u64) {
        if token == MANAGER {
            self.take_events(backend);
            return;
        }
        let number = usize::try_from(token - 1).unwrap_or(usize::MAX);
        let Some(part) = self.parts.get(number) else {
            return;
        };
        while let Ok(Some(token)) = part.events.next_event() {
            let index = usize::try_from(token).unwrap_or(usize::MAX);
            if let Some(Some(host)) = self.hosts.get_mut(index)
                && host.wakes()
            {
                self.busy.push(index);
            }
        }
    }

    fn take_events(&mut self, backend: &mut Backend) {
        loop {
            let event = match self.channel.as_ref().map(Channel::next_event) {
                Some(Ok(Some(event))) => event,
                Some(Err(error)) => {
                    tracing::error!(%error, "events of RDMA connections are lost");
                    return;
                }
                Some(Ok(None)) | None => return,
            };
            let CmEvent { token, kind } = event;
            let index = usize::try_from(token).unwrap_or(usize::MAX);
            match kind {
                CmEventKind::Request {
                    id,
                    private_data,
                    reads_max,
                } => self.requests.push(Request {
                    id,
                    private_data,
                    reads_max,
                }),
                CmEventKind::Disconnected => self.end(backend, index, &Gone::Disconnected),
                CmEventKind::DeviceRemoved => self.end(backend, index, &Gone::Device),
                CmEventKind::Rejected { .. } | CmEventKind::Failed { .. } => {
                    self.end(backend, index, &Gone::NotConnected);
                }
                _ => {}
            }
        }
    }

    /// Works on what the devices have done for busy connections. Says whether there was anything.
    pub(super) fn poll(&mut self, backend: &mut Backend, io: &mut Io) -> bool {
        let mut worked = false;
        let mut kept = 0;
        for at in 0..self.busy.len() {
            let Some(&index) = self.busy.get(at) else {
                break;
            };
            let did = self.work(backend, io, index);
            worked |= did;
            let slot = self.hosts.get_mut(index).and_then(Option::as_mut);
            if slot.is_some_and(|host| host.stays_busy(did)) {
                self.busy.swap(kept, at);
                kept += 1;
            }
        }
        self.busy.truncate(kept);
        if worked {
            self.flush();
        }
        worked
    }

    /// The reactor is about to sleep: the devices wake it from now on. False if there was something in the meantime.
    pub(super) fn may_sleep(&mut self, backend: &mut Backend, io: &mut Io) -> bool {
        for &index in &self.busy {
            if let Some(Some(host)) = self.hosts.get_mut(index) {
                host.arm();
            }
        }
        if self.poll(backend, io) {
            return false;
        }
        for index in self.busy.drain(..) {
            if let Some(Some(host)) = self.hosts.get_mut(index) {
                host.sleeps();
            }
        }
        true
    }

    /// Takes the completions of a connection. False when there were none.
    fn work(&mut self, backend: &mut Backend, io: &mut Io, index: usize) -> bool {
        let (mut received, mut finished) = (
            std::mem::take(&mut self.received),
            std::mem::take(&mut self.finished),
        );
        let mut gone = None;
        let mut worked = false;
        if let Some(Some(host)) = self.hosts.get_mut(index)
            && let Some(part) = self.parts.get_mut(host.part())
        {
            match host.poll(part, &mut received, &mut finished) {
                Ok(count) => worked = count > 0,
                Err(error) => gone = Some(Gone::Failed(error.to_string())),
            }
            for one in finished.drain(..) {
                gone = gone.or(host.finished(backend, io, part, index, one).err());
            }
            for one in received.drain(..) {
                if gone.is_none() && !self.is_paused {
                    gone = host.received(backend, io, part, index, one).err();
                }
                part.receives.give_back(one.slot);
            }
            if worked && host.lists() {
                self.waiting.push(index);
            }
        }
        self.received = received;
        self.finished = finished;
        if let Some(gone) = gone {
            self.end(backend, index, &gone);
        }
        worked
    }

    /// Hands what was queued to the devices.
    fn flush(&mut self) {
        for &index in &self.busy {
            if let Some(Some(host)) = self.hosts.get_mut(index) {
                host.flush();
            }
        }
        for part in &mut self.parts {
            if let Err(error) = part.receives.flush() {
                tracing::error!(%error, "an RDMA device takes no memory for messages");
            }
        }
    }

    /// An I/O of a connection has ended.
    pub(super) fn complete(
        &mut self,
        backend: &mut Backend,
        io: &mut Io,
        index: usize,
        done: Done,
    ) {
        if let Some(Some(host)) = self.hosts.get_mut(index)
            && host.is(&done.owner.life)
            && let Some(part) = self.parts.get(host.part())
        {
            host.complete(backend, io, part, index, done);
            if host.wakes() {
                self.busy.push(index);
            }
            if host.lists() {
                self.waiting.push(index);
            }
        }
    }

    /// Goes on with what waits, and hands what came of ended I/O to the devices.
    pub(super) fn resume_waiting(&mut self, backend: &mut Backend, io: &mut Io) {
        for index in std::mem::take(&mut self.waiting) {
            if let Some(Some(host)) = self.hosts.get_mut(index)
                && let Some(part) = self.parts.get(host.part())
            {
                host.resume(backend, io, part, index);
                host.flush();
                if host.lists() {
                    self.waiting.push(index);
                }
            }
        }
        self.flush();
    }

    /// Whether something waits that nothing tells about.
    pub(super) fn must_poll(&self) -> bool {
        let draining = |index: &usize| {
            let host = self.hosts.get(*index).and_then(Option::as_ref);
            host.is_some_and(Host::is_draining)
        };
        self.waiting.iter().any(draining)
    }

    /// Looks at time-outs and changes of all connections, and tells what was done.
    pub(super) fn tick(&mut self, backend: &mut Backend, io: &mut Io, activity: &RdmaActivity) {
        for index in 0..self.hosts.len() {
            if let Some(Some(host)) = self.hosts.get_mut(index)
                && let Some(part) = self.parts.get(host.part())
            {
                match host.tick(backend, io, part, index) {
                    // An event goes to a host that is not busy, too.
                    Ok(()) => host.flush(),
                    Err(gone) => self.end(backend, index, &gone),
                }
            }
        }
        let mut counts = self.past;
        for host in self.hosts.iter().flatten() {
            counts += host.counts();
        }
        activity.store(counts);
    }

    /// Ends a connection; its I/O at drives goes on without it.
    fn end(&mut self, backend: &mut Backend, index: usize, gone: &Gone) {
        let Some(host) = self.hosts.get_mut(index).and_then(Option::take) else {
            return;
        };
        self.past += host.counts();
        if let Some(part) = self.parts.get_mut(host.part()) {
            host.end(backend, part, gone);
        }
        self.free.push(index);
        self.ended += 1;
    }

    /// Takes no more commands.
    pub(super) fn pause_all(&mut self) {
        self.is_paused = true;
    }

    /// Whether all data and responses are sent.
    pub(super) fn is_quiet(&self) -> bool {
        self.hosts.iter().flatten().all(Host::is_quiet)
    }
}
