//! A connection, before and while it has a queue pair.

use std::net::SocketAddr;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use rdma_sys as sys;

use crate::address;
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

// SAFETY: the library's functions on an identifier may be called from any thread, one at a time.
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

    pub(crate) fn as_ptr(&self) -> *mut sys::rdma_cm_id {
        self.raw.as_ptr()
    }

    pub(crate) fn api(&self) -> &'static crate::api::Api {
        self.channel.api
    }

    /// Changes the token of its events.
    pub fn set_token(&mut self, token: u64) {
        // SAFETY: the identifier is alive and ours; the library only hands this field on.
        unsafe { (*self.raw.as_ptr()).context = as_context(token) }
    }

    /// Its events come by another channel from now on.
    ///
    /// # Errors
    /// [`VerbsError::Call`]: they come by the old one.
    pub fn migrate(&mut self, channel: &Channel) -> Result<(), VerbsError> {
        let manager = &self.api().manager;
        // SAFETY: both are alive; no event of the identifier is unacknowledged, as each is at once.
        let result = unsafe { (manager.rdma_migrate_id)(self.raw.as_ptr(), channel.0.as_ptr()) };
        check(result, "move a connection to another reactor")?;
        self.channel = Arc::clone(&channel.0);
        Ok(())
    }

    /// Its own address.
    pub fn local(&self) -> Option<SocketAddr> {
        // SAFETY: the identifier is alive; the library fills in the whole address that its family says.
        unsafe {
            let address = &raw const (*self.raw.as_ptr()).route.addr.src_addr_union;
            address::read(address.cast())
        }
    }

    /// The address of the other end.
    pub fn peer(&self) -> Option<SocketAddr> {
        // SAFETY: as in `local`.
        unsafe {
            let address = &raw const (*self.raw.as_ptr()).route.addr.dst_addr_union;
            address::read(address.cast())
        }
    }

    /// The device that it is on, once that is known.
    pub fn device(&self) -> Option<Device> {
        // SAFETY: the identifier is alive; the library never closes a device that it has opened.
        let context = NonNull::new(unsafe { (*self.raw.as_ptr()).verbs })?;
        Some(Device::new(context, self.api()))
    }

    /// The next step after [`crate::CmEventKind::AddressResolved`]; then comes [`crate::CmEventKind::RouteResolved`].
    ///
    /// # Errors
    /// [`VerbsError::Call`].
    pub fn resolve_route(&mut self, timeout: Duration) -> Result<(), VerbsError> {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the identifier is alive.
        let result =
            unsafe { (self.api().manager.rdma_resolve_route)(self.raw.as_ptr(), timeout_ms) };
        check(result, "find a route over RDMA")
    }

    /// Refuses a request.
    ///
    /// # Errors
    /// [`VerbsError::Call`].
    pub fn reject(self, private_data: &[u8]) -> Result<(), VerbsError> {
        let length = private_length(private_data);
        // SAFETY: the identifier is alive, and so many bytes are there.
        let result = unsafe {
            (self.api().manager.rdma_reject)(
                self.raw.as_ptr(),
                private_data.as_ptr().cast(),
                length,
            )
        };
        check(result, "refuse a connection")
    }

    pub(crate) fn accept(&mut self, limits: ConnectLimits, data: &[u8]) -> Result<(), VerbsError> {
        let mut parameters = parameters(limits, data);
        // SAFETY: the identifier is alive; the parameters and the data that they point to stay during the call.
        let result =
            unsafe { (self.api().manager.rdma_accept)(self.raw.as_ptr(), &raw mut parameters) };
        check(result, "accept a connection")
    }

    pub(crate) fn connect(&mut self, limits: ConnectLimits, data: &[u8]) -> Result<(), VerbsError> {
        let mut parameters = parameters(limits, data);
        // SAFETY: as in `accept`.
        let result =
            unsafe { (self.api().manager.rdma_connect)(self.raw.as_ptr(), &raw mut parameters) };
        check(result, "connect over RDMA")
    }

    pub(crate) fn disconnect(&mut self) -> Result<(), VerbsError> {
        // SAFETY: the identifier is alive.
        let result = unsafe { (self.api().manager.rdma_disconnect)(self.raw.as_ptr()) };
        check(result, "disconnect")
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
        // unacknowledged, so the call does not wait.
        let _ = unsafe { (self.api().manager.rdma_destroy_id)(self.raw.as_ptr()) };
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Id({:?} to {:?})", self.local(), self.peer())
    }
}
