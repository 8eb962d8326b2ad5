//! A host: the production client, and who uses its namespace.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use roadstead_initiator::{
    Client, Completed, Identity, IoError, Limits, Op, PathReport, PathState, QUEUE_TOKENS, Refused,
    Spec, Wanted,
};
use roadstead_nvme::AnaState;
use roadstead_ring::{Event as RingEvent, TimerId};
use uuid::Uuid;

use crate::model::{Moment, fill, stamp_of};
use crate::net::HostRim;
use crate::node;
use crate::plan::Plan;
use crate::world::{Event, World};

/// Until a user asks again whose host takes no more requests.
const FULL_PAUSE: u64 = 20_000;

/// A request that has not ended.
pub struct Pending {
    op: Op,
    lba: u64,
    began: Moment,
}

pub struct Guest {
    client: Option<Client>,
    /// Its own part of the namespace.
    first: u64,
    pub ops_left: u32,
    pub requests: BTreeMap<u64, Pending>,
    next: u64,
    pub is_live: bool,
    down_us: u64,
    is_closed: bool,
    /// Failed for want of a path; may land until the host is let in again.
    in_limbo: Vec<u64>,
    /// When writes were acknowledged that no flush has covered.
    unflushed: Vec<Moment>,
    /// When such writes may have been lost, and no flush has failed since.
    hole: Option<Moment>,
    /// Nothing that was done before the loss can be told any more.
    is_cut: bool,
    last_hole: Option<Moment>,
    /// When the last thing arrives that the target sees in order.
    pub order_us: u64,
    /// Nothing moves between it and the target until then.
    pub stalled_until: u64,
}

fn limits(plan: &Plan) -> Limits {
    Limits {
        io_queues: plan.io_queues,
        queue_depth: plan.queue_depth,
        requests_max: 64,
        ctrl_loss: Duration::from_micros(plan.ctrl_loss_us),
        fast_io_fail: Duration::from_micros(plan.fast_io_fail_us),
        keep_alive: Duration::from_micros(plan.keep_alive_us),
        connect: Duration::from_secs(5),
        io_timeout: Duration::from_micros(plan.io_timeout_us),
        abort_timeout: Duration::from_secs(1),
        policy: plan.policy,
        ..Limits::default()
    }
}

/// Whether requests go over a path.
fn is_usable(path: &PathReport) -> bool {
    path.state == PathState::Live && path.ana_state.is_none_or(AnaState::is_usable)
}

impl Guest {
    pub fn new(host: usize, plan: &Plan, now: Instant) -> Self {
        let id = host as u64;
        let spec = Spec {
            identity: Identity {
                nqn: node::host_nqn(host),
                id: Uuid::from_u64_pair(7, id),
                keys: None,
            },
            subsystem_nqn: node::subsystem_nqn(),
            namespace: Wanted::Uuid(node::UUID),
            paths: node::PORTALS.map(Into::into).to_vec(),
            limits: limits(plan),
            header_digest: plan.header_digest,
            data_digest: plan.data_digest,
        };
        Self {
            client: Some(Client::new(spec, id * QUEUE_TOKENS, now)),
            first: id * plan.blocks,
            ops_left: plan.ops,
            requests: BTreeMap::new(),
            next: 1,
            is_live: false,
            down_us: 0,
            is_closed: false,
            in_limbo: Vec::new(),
            unflushed: Vec::new(),
            hole: None,
            is_cut: false,
            last_hole: None,
            order_us: 0,
            stalled_until: 0,
        }
    }

    pub fn power_lost(&mut self, now: Moment) {
        if !self.unflushed.is_empty() {
            // Of several the first: one failed flush tells of all of them.
            self.hole = self.hole.or(Some(now));
            self.is_cut = !self.is_live;
        }
    }

    /// A flush ended. One that began after a loss must not succeed before one has failed; and none fails for nothing.
    fn flushed(&mut self, began: Moment, is_good: bool) {
        if is_good {
            assert!(
                self.hole.is_none() || !self.is_cut,
                "a flush succeeds over writes that were lost"
            );
            self.unflushed.retain(|acknowledged| *acknowledged > began);
            let is_open = |lost: &Moment| self.unflushed.iter().any(|acked| acked < lost);
            self.hole = self.hole.filter(is_open);
            return;
        }
        let lost = self.hole.or(self.last_hole);
        assert!(lost.is_some(), "a flush fails although nothing was lost");
        if self.hole.is_some_and(|lost| began > lost) {
            self.last_hole = self.hole.take();
            self.unflushed.clear();
        }
    }

    /// What the host takes for the namespace's size.
    pub fn blocks(&self) -> Option<u64> {
        Some(self.client.as_ref()?.info()?.blocks)
    }
}

impl World {
    /// Calls a client, then does what a reactor does at the end of a turn.
    pub fn with_client<T>(
        &mut self,
        host: usize,
        with: impl FnOnce(&mut Client, &mut HostRim<'_>) -> T,
    ) -> Option<T> {
        let mut client = self.guests[host].client.take()?;
        let mut rim = HostRim { world: self, host };
        let result = with(&mut client, &mut rim);
        client.pump(&mut rim);
        while client.next_change().is_some() {}
        self.look_at_paths(host, &mut client);
        while let Some(done) = client.next_done() {
            self.done(host, done);
        }
        self.guests[host].client = Some(client);
        self.send_all(host);
        Some(result)
    }

    pub fn tell(&mut self, host: usize, event: RingEvent<'_>) {
        self.with_client(host, |client, rim| client.event(rim, event));
    }

    pub fn pump(&mut self, host: usize) {
        self.with_client(host, |_, _| ());
    }

    pub fn close(&mut self, host: usize) {
        self.guests[host].is_closed = true;
        self.with_client(host, |client, rim| client.close(rim));
    }

    pub fn timer(&mut self, host: usize, timer: u64) {
        if self.timers.remove(&timer).is_some() {
            let event = RingEvent::Timer {
                timer: TimerId::simulated(timer),
                token: 0,
            };
            self.tell(host, event);
        }
    }

    fn look_at_paths(&mut self, host: usize, client: &mut Client) {
        if !client.paths_changed() {
            return;
        }
        let is_live = client.paths().iter().any(is_usable);
        let now = self.moment();
        let now_us = self.now_us;
        let guest = &mut self.guests[host];
        if guest.is_live == is_live {
            return;
        }
        guest.is_live = is_live;
        if is_live {
            // The target let it in, so what it has lost is over.
            for id in guest.in_limbo.drain(..) {
                self.model.fails(id, now);
            }
        } else {
            guest.down_us = now_us;
            guest.is_cut = true;
        }
        self.note(|| format!("host {host}: {}", if is_live { "is up" } else { "is down" }));
    }

    /// The user's next requests.
    pub fn submit(&mut self, host: usize) {
        let guest = &self.guests[host];
        if guest.ops_left == 0 || guest.is_closed {
            return;
        }
        let before = guest.ops_left;
        let burst = self.rng.index(4) + 1;
        for _ in 0..burst {
            let guest = &self.guests[host];
            if guest.ops_left > 0 && guest.requests.len() < self.plan.outstanding_max {
                self.submit_one(host);
            }
        }
        let is_full = self.guests[host].ops_left == before;
        let think = if is_full {
            FULL_PAUSE
        } else {
            self.plan.think_us
        };
        let pause = self.rng.range(1, think);
        self.after(pause, Event::Submit { host });
    }

    fn submit_one(&mut self, host: usize) {
        let (plan, first) = (&self.plan, self.guests[host].first);
        let (start, most) = match self.rng.permille(700) {
            true => (self.rng.below(plan.hot.min(plan.blocks)), plan.hot),
            false => (self.rng.below(plan.blocks), plan.request_blocks_max),
        };
        let blocks = self.rng.range(1, most.min(plan.blocks - start).max(1));
        let op = match self.rng.below(100) {
            0..40 => Op::Read,
            40..75 => Op::Write { durable: false },
            75..85 => Op::Write { durable: true },
            85..93 => Op::Flush,
            _ => Op::WriteZeroes { deallocate: true },
        };
        if self.start(host, op, first + start, blocks) {
            self.guests[host].ops_left -= 1;
        }
    }

    /// Submits a request; false when the host has not connected yet.
    fn start(&mut self, host: usize, op: Op, lba: u64, blocks: u64) -> bool {
        let block_bytes = u64::from(self.plan.block_bytes);
        let guest = &mut self.guests[host];
        let token = ((host as u64 + 1) << 32) | guest.next;
        guest.next += 1;
        let (lba, blocks) = if op == Op::Flush {
            (0, 0)
        } else {
            (lba, blocks)
        };
        let mut bytes = vec![0xaa; usize::try_from(blocks * block_bytes).unwrap_or(0)];
        if matches!(op, Op::Write { .. }) {
            fill(&mut bytes, block_bytes, lba, token);
        }
        let began = self.moment();
        let count = u32::try_from(blocks).unwrap_or(0);
        let Some(client) = &mut self.guests[host].client else {
            return false;
        };
        match client.submit(op, lba, count, (bytes, 0), token) {
            Ok(()) => {}
            Err((Refused::NotConnected, _)) => return false,
            Err((refused, _)) => panic!("{op:?} of {blocks} blocks at {lba}: {refused}"),
        }
        self.accepted(host, token, Pending { op, lba, began }, blocks);
        true
    }

    fn accepted(&mut self, host: usize, token: u64, pending: Pending, blocks: u64) {
        self.note(|| {
            format!(
                "host {host}: {token:#x} {:?} {blocks} at {}",
                pending.op, pending.lba
            )
        });
        self.stats.requests += 1;
        let range = pending.lba..pending.lba + blocks;
        match pending.op {
            Op::Write { .. } => self.model.begins(token, token, range, pending.began),
            Op::WriteZeroes { .. } => self.model.begins(token, 0, range, pending.began),
            Op::Read | Op::Flush => {}
        }
        self.guests[host].requests.insert(token, pending);
        self.pump(host);
    }

    fn done(&mut self, host: usize, done: Completed) {
        let now = self.moment();
        let token = done.token;
        self.note(|| format!("host {host}: {token:#x} ends {:?}", done.result));
        let Some(pending) = self.guests[host].requests.remove(&token) else {
            panic!("request {token:#x} ends twice, or was never accepted");
        };
        match (done.result, pending.op) {
            (Ok(()), Op::Read) => self.check_read(&pending, &done.bytes),
            (Ok(()), Op::Write { durable }) => {
                self.model.succeeds(token, durable, now);
                if !durable {
                    self.guests[host].unflushed.push(now);
                }
            }
            (Ok(()), Op::WriteZeroes { .. }) => {
                self.model.succeeds(token, false, now);
                self.guests[host].unflushed.push(now);
            }
            (Ok(()), Op::Flush) => {
                self.guests[host].flushed(pending.began, true);
                self.model.flushed(pending.began);
            }
            (Err(IoError::CacheLost), Op::Flush) => {
                self.guests[host].flushed(pending.began, false);
                self.stats.caches_lost += 1;
            }
            (Err(error), _) => self.check_error(host, token, &pending, error, now),
        }
    }

    fn check_read(&mut self, pending: &Pending, bytes: &[u8]) {
        let block_bytes = usize::try_from(self.plan.block_bytes).unwrap_or(512);
        for (block, lba) in bytes.chunks(block_bytes).zip(pending.lba..) {
            let check =
                stamp_of(block, lba).and_then(|stamp| self.model.read(lba, stamp, pending.began));
            if let Err(error) = check {
                panic!("a read found what cannot be there: {error}");
            }
        }
    }

    fn check_error(
        &mut self,
        host: usize,
        token: u64,
        pending: &Pending,
        error: IoError,
        now: Moment,
    ) {
        match error {
            IoError::PathLost => {
                let guest = &mut self.guests[host];
                let down_us = self.now_us - guest.down_us;
                let patience_us = self.plan.ctrl_loss_us.min(self.plan.fast_io_fail_us);
                let is_right = !guest.is_live && down_us >= patience_us;
                assert!(is_right, "a request ends with {error} after {down_us} us");
                guest.in_limbo.push(token);
                self.stats.path_lost += 1;
            }
            IoError::Status(_) => {
                assert!(
                    self.excuse > pending.began || !self.node.has_namespace,
                    "a request ends with {error} for no reason"
                );
                self.model.fails(token, now);
                self.stats.io_errors += 1;
            }
            IoError::CacheLost | IoError::Unsupported | IoError::Closed => {
                panic!("a request ends with {error}")
            }
        }
    }

    /// At the end everything is read, and seen at the drive.
    pub fn read_all(&mut self) {
        for host in 0..self.plan.hosts {
            let (first, blocks) = (self.guests[host].first, self.plan.blocks);
            for start in (0..blocks).step_by(16) {
                assert!(self.start(host, Op::Read, first + start, 16.min(blocks - start)));
            }
        }
        let now = self.moment();
        for lba in 0..self.plan.hosts as u64 * self.plan.blocks {
            let check = stamp_of(self.node.storage.drive.block(lba), lba)
                .and_then(|stamp| self.model.read(lba, stamp, now));
            if let Err(error) = check {
                panic!("the drive holds what cannot be there: {error}");
            }
        }
    }
}
