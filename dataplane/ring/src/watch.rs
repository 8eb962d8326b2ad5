//! Descriptors of others, watched until they are readable.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use io_uring::{opcode, types};

use crate::error::RingError;
use crate::io::{Io, Kind};
use crate::slab::Key;

/// Names a watched descriptor of this reactor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WatchId(pub(crate) Key);

pub(crate) struct Watch {
    fd: OwnedFd,
    pub(crate) token: u64,
    pub(crate) polling: bool,
    pub(crate) closing: bool,
}

impl Io {
    /// Watches a descriptor: every time when it becomes readable comes as [`Event::Readable`](crate::Event). Take
    /// everything that it has then: nothing is said of what is left.
    ///
    /// # Errors
    /// [`RingError::Socket`], [`RingError::Full`].
    pub fn watch(&mut self, fd: BorrowedFd<'_>, token: u64) -> Result<WatchId, RingError> {
        let fd = fd
            .try_clone_to_owned()
            .map_err(|source| RingError::Socket {
                what: "watch a descriptor as",
                source,
            })?;
        let watch = Watch {
            fd,
            token,
            polling: false,
            closing: false,
        };
        let key = self
            .watches
            .insert(watch)
            .map_err(|_| RingError::Full { what: "watch" })?;
        self.arm_watch(key);
        Ok(WatchId(key))
    }

    /// Watches no longer. What happened before may still be told.
    pub fn unwatch(&mut self, watch: WatchId) {
        let Some(entry) = self.watches.get_mut(watch.0) else {
            return;
        };
        entry.closing = true;
        if entry.polling {
            self.cancel(Kind::Watch, watch.0);
        } else {
            self.watches.remove(watch.0);
        }
    }

    pub(crate) fn arm_watch(&mut self, key: Key) {
        let Some(entry) = self.watches.get_mut(key) else {
            return;
        };
        entry.polling = true;
        // POLLIN has one value on every platform that has io_uring.
        let readable = u32::from(libc::POLLIN.unsigned_abs());
        let op = opcode::PollAdd::new(types::Fd(entry.fd.as_raw_fd()), readable).multi(true);
        // SAFETY: the entry points to nothing; the descriptor is owned by the watch, which stays until the poll has
        // ended.
        unsafe { self.push(op.build().user_data(Kind::Watch.tag(key))) }
    }

    /// The poll of a watch said something; `more` when it goes on. The token, unless it is not watched any more.
    pub(crate) fn polled(&mut self, key: Key, more: bool) -> Option<u64> {
        let entry = self.watches.get_mut(key)?;
        let (token, closing) = (entry.token, entry.closing);
        if !more {
            entry.polling = false;
            if closing {
                self.watches.remove(key);
            } else {
                self.arm_watch(key);
            }
        }
        (!closing).then_some(token)
    }
}
