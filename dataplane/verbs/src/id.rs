//! A connection, before and while it has a queue pair.

use std::net::SocketAddr;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use rdma_sys as sys;

use crate::address;
use crate::api::Manager;
use crate::channel::{Channel, RawChannel, as_context, private_length};
use crate::domain::Device;
use crate::error::{VerbsError, check};

/// How often a request is sent again, and a send that found no receive: the most that the fields can say, the latter
/// without end.
const RETRIES_MAX: u8 = 7;

/// What both ends of a connection allow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectLimits {
    /// Reads of the other end's memory that this end has under way at once.
    pub reads_outbound: u8,
    /// Reads of this end's memory that the other end may have under way at once.
    pub reads_inbound: u8,
}

/// An identifier of the connection manager. Dropping it ends its connection.
pub struct Id {
    raw: NonNull<sys::rdma_cm_id>,
    channel: Arc<RawChannel>,
}

// SAFETY: the library's functions on an identifier may be called from any thread, one at a time: `with` sees to that.
unsafe impl Send for Id {}

impl Id {
    pub(crate) fn new(channel: &Channel, token: u64) -> Result<Self, VerbsError> {
        let mut raw = std::ptr::null_mut();
        let channel = Arc::clone(&channel.0);
        // SAFETY: the channel is alive, and held by the identifier; the pointer is where the identifier goes.
        let result = unsafe {
            (channel.api.manager.rdma_create_id)(
                channel.as_ptr(),
                &raw mut raw,
                as_context(token),
                sys::rdma_port_space::RDMA_PS_TCP,
            )
        };
        check(result, "make an RDMA identifier")?;
        let raw = NonNull::new(raw).ok_or(VerbsError::NoDevice)?;
        Ok(Self { raw, channel })
    }

    /// # Safety
    /// The identifier is of this channel, and nobody else's.
    pub(crate) unsafe fn adopt(raw: NonNull<sys::rdma_cm_id>, channel: &Arc<RawChannel>) -> Self {
        Self {
            raw,
            channel: Arc::clone(channel),
        }
    }

    /// Calls with the identifier while nobody takes an event of it. Not to be used within itself.
    pub(crate) fn with<T>(&self, call: impl FnOnce(*mut sys::rdma_cm_id, &Manager) -> T) -> T {
        let _alone = self.channel.lock();
        call(self.raw.as_ptr(), &self.channel.api.manager)
    }

    /// Changes the token of its events.
    pub fn set_token(&mut self, token: u64) {
        // SAFETY: the identifier is alive and ours; the library only hands this field on.
        self.with(|id, _| unsafe { (*id).context = as_context(token) });
    }

    /// Its events come by another channel from now on.
    ///
    /// # Errors
    /// [`VerbsError::Call`]: they come by the old one.
    pub fn migrate(&mut self, channel: &Channel) -> Result<(), VerbsError> {
        self.with(|id, manager| {
            // SAFETY: both are alive; no event of the identifier is unacknowledged, as each is at once.
            let result = unsafe { (manager.rdma_migrate_id)(id, channel.0.as_ptr()) };
            check(result, "move a connection to another reactor")
        })?;
        self.channel = Arc::clone(&channel.0);
        Ok(())
    }

    /// Its own address.
    pub fn local(&self) -> Option<SocketAddr> {
        // SAFETY: the identifier is alive; the library fills in the whole address that its family says.
        self.with(|id, _| unsafe {
            let address = &raw const (*id).route.addr.src_addr_union;
            address::read(address.cast())
        })
    }

    /// The address of the other end.
    pub fn peer(&self) -> Option<SocketAddr> {
        // SAFETY: as in `local`.
        self.with(|id, _| unsafe {
            let address = &raw const (*id).route.addr.dst_addr_union;
            address::read(address.cast())
        })
    }

    /// The device that it is on, once that is known.
    pub fn device(&self) -> Option<Device> {
        let api = self.channel.api;
        self.with(|id, _| {
            // SAFETY: the identifier is alive.
            let context = NonNull::new(unsafe { (*id).verbs })?;
            // SAFETY: the identifier holds its device, as long as it is locked here at least.
            unsafe { Device::keep(context, api) }
        })
    }

    /// The next step after [`crate::CmEventKind::AddressResolved`]; then comes [`crate::CmEventKind::RouteResolved`].
    ///
    /// # Errors
    /// [`VerbsError::Call`].
    pub fn resolve_route(&mut self, timeout: Duration) -> Result<(), VerbsError> {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        self.with(|id, manager| {
            // SAFETY: the identifier is alive. Its device is what the call looks at.
            if unsafe { (*id).verbs }.is_null() {
                return Err(VerbsError::NoDevice);
            }
            // SAFETY: the identifier is alive, and has a device.
            let result = unsafe { (manager.rdma_resolve_route)(id, timeout_ms) };
            check(result, "find a route over RDMA")
        })
    }

    /// Refuses a request.
    ///
    /// # Errors
    /// [`VerbsError::Call`].
    pub fn reject(self, private_data: &[u8]) -> Result<(), VerbsError> {
        let length = private_length(private_data);
        self.with(|id, manager| {
            // SAFETY: the identifier is alive, and so many bytes are there.
            let result = unsafe { (manager.rdma_reject)(id, private_data.as_ptr().cast(), length) };
            check(result, "refuse a connection")
        })
    }

    pub(crate) fn accept(&mut self, limits: ConnectLimits, data: &[u8]) -> Result<(), VerbsError> {
        let mut parameters = parameters(limits, data);
        self.with(|id, manager| {
            // SAFETY: the identifier is alive; the parameters and the data that they point to stay during the call.
            let result = unsafe { (manager.rdma_accept)(id, &raw mut parameters) };
            check(result, "accept a connection")
        })
    }

    pub(crate) fn connect(&mut self, limits: ConnectLimits, data: &[u8]) -> Result<(), VerbsError> {
        let mut parameters = parameters(limits, data);
        self.with(|id, manager| {
            // SAFETY: as in `accept`.
            let result = unsafe { (manager.rdma_connect)(id, &raw mut parameters) };
            check(result, "connect over RDMA")
        })
    }

    pub(crate) fn disconnect(&mut self) -> Result<(), VerbsError> {
        self.with(|id, manager| {
            // SAFETY: the identifier is alive.
            check(unsafe { (manager.rdma_disconnect)(id) }, "disconnect")
        })
    }
}

fn parameters(limits: ConnectLimits, data: &[u8]) -> sys::rdma_conn_param {
    sys::rdma_conn_param {
        private_data: data.as_ptr().cast(),
        private_data_len: private_length(data),
        responder_resources: limits.reads_inbound,
        initiator_depth: limits.reads_outbound,
        flow_control: 1,
        retry_count: RETRIES_MAX,
        rnr_retry_count: RETRIES_MAX,
        srq: 0,
        qp_num: 0,
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        // SAFETY: ours alone; a queue pair on it was destroyed before, by its owner; none of its events is
        // unacknowledged, as nobody takes one now, so the call does not wait.
        let _ = self.with(|id, manager| unsafe { (manager.rdma_destroy_id)(id) });
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Id({:?} to {:?})", self.local(), self.peer())
    }
}
