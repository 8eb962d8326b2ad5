//! What the drive's thread does: commands in groups, the clean reserve, freed extents.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::{Command, Directory, Reply, lock};
use crate::grace::GraceCycle;
use crate::pool::Pool;
use crate::reserve::GraceToken;
use crate::space::{ExtentRequest, Outcome};

/// Allocations that go into one journal batch at most.
const MAX_GROUP: usize = 256;
/// The clean reserve is refilled below the one and up to the other, extents.
const LOW_WATER_EXTENTS: usize = 24;
const HIGH_WATER_EXTENTS: usize = 64;
/// Cleaned at once; commands wait this long at most.
const REFILL_EXTENTS: usize = 16;
/// How often a grace period is looked at, first and at last.
const GRACE_POLL_MIN: Duration = Duration::from_millis(1);
const GRACE_POLL_MAX: Duration = Duration::from_millis(50);

struct Allocation {
    request: ExtentRequest,
    reply: Reply<()>,
}

pub(super) struct Worker {
    pool: Pool,
    directory: Arc<Directory>,
    /// Allocations that found no free extent within reach yet.
    waiting: VecDeque<Allocation>,
    grace: Option<(GraceCycle, GraceToken)>,
    poll: Duration,
    is_refilling: bool,
}

impl Worker {
    pub(super) fn new(pool: Pool, directory: Arc<Directory>) -> Self {
        Self {
            pool,
            directory,
            waiting: VecDeque::new(),
            grace: None,
            poll: GRACE_POLL_MIN,
            is_refilling: true,
        }
    }

    pub(super) fn run(mut self, queue: &Receiver<Command>) {
        loop {
            let busy = self.refill();
            let next = if busy {
                queue.recv_timeout(Duration::ZERO)
            } else if self.grace_pending() {
                queue.recv_timeout(self.poll)
            } else {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            let open = match next {
                Ok(command) => self.work(command, queue),
                Err(RecvTimeoutError::Timeout) => true,
                Err(RecvTimeoutError::Disconnected) => false,
            };
            self.advance_grace();
            if !open {
                // A failed sync is in the pool's fault, where everyone sees it.
                let _ = self.pool.sync();
                return;
            }
        }
    }

    /// Carries `first` and what has queued up behind it out. False: close.
    fn work(&mut self, first: Command, queue: &Receiver<Command>) -> bool {
        let mut group = Vec::new();
        let mut next = Some(first);
        for _ in 0..MAX_GROUP {
            match next.take() {
                Some(Command::Allocate(volume, extents, reply)) => {
                    group.push(Allocation {
                        request: ExtentRequest { volume, extents },
                        reply,
                    });
                }
                Some(Command::Close) => return false,
                Some(other) => {
                    self.allocate(std::mem::take(&mut group));
                    self.single(other);
                }
                None => break,
            }
            next = queue.try_recv().ok();
        }
        self.allocate(group);
        // The group was full.
        next.is_none_or(|command| self.work_one(command))
    }

    fn work_one(&mut self, command: Command) -> bool {
        match command {
            Command::Allocate(volume, extents, reply) => {
                self.allocate(vec![Allocation {
                    request: ExtentRequest { volume, extents },
                    reply,
                }]);
            }
            Command::Close => return false,
            other => self.single(other),
        }
        true
    }

    fn single(&mut self, command: Command) {
        match command {
            Command::Create(spec, reply) => {
                let made = self.pool.create_volume(&spec);
                if let Ok(volume) = &made {
                    lock(&self.directory).insert(volume.uuid(), Arc::clone(volume));
                }
                reply.send(made);
            }
            Command::Grow(uuid, size_bytes, reply) => {
                reply.send(self.pool.grow_volume(uuid, size_bytes))
            }
            Command::Delete(uuid, reply) => {
                let deleted = self.pool.delete_volume(uuid);
                if deleted.is_ok() {
                    lock(&self.directory).remove(&uuid);
                }
                reply.send(deleted.map(drop));
            }
            Command::Deallocate(uuid, extents, reply) => {
                reply.send(self.pool.deallocate(uuid, extents).map(drop));
            }
            Command::Note(uuid, bytes, reply) => reply.send(self.pool.set_note(uuid, bytes())),
            Command::GrowDrive(size_bytes, reply) => reply.send(self.pool.grow_drive(size_bytes)),
            Command::Sync(reply) => reply.send(self.pool.sync()),
            Command::Check(reply) => reply.send(self.pool.check_drive()),
            // Taken care of by the callers.
            Command::Allocate(..) | Command::Close => {}
        }
    }

    fn allocate(&mut self, group: Vec<Allocation>) {
        if group.is_empty() {
            return;
        }
        let requests: Vec<ExtentRequest> = group.iter().map(|a| a.request.clone()).collect();
        match self.pool.allocate(&requests) {
            Ok(outcomes) => {
                for (allocation, outcome) in group.into_iter().zip(outcomes) {
                    match outcome {
                        Outcome::Mapped => allocation.reply.send(Ok(())),
                        Outcome::Refused(error) => allocation.reply.send(Err(error)),
                        Outcome::Wait => self.waiting.push_back(allocation),
                    }
                }
            }
            Err(error) => {
                for allocation in group {
                    allocation.reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// One step of filling the clean reserve. True: there is more to do.
    fn refill(&mut self) -> bool {
        let clean = self.pool.reserve().clean_count();
        self.is_refilling =
            (self.is_refilling && clean < HIGH_WATER_EXTENTS) || clean < LOW_WATER_EXTENTS;
        if !self.is_refilling {
            return false;
        }
        // An error is in the pool's fault, where everyone sees it.
        let more = matches!(self.pool.refill(REFILL_EXTENTS), Ok(n) if n > 0);
        self.is_refilling = more;
        more
    }

    fn grace_pending(&self) -> bool {
        self.pool.shared().fault().is_none()
            && (self.grace.is_some() || self.pool.reserve().last_unreleased().is_some())
    }

    /// Lets go free what nobody can reach any more, and serves the allocations that waited for it.
    fn advance_grace(&mut self) {
        let shared = Arc::clone(self.pool.shared());
        let cycle = self.grace.take().or_else(|| {
            let token = self.pool.reserve().last_unreleased()?;
            self.poll = GRACE_POLL_MIN;
            Some((GraceCycle::start(&shared.grace), token))
        });
        if let Some((mut cycle, token)) = cycle {
            if cycle.poll(&shared.grace) {
                self.pool.release(token);
                // An error is in the pool's fault, where everyone sees it.
                let _ = self.pool.reclaim();
                self.is_refilling = true;
            } else {
                self.poll = (self.poll * 2).min(GRACE_POLL_MAX);
                self.grace = Some((cycle, token));
            }
        }
        if !self.waiting.is_empty() && (self.grace.is_none() || shared.fault().is_some()) {
            let group = std::mem::take(&mut self.waiting).into();
            self.allocate(group);
        }
    }
}
