//! Connections as they come and go: the connection manager's events.

use std::ffi::c_void;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdma_sys as sys;
use sys::rdma_cm_event_type as event_type;

use crate::address::Raw;
use crate::api::{Api, api};
use crate::error::{VerbsError, check, last};
use crate::id::Id;

/// Most private data of a connection request.
const PRIVATE_BYTES_MAX: u8 = 56;

/// What happened, and to what: the token is the one given with the identifier.
#[derive(Debug)]
pub struct CmEvent {
    /// Of the identifier; of the listener for requests.
    pub token: u64,
    /// What happened.
    pub kind: CmEventKind,
}

/// What happened.
#[derive(Debug)]
pub enum CmEventKind {
    /// A host wants to connect. Dropping the identifier refuses it without a word.
    Request {
        /// The connection to be.
        id: Id,
        /// What the host says; may be padded.
        private_data: Vec<u8>,
        /// How many reads of the host's memory it lets be under way.
        reads_max: u8,
    },
    /// [`Id::connect_to`] has found the device; the route is next.
    AddressResolved,
    /// [`Id::resolve_route`] is done.
    RouteResolved,
    /// The connection is up.
    Established {
        /// What the other end says; may be padded.
        private_data: Vec<u8>,
    },
    /// The other end does not want the connection.
    Rejected {
        /// The network's reason.
        status: i32,
        /// What the other end says; may be padded.
        private_data: Vec<u8>,
    },
    /// The connection ended: the other end has said so. An end that ends it itself is told only when the other end has
    /// ended it, too, or does not answer for long.
    Disconnected,
    /// The connection could not be made.
    Failed {
        /// What was tried.
        what: &'static str,
        /// The network's reason.
        status: i32,
    },
    /// The device is gone: everything on it must be dropped. Listeners at an address of it are told, too.
    DeviceRemoved,
    /// Of no importance here.
    Other,
}

pub(crate) struct RawChannel {
    pub(crate) api: &'static Api,
    raw: NonNull<sys::rdma_event_channel>,
    /// Held while an event is taken, and while one of the channel's identifiers is used: taking an event reads and
    /// changes the identifier that it is about, and its queue pair.
    lock: Mutex<()>,
}

// SAFETY: the library's functions on a channel may be called from any thread.
unsafe impl Send for RawChannel {}
// SAFETY: as above; what they do to identifiers happens under `lock`.
unsafe impl Sync for RawChannel {}

impl RawChannel {
    pub(crate) fn as_ptr(&self) -> *mut sys::rdma_event_channel {
        self.raw.as_ptr()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RawChannel {
    fn drop(&mut self) {
        // SAFETY: made by the library; every identifier of it holds on to it, so none is left, and all events were
        // acknowledged when they were taken.
        unsafe { (self.api.manager.rdma_destroy_event_channel)(self.raw.as_ptr()) }
    }
}

/// Where the events of identifiers come. Never blocks.
///
/// Events are acknowledged when they are taken. There are none of an identifier that was dropped.
pub struct Channel(pub(crate) Arc<RawChannel>);

impl Channel {
    /// A channel without identifiers.
    ///
    /// # Errors
    /// [`VerbsError::NoLibrary`], [`VerbsError::NoConnectionManager`].
    pub fn new() -> Result<Self, VerbsError> {
        let api = api()?;
        // SAFETY: the call has no condition.
        let raw = unsafe { (api.manager.rdma_create_event_channel)() };
        let raw = NonNull::new(raw)
            .ok_or_else(|| VerbsError::NoConnectionManager(io::Error::last_os_error()))?;
        let lock = Mutex::new(());
        let this = Self(Arc::new(RawChannel { api, raw, lock }));
        set_nonblocking(this.fd(), "make a channel that does not block")?;
        Ok(this)
    }

    /// Readable when there are events.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel owns the descriptor and lives as long as the borrow.
        unsafe { BorrowedFd::borrow_raw((*self.0.as_ptr()).fd) }
    }

    /// Listens; requests come with this token.
    ///
    /// # Errors
    /// [`VerbsError::Listen`], [`VerbsError::Call`].
    pub fn listen(
        &self,
        address: SocketAddr,
        token: u64,
        backlog: i32,
    ) -> Result<Listener, VerbsError> {
        let id = Id::new(self, token)?;
        let mut raw = Raw::new(address);
        id.with(|id, manager| {
            // SAFETY: the identifier is alive, and the address is whole and stays during the call.
            let result = unsafe { (manager.rdma_bind_addr)(id, raw.as_mut_ptr()) };
            check(result, "bind")?;
            // SAFETY: the identifier is alive.
            check(unsafe { (manager.rdma_listen)(id, backlog) }, "listen")
        })
        .map_err(|error| match error {
            VerbsError::Call { source, .. } => VerbsError::Listen { address, source },
            other => other,
        })?;
        Ok(Listener { id })
    }

    /// Begins to connect: [`CmEventKind::AddressResolved`] is next.
    ///
    /// # Errors
    /// [`VerbsError::Call`].
    pub fn connect(
        &self,
        address: SocketAddr,
        token: u64,
        timeout: Duration,
    ) -> Result<Id, VerbsError> {
        let id = Id::new(self, token)?;
        let mut raw = Raw::new(address);
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        id.with(|id, manager| {
            let (here, there) = (std::ptr::null_mut(), raw.as_mut_ptr());
            // SAFETY: the identifier is alive, and the address is whole and stays during the call; no source is given.
            let result = unsafe { (manager.rdma_resolve_addr)(id, here, there, timeout_ms) };
            check(result, "find a way over RDMA to the address")
        })?;
        Ok(id)
    }

    /// The next event, if there is one.
    ///
    /// # Errors
    /// [`VerbsError::Call`].
    pub fn next_event(&self) -> Result<Option<CmEvent>, VerbsError> {
        let manager = &self.0.api.manager;
        let _alone = self.0.lock();
        let mut raw: *mut sys::rdma_cm_event = std::ptr::null_mut();
        // SAFETY: the channel is alive, and the pointer is where the event goes.
        if unsafe { (manager.rdma_get_cm_event)(self.0.as_ptr(), &raw mut raw) } != 0 {
            return match io::Error::last_os_error().kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(last("take an event of RDMA connections")),
            };
        }
        let Some(event) = NonNull::new(raw) else {
            return Ok(None);
        };
        // SAFETY: the event is the library's until it is acknowledged, which is after this.
        let event_copy = unsafe { self.copy(event.as_ref()) };
        // SAFETY: the event was just given out and is acknowledged once.
        let _ = unsafe { (manager.rdma_ack_cm_event)(event.as_ptr()) };
        Ok(Some(event_copy))
    }

    /// Copies an event, and takes the identifier that comes with a request.
    ///
    /// # Safety
    /// The event is not acknowledged, and this is called once for it.
    unsafe fn copy(&self, event: &sys::rdma_cm_event) -> CmEvent {
        // SAFETY: this field is what connected identifiers have, which are the only ones here.
        let connection = unsafe { event.param.conn };
        let private_data = || {
            if connection.private_data.is_null() {
                return Vec::new();
            }
            let bytes = connection.private_data.cast::<u8>();
            let length = usize::from(connection.private_data_len);
            // SAFETY: the library says that so many bytes are there; they are copied before the acknowledgement.
            unsafe { std::slice::from_raw_parts(bytes, length) }.to_vec()
        };
        let failed = |what| CmEventKind::Failed {
            what,
            status: event.status,
        };
        let is_request = event.event == event_type::RDMA_CM_EVENT_CONNECT_REQUEST;
        let whose = if is_request {
            event.listen_id
        } else {
            event.id
        };
        // SAFETY: identifiers live while events of theirs are not acknowledged.
        let token = unsafe { (*whose).context }.addr() as u64;
        let kind = match event.event {
            event_type::RDMA_CM_EVENT_CONNECT_REQUEST => match NonNull::new(event.id) {
                Some(id) => CmEventKind::Request {
                    // SAFETY: the identifier of a request is new and belongs to whoever takes the event.
                    id: unsafe { Id::adopt(id, &self.0) },
                    private_data: private_data(),
                    reads_max: connection.initiator_depth,
                },
                None => CmEventKind::Other,
            },
            event_type::RDMA_CM_EVENT_ADDR_RESOLVED => CmEventKind::AddressResolved,
            event_type::RDMA_CM_EVENT_ROUTE_RESOLVED => CmEventKind::RouteResolved,
            event_type::RDMA_CM_EVENT_ESTABLISHED => CmEventKind::Established {
                private_data: private_data(),
            },
            event_type::RDMA_CM_EVENT_REJECTED => CmEventKind::Rejected {
                status: event.status,
                private_data: private_data(),
            },
            event_type::RDMA_CM_EVENT_DISCONNECTED => CmEventKind::Disconnected,
            event_type::RDMA_CM_EVENT_ADDR_ERROR => failed("find the address"),
            event_type::RDMA_CM_EVENT_ROUTE_ERROR => failed("find a route"),
            event_type::RDMA_CM_EVENT_CONNECT_ERROR => failed("connect"),
            event_type::RDMA_CM_EVENT_UNREACHABLE => failed("reach the other end"),
            event_type::RDMA_CM_EVENT_DEVICE_REMOVAL => CmEventKind::DeviceRemoved,
            _ => CmEventKind::Other,
        };
        CmEvent { token, kind }
    }
}

/// Takes requests as long as it lives.
pub struct Listener {
    #[allow(dead_code, reason = "its drop ends the listening")]
    id: Id,
}

/// A token as the library keeps it: it is never used as a pointer.
pub(crate) fn as_context(token: u64) -> *mut c_void {
    std::ptr::without_provenance_mut(usize::try_from(token).unwrap_or(usize::MAX))
}

/// The length of private data, cut to what a request can carry.
pub(crate) fn private_length(data: &[u8]) -> u8 {
    let length = u8::try_from(data.len()).unwrap_or(u8::MAX);
    length.min(PRIVATE_BYTES_MAX)
}

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>, what: &'static str) -> Result<(), VerbsError> {
    // SAFETY: plain flags of an open descriptor.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    // SAFETY: as above.
    let set = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) };
    if flags < 0 || set < 0 {
        Err(last(what))
    } else {
        Ok(())
    }
}
