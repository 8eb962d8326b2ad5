//! What a thread has of a device.

use std::sync::Arc;

use roadstead_ring::BufPool;

use crate::completion_channel::CompletionChannel;
use crate::domain::{Access, Device, DeviceLimits, Domain, MemoryRegion};
use crate::error::VerbsError;
use crate::receives::SharedReceives;

/// A device with a pool's memory registered, memory for messages, and a channel that tells of completions: what queue
/// pairs of one thread share.
pub struct Adapter {
    device: Device,
    /// What the device can do.
    pub limits: DeviceLimits,
    /// The pool's memory.
    pub region: Arc<MemoryRegion>,
    /// Where messages go.
    pub receives: SharedReceives,
    /// Tells of completions.
    pub events: CompletionChannel,
}

impl Adapter {
    /// Room for so many messages of so many bytes.
    ///
    /// # Errors
    /// [`VerbsError`].
    pub fn new(
        device: Device,
        pool: &BufPool,
        access: Access,
        messages: u32,
        message_bytes: u32,
    ) -> Result<Self, VerbsError> {
        let domain = Domain::new(device)?;
        Ok(Self {
            device,
            limits: device.limits()?,
            region: Arc::new(MemoryRegion::new(&domain, pool, access)?),
            receives: SharedReceives::new(&domain, messages, message_bytes)?,
            events: CompletionChannel::new(device)?,
        })
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.device
    }
}
