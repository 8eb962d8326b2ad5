//! What can go wrong with a reactor itself. Failures of a connection or a drive come as events.

use std::io;
use std::net::SocketAddr;

/// An error of the reactor.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel lacks what the reactor needs.
    #[error(
        "the kernel {release} is too old for io_uring as used here: Linux 6.1 or newer is needed"
    )]
    KernelTooOld {
        /// What `uname -r` says.
        release: String,
    },
    /// io_uring is forbidden to this process.
    #[error(
        "io_uring is denied ({source}): run privileged or with a seccomp profile that allows io_uring_setup, \
         io_uring_enter and io_uring_register, and set the sysctl kernel.io_uring_disabled to 0"
    )]
    Denied {
        /// The system call's error.
        source: io::Error,
    },
    /// The ring or its buffers could not be made.
    #[error("cannot {what}: {source}")]
    Setup {
        /// What was tried.
        what: &'static str,
        /// The system call's error.
        source: io::Error,
    },
    /// `io_uring_enter` failed for a reason that is not passing.
    #[error("io_uring_enter failed: {source}")]
    Enter {
        /// The system call's error.
        source: io::Error,
    },
    /// An address could not be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The system call's error.
        source: io::Error,
    },
    /// A socket could not be made or set up.
    #[error("cannot {what} a socket: {source}")]
    Socket {
        /// What was tried.
        what: &'static str,
        /// The system call's error.
        source: io::Error,
    },
    /// All slots of a table (2^24) are in use.
    #[error("the reactor has no room for another {what}")]
    Full {
        /// What there is too much of.
        what: &'static str,
    },
    /// A memory drive could not be mapped.
    #[error("cannot map {len_bytes} bytes of memory: {source}")]
    Map {
        /// Size asked for.
        len_bytes: usize,
        /// The system call's error.
        source: io::Error,
    },
}
