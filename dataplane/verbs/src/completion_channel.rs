//! Who is told of completions.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys as sys;

use crate::channel::set_nonblocking;
use crate::domain::Device;
use crate::error::{VerbsError, last};

struct RawCompletionChannel {
    device: Device,
    raw: NonNull<sys::ibv_comp_channel>,
}

// SAFETY: functions on a completion channel may be called from any thread.
unsafe impl Send for RawCompletionChannel {}
// SAFETY: as above.
unsafe impl Sync for RawCompletionChannel {}

impl Drop for RawCompletionChannel {
    fn drop(&mut self) {
        let destroy = self.device.api.verbs.ibv_destroy_comp_channel;
        // SAFETY: the completion queues on it hold on to it, so none is left.
        let _ = unsafe { destroy(self.raw.as_ptr()) };
    }
}

/// Wakes whoever waits for completions of armed queue pairs. Clones are the same one.
#[derive(Clone)]
pub struct CompletionChannel(Arc<RawCompletionChannel>);

impl CompletionChannel {
    /// A channel on a device. Never blocks.
    ///
    /// # Errors
    /// [`VerbsError::Call`].
    pub fn new(device: Device) -> Result<Self, VerbsError> {
        let create = device.api.verbs.ibv_create_comp_channel;
        // SAFETY: the device is open.
        let raw = unsafe { create(device.context.as_ptr()) };
        let raw = NonNull::new(raw).ok_or_else(|| last("make a completion channel"))?;
        let this = Self(Arc::new(RawCompletionChannel { device, raw }));
        set_nonblocking(this.fd(), "make a completion channel that does not block")?;
        Ok(this)
    }

    /// Readable when a queue pair that was armed has completions.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel owns the descriptor and lives as long as the borrow.
        unsafe { BorrowedFd::borrow_raw((*self.0.raw.as_ptr()).fd) }
    }

    /// The token of the next queue pair that was armed and has completions.
    ///
    /// # Errors
    /// [`VerbsError::Call`].
    pub fn next_event(&self) -> Result<Option<u64>, VerbsError> {
        let verbs = &self.0.device.api.verbs;
        let (mut queue, mut context) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the channel is alive, and the pointers are where the answer goes.
        let result = unsafe {
            (verbs.ibv_get_cq_event)(self.0.raw.as_ptr(), &raw mut queue, &raw mut context)
        };
        if result != 0 {
            return match io::Error::last_os_error().kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(last("take an event of completions")),
            };
        }
        // SAFETY: the queue cannot go before its event is acknowledged, which happens once, here.
        unsafe { (verbs.ibv_ack_cq_events)(queue, 1) };
        Ok(Some(context.addr() as u64))
    }

    pub(crate) fn device(&self) -> Device {
        self.0.device
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::ibv_comp_channel {
        self.0.raw.as_ptr()
    }
}
