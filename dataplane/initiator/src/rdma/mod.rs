//! The NVMe/RDMA side of a client: its devices, and its connections as they come and go.
//!
//! Connections that are busy are polled in every turn of the reactor. Before it sleeps, their completion queues are
//! armed, so that the devices wake it; one that is idle for long is armed while others work.
//!
//! Data goes through buffers that are registered once, of a pool that this client alone uses: the key that a target gets
//! opens what this client has in flight to that subsystem, and nothing else. So no key has to be invalidated for a command,
//! and the target is not asked to.

mod queue;

use std::net::SocketAddr;
use std::time::Duration;

use roadstead_host::{Epoch, Host};
use roadstead_nvme::wire::CQE_BYTES;
use roadstead_rdma::private::Reject;
use roadstead_ring::{BufPool, RingError, WatchId};
use roadstead_verbs::{Access, Adapter, Channel, CmEvent, CmEventKind, Device, VerbsError};

use crate::buffers::Buffers;
use crate::line::Line;
use crate::rim::Rim;
use crate::surroundings::Surroundings;
use crate::table::Table;
pub(crate) use queue::Queue;
use queue::{Broken, Taken};

/// Memory for the data of commands of a client, which RDMA devices know in advance, in bytes.
const BUFFERS_BYTES: usize = 16 << 20;
/// Responses of all connections on a device that may come before they are looked at. What is beyond it the network repeats.
const RESPONSES: u32 = 1024;
/// How long the network has to find an address.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(2);

/// The token of the connection manager's channel, of those that a [`Fabric`] uses; those of devices' channels follow.
const MANAGER: u64 = 0;

/// Why an RDMA connection cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FabricError {
    /// RDMA said no.
    #[error(transparent)]
    Verbs(#[from] VerbsError),
    /// The ring said no.
    #[error(transparent)]
    Ring(#[from] RingError),
}

/// The RDMA side. Nothing is there before it is needed.
pub(crate) struct Fabric {
    /// The first token of watched descriptors.
    token: u64,
    /// By number.
    adapters: Vec<Adapter>,
    watches: Vec<WatchId>,
    /// Places of connections with a queue pair.
    paired: Vec<(usize, usize)>,
    /// Outlives the queues' memory regions with them, which hold on to it.
    pool: Option<BufPool>,
    channel: Option<Channel>,
    taken: Taken,
}

/// The tokens of connections, as the connection manager hands them back.
fn place(token: u64) -> (usize, usize) {
    let part = |bits: u64| usize::try_from(bits & 0xffff).unwrap_or(usize::MAX);
    (part(token >> 16), part(token))
}

impl Fabric {
    /// Its watched descriptors carry tokens from `token` on.
    pub(crate) fn new(token: u64) -> Self {
        Self {
            token,
            adapters: Vec::new(),
            watches: Vec::new(),
            paired: Vec::new(),
            pool: None,
            channel: None,
            taken: Taken::default(),
        }
    }

    /// Begins to connect a queue.
    pub(crate) fn open(
        &mut self,
        io: &mut impl Rim,
        address: SocketAddr,
        epoch: Epoch,
        qid: u16,
        entries: u16,
    ) -> Result<Queue, FabricError> {
        let token = u64::from(epoch.path) << 16 | u64::from(qid);
        let channel = match &self.channel {
            Some(channel) => channel,
            None => {
                let channel = Channel::new()?;
                self.watches
                    .push(io.watch(channel.fd(), self.token + MANAGER)?);
                self.channel.insert(channel)
            }
        };
        let id = channel.connect(address, token, ADDRESS_TIMEOUT)?;
        Ok(Queue::new(id, epoch, qid, entries, token))
    }

    /// The number of a device's adapter, made when it is first needed.
    fn adapter(&mut self, io: &mut impl Rim, device: Device) -> Result<usize, FabricError> {
        let known = self.adapters.iter().position(|one| one.device() == device);
        if let Some(number) = known {
            return Ok(number);
        }
        let pool = match &self.pool {
            Some(pool) => pool.clone(),
            None => self.pool.insert(BufPool::in_arena(BUFFERS_BYTES)?).clone(),
        };
        let number = self.adapters.len();
        let bytes = u32::try_from(CQE_BYTES).unwrap_or(u32::MAX);
        let adapter = Adapter::new(device, &pool, Access::Remote, RESPONSES, bytes)?;
        let token = self.token + MANAGER + 1 + number as u64;
        self.watches.push(io.watch(adapter.events.fd(), token)?);
        self.adapters.push(adapter);
        Ok(number)
    }

    /// A watched descriptor is readable.
    pub(crate) fn readable(
        &mut self,
        io: &mut impl Rim,
        token: u64,
        lines: &mut Table<Line>,
        host: &mut Host,
    ) {
        match token.checked_sub(self.token) {
            Some(MANAGER) => self.take_events(io, lines, host),
            Some(number) => {
                let number = usize::try_from(number - 1).unwrap_or(usize::MAX);
                let Some(adapter) = self.adapters.get(number) else {
                    return;
                };
                while let Ok(Some(token)) = adapter.events.next_event() {
                    if let Some(queue) = rdma(lines, place(token)) {
                        queue.attention.wakes();
                    }
                }
            }
            None => {}
        }
    }

    fn take_events(&mut self, io: &mut impl Rim, lines: &mut Table<Line>, host: &mut Host) {
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
            let place = place(token);
            let Some(queue) = rdma(lines, place) else {
                continue;
            };
            let epoch = queue.epoch;
            let result = match kind {
                CmEventKind::AddressResolved => {
                    queue.resolve_route().map_err(|error| error.to_string())
                }
                CmEventKind::RouteResolved => self
                    .ask(io, place, lines)
                    .map_err(|error| error.to_string()),
                CmEventKind::Established { .. } => {
                    queue.attention.wakes();
                    host.ready(epoch, queue.qid);
                    Ok(())
                }
                kind => why(kind).map_or(Ok(()), Err),
            };
            if let Err(reason) = result {
                host.lost(epoch, reason, io.now());
            }
        }
    }

    /// The way is known: asks the target.
    fn ask(
        &mut self,
        io: &mut impl Rim,
        place: (usize, usize),
        lines: &mut Table<Line>,
    ) -> Result<(), FabricError> {
        let device = rdma(lines, place).and_then(|queue| queue.seeking()?.device());
        let number = self.adapter(io, device.ok_or(VerbsError::NoDevice)?)?;
        let adapter = self.adapters.get(number).ok_or(VerbsError::NoDevice)?;
        if let Some(queue) = rdma(lines, place) {
            queue.ask(number, adapter)?;
            self.paired.push(place);
        }
        Ok(())
    }

    /// What a connection with a queue pair works with.
    pub(crate) fn adapter_of(&self, queue: &Queue) -> Option<&Adapter> {
        self.adapters.get(queue.adapter)
    }

    /// Takes what the devices have done for busy connections. Says whether there was anything.
    pub(crate) fn poll(&mut self, lines: &mut Table<Line>, around: &mut Surroundings<'_>) -> bool {
        let mut worked = false;
        for &place in &self.paired {
            let Some(queue) = rdma(lines, place).filter(|queue| queue.attention.is_busy()) else {
                continue;
            };
            let Some(adapter) = self.adapters.get_mut(queue.adapter) else {
                continue;
            };
            let did = queue.poll(adapter, &mut self.taken, around);
            let result = match did {
                Ok(did) => {
                    worked |= did;
                    queue.polled(did).map_err(Broken::from)
                }
                Err(broken) => Err(broken),
            };
            if let Err(broken) = result {
                worked = true;
                around
                    .host
                    .lost(queue.epoch, broken.to_string(), around.now);
            }
        }
        worked
    }

    /// The reactor is about to sleep: the devices wake it from now on. False if there was something in the meantime.
    pub(crate) fn may_sleep(
        &mut self,
        lines: &mut Table<Line>,
        around: &mut Surroundings<'_>,
    ) -> bool {
        for &place in &self.paired {
            if let Some(queue) = rdma(lines, place).filter(|queue| queue.attention.is_busy()) {
                // One that fails has failed altogether, which its work will say.
                let _ = queue.arm();
            }
        }
        if self.poll(lines, around) {
            return false;
        }
        for &place in &self.paired {
            if let Some(queue) = rdma(lines, place) {
                queue.attention.sleeps();
            }
        }
        true
    }

    /// Goes on with what waited, and hands everything that was queued to the devices.
    pub(crate) fn flush(
        &mut self,
        lines: &mut Table<Line>,
        buffers: &Buffers,
        mut lost: impl FnMut(Epoch, VerbsError),
    ) {
        for &place in &self.paired {
            let Some(queue) = rdma(lines, place) else {
                continue;
            };
            let Some(adapter) = self.adapters.get(queue.adapter) else {
                continue;
            };
            let result = queue.resume(adapter, buffers);
            if let Err(error) = result.and_then(|()| queue.flush()) {
                lost(queue.epoch, error);
            }
        }
        for adapter in &mut self.adapters {
            if let Err(error) = adapter.receives.flush() {
                tracing::error!(%error, "an RDMA device takes no memory for messages");
            }
        }
    }

    /// Ends a connection that was taken out of its place.
    pub(crate) fn end(&mut self, queue: Queue) {
        let place = (usize::from(queue.epoch.path), usize::from(queue.qid));
        self.paired.retain(|paired| *paired != place);
        queue.end(&mut self.adapters);
    }

    /// Ends everything, after all connections.
    pub(crate) fn close(&mut self, io: &mut impl Rim) {
        for watch in self.watches.drain(..) {
            io.unwatch(watch);
        }
        self.adapters.clear();
        self.channel = None;
    }
}

/// Why a connection cannot be made, or has ended, if the event says that.
pub(crate) fn why(kind: CmEventKind) -> Option<String> {
    match kind {
        CmEventKind::Rejected {
            status,
            private_data,
        } => Some(match Reject::parse(&private_data) {
            Some(reject) => format!("the target refuses the connection: {reject}"),
            None => format!("nobody accepts RDMA connections there (reason {status})"),
        }),
        CmEventKind::Failed { what, status } => Some(format!("cannot {what} ({status})")),
        CmEventKind::Disconnected => Some("the target closed the connection".into()),
        CmEventKind::DeviceRemoved => Some("the RDMA device was removed".into()),
        _ => None,
    }
}

/// The RDMA connection at a place.
fn rdma(lines: &mut Table<Line>, (path, queue): (usize, usize)) -> Option<&mut Queue> {
    match lines.get_mut(path, queue)? {
        Line::Rdma(queue) => Some(queue),
        Line::Tcp(_) => None,
    }
}
