//! The network: connections as two ordered streams of bytes, which know nothing of each other.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use roadstead_initiator::Rim;
use roadstead_ring::{Event as RingEvent, Output, RingError, SocketId, Stream, TimerId, WatchId};

use crate::node::Outcome;
use crate::plan::{Broken, SECOND};
use crate::world::{Event, World};

/// How long a host has to take what was sent before its connection was ended.
const FAREWELL_MAX: u64 = 5 * SECOND;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostEnd {
    Connecting,
    Open,
    /// Sends what is left.
    Finishing,
    /// Closed, of which it will be told.
    Closing,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetEnd {
    Before,
    Open,
    /// Sends what is left.
    Ending,
    Gone,
}

#[derive(Debug, Default)]
pub struct Pipe {
    bytes: VecDeque<u8>,
    is_scheduled: bool,
}

/// A connection.
pub struct Link {
    pub host: usize,
    /// The portal.
    address: SocketAddr,
    token: u64,
    host_end: HostEnd,
    target_end: TargetEnd,
    out: Output,
    /// What the host sent and the pipe has no room for.
    queue: VecDeque<u8>,
    to_target: Pipe,
    to_host: Pipe,
    /// Nothing enters it any more.
    is_cut: bool,
}

impl Link {
    pub fn is_open(&self) -> bool {
        self.host_end == HostEnd::Open && self.target_end == TargetEnd::Open && !self.is_cut
    }

    fn pipe(&mut self, to_target: bool) -> &mut Pipe {
        match to_target {
            true => &mut self.to_target,
            false => &mut self.to_host,
        }
    }
}

/// What a client gets as its reactor.
pub struct HostRim<'a> {
    pub world: &'a mut World,
    pub host: usize,
}

impl Rim for HostRim<'_> {
    fn now(&self) -> Instant {
        self.world.instant()
    }

    fn connect(&mut self, address: SocketAddr, token: u64) -> Result<SocketId, RingError> {
        let link = self.world.next_link;
        self.world.next_link += 1;
        let state = Link {
            host: self.host,
            address,
            token,
            host_end: HostEnd::Connecting,
            target_end: TargetEnd::Before,
            out: Output::default(),
            queue: VecDeque::new(),
            to_target: Pipe::default(),
            to_host: Pipe::default(),
            is_cut: false,
        };
        self.world.links.insert(link, state);
        self.world
            .note(|| format!("host {}: connects {link}", self.host));
        self.world.in_order(self.host, Event::Arrive { link });
        Ok(SocketId::simulated(link))
    }

    /// There is no target in the host's process here.
    fn adopt(&mut self, _: Stream, _: u64) -> Result<SocketId, RingError> {
        Err(RingError::Full { what: "socket" })
    }

    fn output(&mut self, socket: SocketId) -> Option<&mut Output> {
        let link = self.world.find(socket)?;
        let link = self.world.links.get_mut(&link)?;
        matches!(link.host_end, HostEnd::Open | HostEnd::Connecting).then_some(&mut link.out)
    }

    fn finish(&mut self, socket: SocketId) {
        if let Some(link) = self.world.find(socket) {
            self.world.send_from_host(link);
            if let Some(state) = self.world.links.get_mut(&link)
                && state.host_end == HostEnd::Open
            {
                state.host_end = HostEnd::Finishing;
            }
            self.world.host_sent_all(link);
        }
    }

    fn close(&mut self, socket: SocketId) {
        if let Some(link) = self.world.find(socket) {
            self.world.host_closes(link);
        }
    }

    fn set_timer(&mut self, delay: Duration, _: u64) -> Result<TimerId, RingError> {
        let timer = self.world.next_job;
        self.world.next_job += 1;
        self.world.timers.insert(timer, timer);
        // Never early: timers of the reactor fire at or after their time.
        let delay_us = u64::try_from(delay.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        let host = self.host;
        self.world.after(delay_us, Event::Timer { host, timer });
        Ok(TimerId::simulated(timer))
    }

    fn cancel_timer(&mut self, timer: TimerId) {
        self.world
            .timers
            .retain(|number, _| TimerId::simulated(*number) != timer);
    }

    /// There is no RDMA here.
    fn watch(&mut self, _: BorrowedFd<'_>, _: u64) -> Result<WatchId, RingError> {
        Err(RingError::Full { what: "watch" })
    }

    fn unwatch(&mut self, _: WatchId) {}
}

impl World {
    fn find(&self, socket: SocketId) -> Option<u64> {
        self.links
            .keys()
            .copied()
            .find(|link| SocketId::simulated(*link) == socket)
    }

    /// Something that the target sees in the order in which its host did it, other connections included.
    fn in_order(&mut self, host: usize, event: Event) {
        let delay = match event {
            Event::TargetReset { .. } if self.plan.broken == Broken::LateResets => {
                return self.after(30 * SECOND, event);
            }
            _ => self.delay(),
        };
        let guest = &mut self.guests[host];
        guest.order_us = guest.order_us.max(self.now_us + delay);
        let time = guest.order_us;
        self.at(time, event);
    }

    /// True when the network of this host stands still: the event comes again when it moves.
    fn is_stalled(&mut self, link: u64, event: Event) -> bool {
        let Some(state) = self.links.get(&link) else {
            return false;
        };
        let until = self.guests[state.host].stalled_until;
        if self.now_us < until {
            // All at one time: they keep their order.
            self.at(until, event);
        }
        self.now_us < until
    }

    /// Takes what a host has for its connections.
    pub fn send_all(&mut self, host: usize) {
        let own: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, l)| l.host == host)
            .map(|(id, _)| *id)
            .collect();
        for link in own {
            self.send_from_host(link);
        }
    }

    fn send_from_host(&mut self, link: u64) {
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        if !matches!(state.host_end, HostEnd::Open | HostEnd::Finishing) {
            return;
        }
        if !state.out.is_empty() {
            let mut bytes = Vec::new();
            state.out.take(&mut bytes);
            state.queue.extend(bytes);
        }
        if state.is_cut || state.target_end != TargetEnd::Open {
            state.queue.clear();
            return;
        }
        let room = self
            .plan
            .pipe_bytes
            .saturating_sub(state.to_target.bytes.len());
        let count = room.min(state.queue.len());
        state.to_target.bytes.extend(state.queue.drain(..count));
        self.schedule(link, true);
    }

    fn schedule(&mut self, link: u64, to_target: bool) {
        let delay_us = self.delay();
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        let pipe = state.pipe(to_target);
        if !pipe.bytes.is_empty() && !std::mem::replace(&mut pipe.is_scheduled, true) {
            self.after(delay_us, Event::Deliver { link, to_target });
        }
    }

    /// Output of the target enters the pipe.
    fn send_from_target(&mut self, link: u64) {
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        let room = self
            .plan
            .pipe_bytes
            .saturating_sub(state.to_host.bytes.len());
        let bytes = self.node.output(link, room);
        if state.is_cut || !matches!(state.target_end, TargetEnd::Open | TargetEnd::Ending) {
            return;
        }
        let has_sent = !bytes.is_empty();
        state.to_host.bytes.extend(bytes);
        self.schedule(link, false);
        if has_sent {
            let delay = self.delay();
            self.after(delay, Event::TargetSent { link });
        }
        self.target_sent_all(link);
    }

    /// A target that ends a connection closes it once all is delivered.
    fn target_sent_all(&mut self, link: u64) {
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        let is_empty = state.to_host.bytes.is_empty() && self.node.output_len(link) == 0;
        if state.target_end == TargetEnd::Ending && is_empty {
            state.target_end = TargetEnd::Gone;
            self.node.closed(link);
            self.after(
                1,
                Event::HostClosed {
                    link,
                    failed: false,
                },
            );
        }
    }

    /// A host that finishes a connection ends it once all is sent.
    fn host_sent_all(&mut self, link: u64) {
        let Some(state) = self.links.get(&link) else {
            return;
        };
        let is_empty = state.queue.is_empty() && state.to_target.bytes.is_empty();
        if state.host_end == HostEnd::Finishing && is_empty {
            let host = state.host;
            self.in_order(host, Event::TargetReset { link });
        }
    }

    pub fn deliver(&mut self, link: u64, to_target: bool) {
        if self.is_stalled(link, Event::Deliver { link, to_target }) {
            return;
        }
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        let pipe = state.pipe(to_target);
        pipe.is_scheduled = false;
        if to_target && self.node.is_paused(link) {
            return;
        }
        let all = pipe.bytes.len();
        let count = match self.rng.permille(self.plan.pieces) {
            true if self.rng.permille(500) => all.min(self.rng.index(160) + 1),
            true => self.rng.index(all) + 1,
            false => all,
        };
        let mut bytes: Vec<u8> = pipe.bytes.drain(..count.min(all)).collect();
        if self.plan.broken == Broken::FlipsBytes && self.rng.permille(20) {
            let index = self.rng.index(bytes.len());
            if let Some(byte) = bytes.get_mut(index) {
                *byte ^= 1;
            }
        }
        match to_target {
            true => self.target_receives(link, &bytes),
            false => self.host_receives(link, &bytes),
        }
        self.schedule(link, to_target);
        if to_target {
            self.send_from_host(link);
            self.host_sent_all(link);
        } else {
            self.send_from_target(link);
        }
    }

    fn target_receives(&mut self, link: u64, bytes: &[u8]) {
        let is_open = |state: &Link| state.target_end == TargetEnd::Open;
        if self.links.get(&link).is_some_and(is_open) && !bytes.is_empty() {
            let outcome = self.node.received(link, bytes, self.now_ms());
            self.settle(link, outcome);
        }
    }

    fn host_receives(&mut self, link: u64, bytes: &[u8]) {
        let Some(state) = self.links.get(&link) else {
            return;
        };
        if state.host_end == HostEnd::Open && !bytes.is_empty() {
            let event = RingEvent::Received {
                socket: SocketId::simulated(link),
                token: state.token,
                data: bytes,
            };
            self.tell(state.host, event);
        }
    }

    /// After a call of one of the target's connections.
    pub fn settle(&mut self, link: u64, outcome: Outcome) {
        self.start_jobs();
        self.check_landed();
        if let Outcome::Ended(close) = outcome {
            self.note(|| format!("target: ends {link}: {close}"));
            if let Some(state) = self.links.get_mut(&link) {
                state.target_end = TargetEnd::Ending;
                state.to_target.bytes.clear();
                self.after(FAREWELL_MAX, Event::FarewellOver { link });
            }
        }
        self.send_from_target(link);
    }

    pub fn target_sent(&mut self, link: u64) {
        if self
            .links
            .get(&link)
            .is_some_and(|state| state.target_end == TargetEnd::Open)
        {
            let outcome = self.node.sent(link, self.now_ms());
            self.settle(link, outcome);
            self.schedule(link, true);
        }
    }

    pub fn farewell_over(&mut self, link: u64) {
        if let Some(state) = self.links.get_mut(&link)
            && state.target_end == TargetEnd::Ending
        {
            state.target_end = TargetEnd::Gone;
            self.node.closed(link);
            self.after(1, Event::HostClosed { link, failed: true });
        }
    }

    pub fn arrive(&mut self, link: u64) {
        if self.is_stalled(link, Event::Arrive { link }) {
            return;
        }
        let delay = self.delay();
        let is_refused = self.now_us < self.down_until;
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        if state.host_end != HostEnd::Connecting {
            state.target_end = TargetEnd::Gone;
            return self.forget(link);
        }
        if is_refused {
            state.target_end = TargetEnd::Gone;
            return self.after(delay, Event::HostClosed { link, failed: true });
        }
        state.target_end = TargetEnd::Open;
        let address = state.address;
        self.node.accept(link, address, self.now_ms());
        self.stats.connections += 1;
        self.note(|| format!("target: accepts {link}"));
        self.after(delay, Event::Connected { link });
    }

    pub fn connected(&mut self, link: u64) {
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        if state.host_end == HostEnd::Connecting {
            state.host_end = HostEnd::Open;
            let event = RingEvent::Connected {
                socket: SocketId::simulated(link),
                token: state.token,
            };
            let host = state.host;
            self.tell(host, event);
        }
    }

    /// The host resets a connection: what is on its way may get through up to any byte.
    fn host_closes(&mut self, link: u64) {
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        if matches!(state.host_end, HostEnd::Closing | HostEnd::Gone) {
            return;
        }
        let was_accepted = state.target_end != TargetEnd::Before;
        state.host_end = HostEnd::Closing;
        state.out = Output::default();
        state.queue.clear();
        let left = self.rng.index(state.to_target.bytes.len() + 1);
        state.to_target.bytes.truncate(left);
        let host = state.host;
        self.note(|| format!("host {host}: closes {link}, {left} bytes get through"));
        if was_accepted {
            self.in_order(host, Event::TargetReset { link });
        }
        self.after(
            1,
            Event::HostClosed {
                link,
                failed: false,
            },
        );
    }

    /// Both ends lose a connection; each learns it at its own time, and gets a part of what was on its way.
    pub fn cut(&mut self, link: u64) {
        let delay = self.rng.range(1, self.plan.net_us * 4);
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        state.is_cut = true;
        for pipe in [&mut state.to_target, &mut state.to_host] {
            let left = self.rng.index(pipe.bytes.len() + 1);
            pipe.bytes.truncate(left);
        }
        let host = state.host;
        self.stats.cuts += 1;
        self.note(|| format!("connection {link} is cut"));
        self.in_order(host, Event::TargetReset { link });
        self.after(delay, Event::HostClosed { link, failed: true });
    }

    /// The target learns that a connection is gone.
    pub fn target_reset(&mut self, link: u64) {
        if self.is_stalled(link, Event::TargetReset { link }) {
            return;
        }
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        let rest: Vec<u8> = state.to_target.bytes.drain(..).collect();
        if self.rng.permille(500) && !self.node.is_paused(link) {
            self.target_receives(link, &rest);
        }
        self.target_lost(link);
        if let Some(state) = self.links.get(&link)
            && state.host_end == HostEnd::Finishing
        {
            self.after(
                1,
                Event::HostClosed {
                    link,
                    failed: false,
                },
            );
        }
    }

    /// The target's socket is gone.
    fn target_lost(&mut self, link: u64) {
        self.note(|| format!("target: has lost {link}"));
        self.node.closed(link);
        if let Some(state) = self.links.get_mut(&link) {
            state.target_end = TargetEnd::Gone;
        }
        self.forget(link);
        self.resume_waiting();
    }

    /// The target's process is gone, and all its connections.
    pub fn reset_all(&mut self) {
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            let delay = self.delay();
            let Some(state) = self.links.get_mut(&link) else {
                continue;
            };
            if matches!(state.target_end, TargetEnd::Open | TargetEnd::Ending) {
                let left = self.rng.index(state.to_host.bytes.len() + 1);
                state.to_host.bytes.truncate(left);
                state.to_target.bytes.clear();
                self.target_lost(link);
                self.after(delay, Event::HostClosed { link, failed: true });
            }
        }
    }

    pub fn host_closed(&mut self, link: u64, failed: bool) {
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        if state.host_end == HostEnd::Gone {
            return;
        }
        state.host_end = HostEnd::Gone;
        let event = RingEvent::Closed {
            socket: SocketId::simulated(link),
            token: state.token,
            error: failed.then(|| io::ErrorKind::ConnectionReset.into()),
        };
        let host = state.host;
        self.tell(host, event);
        self.forget(link);
    }

    fn forget(&mut self, link: u64) {
        let is_over = |state: &Link| {
            matches!(state.target_end, TargetEnd::Gone) && state.host_end == HostEnd::Gone
        };
        if self.links.get(&link).is_some_and(is_over) {
            self.links.remove(&link);
        }
    }
}
