//! The handle through which handlers start operations: the ring and the tables of what is in flight.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use io_uring::types::CancelBuilder;
use io_uring::{IoUring, opcode, squeue};

use crate::buf::{BufPool, IoBuf};
use crate::config::ReactorConfig;
use crate::error::RingError;
use crate::file::{FileEntry, FileOp, Transfer};
use crate::listener::Listener;
use crate::output::Sending;
use crate::slab::{Key, Slab};
use crate::socket::Socket;
use crate::timer::{Due, TimerId, Timers};
use crate::watch::Watch;

/// What an operation in flight is; the upper four bits of its user data, above the key of its slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    Cancel = 0,
    Recv = 1,
    Send = 2,
    Connect = 3,
    Accept = 4,
    File = 5,
    Wake = 6,
    Watch = 7,
}

impl Kind {
    pub(crate) fn tag(self, key: Key) -> u64 {
        (u64::from(self as u8) << 60) | key.bits()
    }

    pub(crate) fn of(user_data: u64) -> Self {
        match user_data >> 60 {
            1 => Self::Recv,
            2 => Self::Send,
            3 => Self::Connect,
            4 => Self::Accept,
            5 => Self::File,
            6 => Self::Wake,
            7 => Self::Watch,
            _ => Self::Cancel,
        }
    }
}

/// Starts operations on the reactor. Handlers get it with every event.
pub struct Io {
    pub(crate) uring: IoUring,
    /// Entries that found the submission queue full.
    backlog: VecDeque<squeue::Entry>,
    /// Operations that have not had their last completion.
    pub(crate) owed: usize,
    pub(crate) sockets: Slab<Socket>,
    pub(crate) listeners: Slab<Listener>,
    pub(crate) watches: Slab<Watch>,
    pub(crate) files: Slab<FileEntry>,
    pub(crate) transfers: Slab<Transfer>,
    pub(crate) ops: Slab<FileOp>,
    pub(crate) timers: Timers,
    /// Sockets with something to send.
    pub(crate) dirty: Vec<Key>,
    /// Sockets whose receive has ended and is wanted.
    pub(crate) rearm: Vec<Key>,
    /// Sockets and listeners that may have become ready to be freed.
    pub(crate) closing: Vec<Key>,
    pub(crate) closing_listeners: Vec<Key>,
    /// Send operations that are not in use; boxed, as the ones in flight must not move.
    #[allow(clippy::vec_box)]
    pub(crate) spares: Vec<Box<Sending>>,
    pub(crate) pool: BufPool,
    pub(crate) tcp_congestion: Option<String>,
    pub(crate) now: Instant,
    pub(crate) stopping: bool,
}

impl Io {
    pub(crate) fn new(uring: IoUring, config: &ReactorConfig) -> Self {
        Self {
            uring,
            backlog: VecDeque::new(),
            owed: 0,
            sockets: Slab::new(),
            listeners: Slab::new(),
            watches: Slab::new(),
            files: Slab::new(),
            transfers: Slab::new(),
            ops: Slab::new(),
            timers: Timers::new(),
            dirty: Vec::new(),
            rearm: Vec::new(),
            closing: Vec::new(),
            closing_listeners: Vec::new(),
            spares: Vec::new(),
            pool: BufPool::new(config.buf_limit_bytes),
            tcp_congestion: config.tcp_congestion.clone(),
            now: Instant::now(),
            stopping: false,
        }
    }

    /// Ends [`Reactor::run`](crate::Reactor::run) after this turn.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// The time at the beginning of this turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A buffer from the reactor's pool; see [`BufPool::alloc`].
    pub fn alloc(&self, len: usize) -> Option<IoBuf> {
        self.pool.alloc(len)
    }

    /// The reactor's buffer pool.
    pub fn pool(&self) -> &BufPool {
        &self.pool
    }

    /// Fires one [`Event::Timer`](crate::Event) with `token` after `delay`.
    ///
    /// # Errors
    /// [`RingError::Full`] with 2^24 timers set.
    pub fn set_timer(&mut self, delay: Duration, token: u64) -> Result<TimerId, RingError> {
        self.timers.set(self.now + delay, Due::User(token))
    }

    /// Takes a timer back; one that has fired or was cancelled is no error.
    pub fn cancel_timer(&mut self, timer: TimerId) {
        self.timers.cancel(timer);
    }

    /// Queues an operation for the submission at the end of the turn.
    ///
    /// # Safety
    /// Everything the entry points to must stay valid and where it is until the operation's last
    /// completion, or until the submission if the kernel copies it then.
    pub(crate) unsafe fn push(&mut self, entry: squeue::Entry) {
        self.owed += 1;
        if self.backlog.is_empty() {
            // SAFETY: passed on to our caller.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            // A failed submission shows again at the end of the turn, where it is handled.
            let _ = self.uring.submit();
            // SAFETY: passed on to our caller.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// Moves what found no room into the submission queue.
    pub(crate) fn push_backlog(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: the contract of `push`, through which the entry came, still holds.
            if unsafe { self.uring.submission().push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    /// Whether entries wait for a submission.
    pub(crate) fn has_unsubmitted(&mut self) -> bool {
        !self.backlog.is_empty() || !self.uring.submission().is_empty()
    }

    /// Asks the kernel to end the operation with this user data. Its completion comes all the same.
    pub(crate) fn cancel(&mut self, kind: Kind, key: Key) {
        let what = CancelBuilder::user_data(kind.tag(key));
        let entry = opcode::AsyncCancel2::new(what)
            .build()
            .user_data(Kind::Cancel.tag(key));
        // SAFETY: a cancel entry points to nothing.
        unsafe { self.push(entry) }
    }
}
