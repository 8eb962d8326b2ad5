//! Over NVMe/RDMA.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use roadstead_host::Control;
use roadstead_nvme::Cqe;
use roadstead_nvme::wire::CQE_BYTES;
use roadstead_rdma::private::Request;
use roadstead_rdma::{DataPointer, Remote};
use roadstead_ring::{BUF_MAX_BYTES, BufPool};
use roadstead_verbs::{
    Access, Adapter, Channel, CmEventKind, ConnectLimits, Id, QueuePair, QueueSizes, VerbsError,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use zerocopy::{FromBytes, IntoBytes};

use super::{DATA_MAX, ExchangeError, left};
use crate::rdma::why;

/// Entries of the queue.
const ENTRIES: u16 = 32;

/// A connection with one command in flight.
pub(crate) struct Line {
    /// Before the adapter and the channel: `end` wants the former.
    pair: Option<QueuePair>,
    adapter: Adapter,
    deadline: Instant,
    cid: u16,
    #[allow(dead_code, reason = "connections of it end with it")]
    channel: Channel,
}

impl Line {
    pub(super) fn open(address: SocketAddr, deadline: Instant) -> Result<Self, ExchangeError> {
        let channel = Channel::new()?;
        let mut id = channel.connect(address, 0, left(deadline)?)?;
        wait_for(&channel, deadline, |kind| {
            matches!(kind, CmEventKind::AddressResolved)
        })?;
        id.resolve_route(left(deadline)?)?;
        wait_for(&channel, deadline, |kind| {
            matches!(kind, CmEventKind::RouteResolved)
        })?;
        let mut line = Self::new(id, channel, deadline)?;
        if let Some(pair) = &mut line.pair {
            let limits = ConnectLimits {
                reads_outbound: 0,
                reads_inbound: line.adapter.limits.reads_inbound,
            };
            let request = Request {
                qid: 0,
                receive_entries: ENTRIES,
                send_entries: u32::from(ENTRIES),
                cntlid: 0,
            };
            pair.connect(limits, &request.encode())?;
        }
        wait_for(&line.channel, deadline, |kind| {
            matches!(kind, CmEventKind::Established { .. })
        })?;
        Ok(line)
    }

    fn new(id: Id, channel: Channel, deadline: Instant) -> Result<Self, ExchangeError> {
        let device = id.device().ok_or(VerbsError::NoDevice)?;
        let pool = BufPool::in_arena(BUF_MAX_BYTES).map_err(io::Error::other)?;
        let bytes = u32::try_from(CQE_BYTES).unwrap_or(u32::MAX);
        let adapter = Adapter::new(device, &pool, Access::Remote, ENTRIES.into(), bytes)?;
        let sizes = QueueSizes {
            sends: ENTRIES.into(),
            receives: ENTRIES.into(),
        };
        let (receives, events) = (&adapter.receives, &adapter.events);
        let pair = QueuePair::new(id, &adapter.region, receives, events, sizes, 0)?;
        Ok(Self {
            pair: Some(pair),
            adapter,
            deadline,
            cid: 0,
            channel,
        })
    }

    /// Sends a command and waits for its end.
    pub(super) fn run(&mut self, command: &Control) -> Result<(Cqe, Vec<u8>), ExchangeError> {
        self.cid = self.cid.wrapping_add(1);
        let mut sqe = command.sqe;
        sqe.cid = self.cid.into();
        let data_out = u32::try_from(command.data_out.len()).unwrap_or(u32::MAX);
        let length = data_out.max(command.data_in).min(DATA_MAX);
        let pool = self.adapter.region.pool();
        // It is the target's as long as the queue pair lives, or until the response.
        let mut buffer = pool
            .alloc(length.max(1) as usize)
            .ok_or(VerbsError::NoBuffer)?;
        buffer.fill(0);
        if let Some(room) = buffer.get_mut(..command.data_out.len()) {
            room.copy_from_slice(&command.data_out);
        }
        let place = self.adapter.region.remote(&buffer, length);
        let place = place.ok_or(VerbsError::NotRegistered)?;
        let remote = match length {
            0 => Remote::NONE,
            _ => Remote {
                address: place.address,
                key: place.key,
                length,
                invalidate: false,
            },
        };
        sqe.dptr = DataPointer::Remote(remote).encode();
        let result = self.exchange(sqe.as_bytes());
        if result.is_err() {
            // Before the buffer.
            self.end();
        }
        let cqe = result?;
        let came = if cqe.status().is_success() {
            command.data_in as usize
        } else {
            0
        };
        Ok((cqe, buffer.get(..came).unwrap_or_default().to_vec()))
    }

    fn exchange(&mut self, capsule: &[u8]) -> Result<Cqe, ExchangeError> {
        let pair = self.pair.as_mut().ok_or(VerbsError::Broken)?;
        pair.send(0, capsule, None, None)?;
        pair.flush()?;
        let (mut received, mut finished) = (Vec::new(), Vec::new());
        loop {
            pair.arm()?;
            let receives = &mut self.adapter.receives;
            while pair.poll(receives, &mut received, &mut finished)? > 0 {}
            for one in finished.drain(..) {
                if !one.status.is_success() {
                    return Err(io::Error::other(one.status.to_string()).into());
                }
            }
            let mut answer = None;
            for one in received.drain(..) {
                let cqe = receives.bytes(one.slot, one.length).get(..CQE_BYTES);
                let cqe = cqe.and_then(|bytes| Cqe::read_from_bytes(bytes).ok());
                answer = answer.or(cqe.filter(|cqe| cqe.cid.get() == self.cid));
                receives.give_back(one.slot);
            }
            receives.flush()?;
            if let Some(cqe) = answer {
                return Ok(cqe);
            }
            readable(self.adapter.events.fd(), self.deadline)?;
            while self.adapter.events.next_event()?.is_some() {}
        }
    }

    fn end(&mut self) {
        if let Some(pair) = self.pair.take() {
            pair.end(&mut self.adapter.receives);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits for an event of the connection.
fn wait_for(
    channel: &Channel,
    deadline: Instant,
    is_wanted: impl Fn(&CmEventKind) -> bool,
) -> Result<(), ExchangeError> {
    loop {
        while let Some(event) = channel.next_event()? {
            if is_wanted(&event.kind) {
                return Ok(());
            }
            if let Some(why) = why(event.kind) {
                return Err(io::Error::other(why).into());
            }
        }
        readable(channel.fd(), deadline)?;
    }
}

fn readable(fd: BorrowedFd<'_>, deadline: Instant) -> Result<(), ExchangeError> {
    let timeout = Timespec::try_from(left(deadline)?).map_err(io::Error::other)?;
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    match rustix::event::poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(io::Error::from(error).into()),
    }
}
