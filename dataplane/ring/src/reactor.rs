//! The loop: takes completions, messages and timers to the handler, submits, and sleeps.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

use crate::activity::Activity;
use crate::config::ReactorConfig;
use crate::error::RingError;
use crate::event::{Event, Handler};
use crate::io::{Io, Kind};
use crate::listener::ListenerId;
use crate::mailbox::Inbox;
use crate::provided::RecvBuffers;
use crate::slab::Key;
use crate::socket::{SocketId, State};
use crate::stream::Stream;
use crate::timer::Due;

/// Completions taken in one go.
const BATCH: usize = 256;
/// Messages taken in one turn, so that a busy sender cannot starve the connections.
const MESSAGES_PER_TURN: usize = 256;
/// Pause after an accept failed for lack of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long an ending reactor waits for operations that do not end when cancelled.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// A completion, copied out of the queue.
#[derive(Clone, Copy)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

impl Completion {
    fn result(&self) -> io::Result<usize> {
        usize::try_from(self.result).map_err(|_| io::Error::from_raw_os_error(-self.result))
    }
}

/// A single-threaded event loop on one io_uring; made and run on the same thread.
pub struct Reactor<M> {
    io: Io,
    recv: Option<RecvBuffers>,
    inbox: Inbox<M>,
    /// Where the read of the wake-up descriptor puts its count.
    wake_count: Box<[u8; 8]>,
    spin: Duration,
    batch: Vec<Completion>,
    activity: Arc<Activity>,
}

impl<M: Send> Reactor<M> {
    /// Makes a reactor for the calling thread, which alone may run it.
    ///
    /// # Errors
    /// [`RingError::KernelTooOld`], [`RingError::Denied`], [`RingError::Setup`].
    pub fn new(config: &ReactorConfig, inbox: Inbox<M>) -> Result<Self, RingError> {
        let uring = crate::setup::open(config)?;
        let recv = RecvBuffers::new(&uring, config.recv_buffers, config.recv_buffer_bytes)
            .map_err(|source| RingError::Setup {
                what: "register receive buffers",
                source,
            })?;
        let io = Io::new(uring, config);
        let mut this = Self {
            io,
            recv: Some(recv),
            inbox,
            wake_count: Box::new([0; 8]),
            spin: config.spin,
            batch: Vec::with_capacity(BATCH),
            activity: Arc::default(),
        };
        this.arm_wake();
        Ok(this)
    }

    /// Counts of what it does.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// The handle for operations, to set things up before [`Reactor::run`].
    pub fn io(&mut self) -> &mut Io {
        &mut self.io
    }

    /// Runs until a handler calls [`Io::stop`].
    ///
    /// # Errors
    /// [`RingError::Enter`]: the ring is unusable.
    pub fn run<H: Handler<Message = M>>(&mut self, handler: &mut H) -> Result<(), RingError> {
        self.io.stopping = false;
        let mut idle_since = Instant::now();
        loop {
            let worked = self.turn(handler);
            if self.io.stopping {
                // What the last turn queued still goes out.
                return self.submit();
            }
            if worked {
                idle_since = self.io.now;
            }
            // A turn of nothing but ends of sends, for example, has nothing to tell the kernel.
            if self.io.has_unsubmitted() || self.kernel_waits() {
                self.submit()?;
            } else if self.io.now.duration_since(idle_since) < self.spin {
                std::hint::spin_loop();
            } else if !worked {
                if handler.may_sleep(&mut self.io) {
                    self.sleep()?;
                }
                idle_since = Instant::now();
            }
        }
    }

    /// Takes in everything that has happened and queues what follows. Says whether there was anything.
    fn turn<H: Handler<Message = M>>(&mut self, handler: &mut H) -> bool {
        self.io.now = Instant::now();
        self.io.push_backlog();
        let mut worked = self.take_completions(handler);
        for _ in 0..MESSAGES_PER_TURN {
            let Some(message) = self.inbox.take() else {
                break;
            };
            worked = true;
            handler.message(&mut self.io, message);
        }
        while let Some((timer, due)) = self.io.timers.pop(self.io.now) {
            worked = true;
            match due {
                Due::User(token) => handler.event(&mut self.io, Event::Timer { timer, token }),
                Due::Accept(key) => self.io.arm_accept(key),
            }
        }
        worked |= handler.poll(&mut self.io);
        if worked {
            handler.turn_end(&mut self.io);
        }
        self.settle(handler);
        worked
    }

    /// Frees what is closed, receives where it ended, sends what is queued.
    fn settle<H: Handler<Message = M>>(&mut self, handler: &mut H) {
        // A handler may close more while it hears of a close.
        while !self.io.closing.is_empty() || !self.io.closing_listeners.is_empty() {
            if let Some(key) = self.io.closing.pop()
                && self
                    .io
                    .sockets
                    .get(key)
                    .is_some_and(|socket| socket.is_free())
                && let Some(socket) = self.io.sockets.remove(key)
            {
                let (token, error) = (socket.token, socket.error);
                handler.event(
                    &mut self.io,
                    Event::Closed {
                        socket: SocketId(key),
                        token,
                        error,
                    },
                );
            }
            if let Some(key) = self.io.closing_listeners.pop()
                && self
                    .io
                    .listeners
                    .get(key)
                    .is_some_and(|l| l.closing && !l.accepting)
                && let Some(listener) = self.io.listeners.remove(key)
            {
                let (listener, token) = (ListenerId(key), listener.token);
                handler.event(&mut self.io, Event::ListenerClosed { listener, token });
            }
        }
        while let Some(key) = self.io.rearm.pop() {
            self.io.arm_recv(key);
        }
        self.io.flush();
    }

    fn take_completions<H: Handler<Message = M>>(&mut self, handler: &mut H) -> bool {
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        let completions = self.io.uring.completion().take(BATCH);
        batch.extend(completions.map(|c| Completion {
            user_data: c.user_data(),
            result: c.result(),
            flags: c.flags(),
        }));
        for completion in &batch {
            if !cqueue::more(completion.flags) {
                self.io.owed -= 1;
            }
            self.complete(handler, *completion);
        }
        let worked = !batch.is_empty();
        self.batch = batch;
        worked
    }

    fn complete<H: Handler<Message = M>>(&mut self, handler: &mut H, completion: Completion) {
        let key = Key::from_bits(completion.user_data);
        match Kind::of(completion.user_data) {
            Kind::Recv => self.received(handler, key, completion),
            Kind::Send => {
                if let Some((token, queued_bytes)) = self.io.sent(key, completion.result()) {
                    handler.event(
                        &mut self.io,
                        Event::Sent {
                            socket: SocketId(key),
                            token,
                            queued_bytes,
                        },
                    );
                }
            }
            Kind::Connect => self.connected(handler, key, completion),
            Kind::Accept => self.accepted(handler, key, completion),
            Kind::File => {
                if let Some(done) = self.io.file_completed(key, completion.result()) {
                    handler.event(&mut self.io, Event::File(done));
                }
            }
            Kind::Wake => self.arm_wake(),
            Kind::Watch => {
                let more = cqueue::more(completion.flags);
                if let Some(token) = self.io.polled(key, more) {
                    handler.event(&mut self.io, Event::Readable { token });
                }
            }
            Kind::Cancel => {}
        }
    }

    fn received<H: Handler<Message = M>>(
        &mut self,
        handler: &mut H,
        key: Key,
        completion: Completion,
    ) {
        let result = completion.result();
        let buffer = cqueue::buffer_select(completion.flags);
        let Some(socket) = self.io.sockets.get_mut(key) else {
            return;
        };
        let (token, open) = (socket.token, socket.state == State::Open);
        if !cqueue::more(completion.flags) {
            socket.receiving = false;
            if socket.state == State::Closing {
                self.io.closing.push(key);
            } else {
                self.io.rearm.push(key);
            }
        }
        match result {
            Ok(0) => self.io.begin_close(key, None),
            Ok(len) => {
                if let (true, Some(id), Some(recv)) = (open, buffer, &self.recv) {
                    let data = recv.bytes(id, len);
                    handler.event(
                        &mut self.io,
                        Event::Received {
                            socket: SocketId(key),
                            token,
                            data,
                        },
                    );
                }
            }
            // No buffer was free, or a pause ended it: taken up again when wanted.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN)
                ) => {}
            Err(error) => self.io.begin_close(key, Some(error)),
        }
        if let (Some(id), Some(recv)) = (buffer, &mut self.recv) {
            recv.recycle(id);
        }
    }

    fn connected<H: Handler<Message = M>>(
        &mut self,
        handler: &mut H,
        key: Key,
        completion: Completion,
    ) {
        let result = completion.result();
        let Some(socket) = self.io.sockets.get_mut(key) else {
            return;
        };
        socket.connected();
        if socket.state != State::Connecting {
            self.io.closing.push(key);
            return;
        }
        if let Err(error) = result {
            self.io.begin_close(key, Some(error));
            return;
        }
        socket.state = State::Open;
        let token = socket.token;
        if socket.mark_dirty() {
            self.io.dirty.push(key);
        }
        self.io.arm_recv(key);
        handler.event(
            &mut self.io,
            Event::Connected {
                socket: SocketId(key),
                token,
            },
        );
    }

    fn accepted<H: Handler<Message = M>>(
        &mut self,
        handler: &mut H,
        key: Key,
        completion: Completion,
    ) {
        let stream = match completion.result {
            // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
            fd if fd >= 0 => Some(Stream(unsafe { OwnedFd::from_raw_fd(fd) })),
            _ => None,
        };
        let Some(listener) = self.io.listeners.get_mut(key) else {
            return;
        };
        let (token, closing) = (listener.token, listener.closing);
        if !cqueue::more(completion.flags) {
            listener.accepting = false;
            if closing {
                self.io.closing_listeners.push(key);
            } else if matches!(
                -completion.result,
                libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM
            ) {
                // Accepting at once would fail at once. Without a timer it would never be taken up again.
                if self
                    .io
                    .timers
                    .set(self.io.now + ACCEPT_PAUSE, Due::Accept(key))
                    .is_err()
                {
                    self.io.arm_accept(key);
                }
            } else {
                self.io.arm_accept(key);
            }
        }
        if let Some(stream) = stream.filter(|_| !closing) {
            let listener = ListenerId(key);
            handler.event(
                &mut self.io,
                Event::Accepted {
                    listener,
                    token,
                    stream,
                },
            );
        }
    }

    fn arm_wake(&mut self) {
        let fd = Fd(self.inbox.fd().as_raw_fd());
        let op = opcode::Read::new(fd, self.wake_count.as_mut_ptr(), 8);
        let entry = op.build().user_data(Kind::Wake.tag(Key::from_bits(0)));
        // SAFETY: the eight bytes are boxed and live, like the descriptor, until the reactor has drained
        // its ring; one such read is in flight at a time.
        unsafe { self.io.push(entry) }
    }

    /// Whether the kernel has work to do in this thread, or completions that found the queue full.
    fn kernel_waits(&mut self) -> bool {
        let submission = self.io.uring.submission();
        submission.taskrun() || submission.cq_overflow()
    }

    fn submit(&mut self) -> Result<(), RingError> {
        self.activity.entered();
        passing(self.io.uring.submit())
    }

    /// Waits for a completion, a message or the next timer.
    fn sleep(&mut self) -> Result<(), RingError> {
        self.inbox.sleep();
        let ready = self.inbox.has_message() || !self.io.uring.completion().is_empty();
        let result = if ready {
            Ok(0)
        } else {
            self.activity.slept();
            self.wait()
        };
        self.inbox.awake();
        passing(result)
    }

    fn wait(&mut self) -> io::Result<usize> {
        match self.io.timers.next() {
            None => self.io.uring.submit_and_wait(1),
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                wait_for(&self.io.uring, left)
            }
        }
    }
}

impl<M> Reactor<M> {
    /// Ends everything in flight. Says whether nothing is left.
    fn drain(&mut self) -> bool {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        let deadline = Instant::now() + DRAIN_MAX;
        let mut batch = std::mem::take(&mut self.batch);
        loop {
            // Repeated: an operation between two of its steps escapes a single cancel.
            // SAFETY: a cancel entry points to nothing.
            unsafe {
                self.io
                    .push(entry.clone().user_data(Kind::Cancel.tag(Key::from_bits(0))))
            }
            self.io.push_backlog();
            let _ = wait_for(&self.io.uring, Duration::from_millis(10));
            batch.clear();
            batch.extend(self.io.uring.completion().map(|c| Completion {
                user_data: c.user_data(),
                result: c.result(),
                flags: c.flags(),
            }));
            for completion in &batch {
                self.io.owed -= usize::from(!cqueue::more(completion.flags));
                if Kind::of(completion.user_data) == Kind::Accept && completion.result >= 0 {
                    // SAFETY: as in `accepted`; dropping it closes the connection.
                    drop(unsafe { OwnedFd::from_raw_fd(completion.result) });
                }
            }
            if self.io.owed == 0 || Instant::now() > deadline {
                return self.io.owed == 0;
            }
        }
    }
}

impl<M> Drop for Reactor<M> {
    fn drop(&mut self) {
        if !self.drain() {
            // The kernel may still write into what these own: better lost than used twice.
            std::mem::forget(std::mem::replace(
                &mut self.io.sockets,
                crate::slab::Slab::new(),
            ));
            std::mem::forget(std::mem::replace(
                &mut self.io.transfers,
                crate::slab::Slab::new(),
            ));
            std::mem::forget(self.recv.take());
            std::mem::forget(std::mem::take(&mut self.wake_count));
        }
    }
}

/// Waits for one completion, at most `left`.
fn wait_for(uring: &IoUring, left: Duration) -> io::Result<usize> {
    let timespec = Timespec::new()
        .sec(left.as_secs())
        .nsec(left.subsec_nanos());
    uring
        .submitter()
        .submit_with_args(1, &SubmitArgs::new().timespec(&timespec))
}

/// Lets errors of `io_uring_enter` pass that the next turn puts right.
fn passing(result: io::Result<usize>) -> Result<(), RingError> {
    match result {
        Err(source)
            if !matches!(
                source.raw_os_error(),
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ETIME)
            ) =>
        {
            Err(RingError::Enter { source })
        }
        _ => Ok(()),
    }
}
