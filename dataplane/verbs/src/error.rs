//! What can go wrong with RDMA.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why something with RDMA failed.
#[derive(Debug, thiserror::Error)]
pub enum VerbsError {
    /// A library is not installed, or too old.
    #[error("RDMA needs {library}: {why}; install libibverbs1, librdmacm1 and ibverbs-providers")]
    NoLibrary {
        /// Its file.
        library: &'static str,
        /// What the loader says.
        why: String,
    },
    /// There is no device, or the kernel has no connection manager.
    #[error(
        "RDMA connections cannot be made: {0}; there must be an RDMA device (`rdma link`) and the kernel module rdma_ucm"
    )]
    NoConnectionManager(#[source] io::Error),
    /// An address cannot be listened at.
    #[error(
        "cannot listen over RDMA at {address}: {source}; it must belong to a network device that an RDMA device uses"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A call failed.
    #[error("cannot {what}: {source}")]
    Call {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The connection has no device yet, or no more.
    #[error("the connection has no RDMA device")]
    NoDevice,
    /// Things that do not belong together were used together.
    #[error(
        "{what} is another queue pair's or another device's; use what the queue pair was made with"
    )]
    Foreign {
        /// What was given.
        what: &'static str,
    },
    /// The queue pair has failed before.
    #[error("the queue pair takes no more work since it has failed; end the connection")]
    Broken,
    /// A file of the kernel that describes devices cannot be read.
    #[error("cannot read {}: {source}; is /sys mounted?", path.display())]
    Sysfs {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The buffer is not in memory that the device knows.
    #[error("a buffer is not in the memory that is registered with the RDMA device")]
    NotRegistered,
    /// The pool has no buffer for what a connection needs itself.
    #[error(
        "no memory is left that is registered with the RDMA device; end other connections, or enlarge it"
    )]
    NoBuffer,
    /// The send queue has no room.
    #[error("the send queue is full")]
    QueueFull,
}

/// The error of a call that returns a pointer or -1 and sets errno.
pub(crate) fn last(what: &'static str) -> VerbsError {
    VerbsError::Call {
        what,
        source: io::Error::last_os_error(),
    }
}

/// The outcome of a call that returns 0, or -1 and sets errno.
pub(crate) fn check(result: libc::c_int, what: &'static str) -> Result<(), VerbsError> {
    if result == 0 { Ok(()) } else { Err(last(what)) }
}

/// The outcome of a call that returns 0 or the error's number.
pub(crate) fn check_number(result: libc::c_int, what: &'static str) -> Result<(), VerbsError> {
    if result == 0 {
        return Ok(());
    }
    let source = io::Error::from_raw_os_error(result.abs());
    Err(VerbsError::Call { what, source })
}
