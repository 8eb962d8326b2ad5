//! What devices tell of themselves, and of what is on them, beside completions.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rdma_sys as sys;
use sys::ibv_event_type as event_type;

use crate::channel::set_nonblocking;
use crate::domain::Device;
use crate::error::{VerbsError, last};

/// What happened at a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// A port can be used.
    PortActive(u8),
    /// A port cannot be used.
    PortDown(u8),
    /// The addresses of a port have changed.
    AddressesChanged(u8),
    /// The device has failed: everything on it must be dropped.
    Fatal,
    /// A queue pair has failed, by its number; its work completes as dropped.
    QueuePairFatal(u32),
    /// A queue pair has taken its last receive from the shared ones, by its number.
    LastReceive(u32),
    /// A shared receive queue runs short, or has failed.
    SharedReceives,
    /// A completion queue has lost completions: its connection is of no use any more, and is found out by time.
    CompletionsLost,
    /// Of no importance here.
    Other,
}

impl Device {
    /// Readable when there are events of the device. All its users in a program share them: each is told once, so one of
    /// them should ask.
    pub fn async_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the device is kept open for ever, and its descriptor with it.
        unsafe { BorrowedFd::borrow_raw((*self.context.as_ptr()).async_fd) }
    }

    /// The next event, if there is one. Never blocks.
    ///
    /// # Errors
    /// [`VerbsError::Call`].
    pub fn next_async_event(&self) -> Result<Option<DeviceEvent>, VerbsError> {
        // The library opens it otherwise, and opens it itself.
        set_nonblocking(self.async_fd(), "watch an RDMA device")?;
        let verbs = &self.api.verbs;
        let mut event = MaybeUninit::<sys::ibv_async_event>::zeroed();
        // SAFETY: the device is open, and the structure is where the event goes.
        let result =
            unsafe { (verbs.ibv_get_async_event)(self.context.as_ptr(), event.as_mut_ptr()) };
        if result != 0 {
            return match io::Error::last_os_error().kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(last("take an event of an RDMA device")),
            };
        }
        // The kind is read as a number: later kernels may have kinds that the enumeration does not.
        // SAFETY: the call has filled in the kind.
        let kind = unsafe {
            (&raw const (*event.as_ptr()).event_type)
                .cast::<u32>()
                .read()
        };
        // SAFETY: the event was just given out, and is what its kind says.
        let copy = unsafe { copy(kind, &(*event.as_ptr()).element) };
        // SAFETY: the event was just given out and is acknowledged once. What it is about cannot go before.
        unsafe { (verbs.ibv_ack_async_event)(event.as_mut_ptr()) };
        Ok(Some(copy))
    }
}

/// # Safety
/// The element is that of an event of this kind which is not acknowledged.
unsafe fn copy(kind: u32, element: &sys::ibv_async_event_element_t) -> DeviceEvent {
    let is = |known: event_type| kind == known as u32;
    // SAFETY: passed on: only the field that the kind says is looked at when these are called.
    let port = || u8::try_from(unsafe { element.port_num }).unwrap_or(0);
    // SAFETY: as above; a queue pair stays until its events are acknowledged.
    let queue_pair = || unsafe { (*element.qp).qp_num };
    if is(event_type::IBV_EVENT_PORT_ACTIVE) {
        DeviceEvent::PortActive(port())
    } else if is(event_type::IBV_EVENT_PORT_ERR) {
        DeviceEvent::PortDown(port())
    } else if is(event_type::IBV_EVENT_GID_CHANGE) {
        DeviceEvent::AddressesChanged(port())
    } else if is(event_type::IBV_EVENT_DEVICE_FATAL) {
        DeviceEvent::Fatal
    } else if is(event_type::IBV_EVENT_QP_FATAL)
        || is(event_type::IBV_EVENT_QP_REQ_ERR)
        || is(event_type::IBV_EVENT_QP_ACCESS_ERR)
    {
        DeviceEvent::QueuePairFatal(queue_pair())
    } else if is(event_type::IBV_EVENT_QP_LAST_WQE_REACHED) {
        DeviceEvent::LastReceive(queue_pair())
    } else if is(event_type::IBV_EVENT_SRQ_LIMIT_REACHED) || is(event_type::IBV_EVENT_SRQ_ERR) {
        DeviceEvent::SharedReceives
    } else if is(event_type::IBV_EVENT_CQ_ERR) {
        DeviceEvent::CompletionsLost
    } else {
        DeviceEvent::Other
    }
}
