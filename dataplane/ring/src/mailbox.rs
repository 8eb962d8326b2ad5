//! Messages to a reactor from other threads.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::event::{EventfdFlags, eventfd};

use crate::error::RingError;

struct Wake {
    fd: OwnedFd,
    /// The reactor sleeps, or is about to: a message must be followed by a wake.
    asleep: AtomicBool,
}

/// Sends messages to one reactor. Cheap to clone; a wake is sent only when the reactor sleeps.
pub struct Mailbox<M> {
    sender: Sender<M>,
    wake: Arc<Wake>,
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            wake: Arc::clone(&self.wake),
        }
    }
}

/// The reactor's end of a mailbox: give it to `Reactor::new` on the reactor's thread.
pub struct Inbox<M> {
    receiver: Receiver<M>,
    /// A message that was found while looking whether there is one.
    peeked: Option<M>,
    wake: Arc<Wake>,
}

/// Makes a mailbox. It has no bound of its own: senders that could flood it bound themselves.
///
/// # Errors
/// [`RingError::Setup`] when no eventfd is to be had.
pub fn mailbox<M>() -> Result<(Mailbox<M>, Inbox<M>), RingError> {
    let fd = eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| RingError::Setup {
        what: "make an eventfd",
        source: e.into(),
    })?;
    let wake = Arc::new(Wake {
        fd,
        asleep: AtomicBool::new(false),
    });
    let (sender, receiver) = channel();
    Ok((
        Mailbox {
            sender,
            wake: Arc::clone(&wake),
        },
        Inbox {
            receiver,
            peeked: None,
            wake,
        },
    ))
}

impl<M> Mailbox<M> {
    /// Sends a message; gives it back when the reactor is gone.
    ///
    /// # Errors
    /// The reactor has ended.
    pub fn send(&self, message: M) -> Result<(), M> {
        self.sender.send(message).map_err(|error| error.0)?;
        // Pairs with the fence in `Inbox::sleep`: either we see `asleep`, or the reactor sees the message.
        fence(Ordering::SeqCst);
        if self.wake.asleep.load(Ordering::Relaxed)
            && self.wake.asleep.swap(false, Ordering::Relaxed)
        {
            // It cannot fail but by an overflow of the counter, and then the reactor is awake anyhow.
            let _ = rustix::io::write(&self.wake.fd, &1u64.to_ne_bytes());
        }
        Ok(())
    }
}

impl<M> Inbox<M> {
    pub(crate) fn take(&mut self) -> Option<M> {
        self.peeked.take().or_else(|| self.receiver.try_recv().ok())
    }

    pub(crate) fn has_message(&mut self) -> bool {
        self.peeked = self.take();
        self.peeked.is_some()
    }

    /// Announces sleep. The caller must look for a message once more before it really sleeps.
    pub(crate) fn sleep(&self) {
        self.wake.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn awake(&self) {
        self.wake.asleep.store(false, Ordering::Relaxed);
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.wake.fd
    }
}
