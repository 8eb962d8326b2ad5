//! What a reactor tells its user.

use std::io;

use crate::file::FileDone;
use crate::io::Io;
use crate::listener::ListenerId;
use crate::socket::SocketId;
use crate::stream::Stream;
use crate::timer::TimerId;

/// What happened. Tokens are the numbers the user gave when the thing was made.
#[derive(Debug)]
pub enum Event<'a> {
    /// A connection came in: [`Io::adopt`] it here, or send it to another reactor.
    Accepted {
        /// Where it came in.
        listener: ListenerId,
        /// The listener's token.
        token: u64,
        /// The connection.
        stream: Stream,
    },
    /// [`Io::close_listener`] is done: the address is free.
    ListenerClosed {
        /// The listener, which is gone.
        listener: ListenerId,
        /// Its token.
        token: u64,
    },
    /// [`Io::connect`] succeeded; receiving has begun.
    Connected {
        /// The connection.
        socket: SocketId,
        /// Its token.
        token: u64,
    },
    /// Bytes came in. The memory is given back after the handler returns.
    Received {
        /// The connection.
        socket: SocketId,
        /// Its token.
        token: u64,
        /// At least one byte.
        data: &'a [u8],
    },
    /// A send has ended and the connection goes on: the chance to produce more.
    Sent {
        /// The connection.
        socket: SocketId,
        /// Its token.
        token: u64,
        /// Bytes still queued.
        queued_bytes: usize,
    },
    /// The connection is gone and nothing of it is in flight. Comes once for every connection, whoever
    /// ended it, also after a failed connect.
    Closed {
        /// The connection.
        socket: SocketId,
        /// Its token.
        token: u64,
        /// Why, unless the user or the peer ended it in an orderly way.
        error: Option<io::Error>,
    },
    /// An operation on a file has ended.
    File(FileDone),
    /// A watched descriptor became readable.
    Readable {
        /// The token given to [`Io::watch`].
        token: u64,
    },
    /// A timer is due.
    Timer {
        /// The timer, which is gone.
        timer: TimerId,
        /// Its token.
        token: u64,
    },
}

/// The user's side of a reactor. All methods run on the reactor's thread and must not block.
pub trait Handler {
    /// What other threads send through the [`Mailbox`](crate::Mailbox).
    type Message: Send;

    /// Something happened.
    fn event(&mut self, io: &mut Io, event: Event<'_>);

    /// A message came in.
    fn message(&mut self, io: &mut Io, message: Self::Message);

    /// Looks at what the reactor does not know of, in every turn: true if there was something to do. As long as there
    /// is now and then, the reactor does not sleep.
    fn poll(&mut self, io: &mut Io) -> bool {
        let _ = io;
        false
    }

    /// The reactor is about to sleep: what [`Self::poll`] looks at has to wake it from now on. False if there was
    /// something to do in the meantime: it does not sleep then.
    fn may_sleep(&mut self, io: &mut Io) -> bool {
        let _ = io;
        true
    }

    /// All events of this turn have been handled; what is queued is sent after this.
    fn turn_end(&mut self, io: &mut Io) {
        let _ = io;
    }
}
