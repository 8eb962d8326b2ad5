//! What a reactor has of one RDMA device.

use std::sync::Arc;

use roadstead_ring::BufPool;
use roadstead_target::rdma::CAPSULE_BYTES_MAX;
use roadstead_verbs::{
    Access, CompletionChannel, Device, DeviceLimits, Domain, MemoryRegion, SharedReceives,
    VerbsError,
};

/// Command capsules of all connections that may come before they are looked at. What is beyond it the network repeats.
const CAPSULES: u32 = 1024;

/// A device.
pub(super) struct Part {
    device: Device,
    pub(super) limits: DeviceLimits,
    pub(super) region: Arc<MemoryRegion>,
    pub(super) receives: SharedReceives,
    pub(super) events: CompletionChannel,
}

impl Part {
    pub(super) fn new(device: Device, pool: &BufPool) -> Result<Self, VerbsError> {
        let domain = Domain::new(device)?;
        let region = MemoryRegion::new(&domain, pool, Access::Local)?;
        let capsule_bytes = u32::try_from(CAPSULE_BYTES_MAX).unwrap_or(u32::MAX);
        Ok(Self {
            device,
            limits: device.limits()?,
            region: Arc::new(region),
            receives: SharedReceives::new(&domain, CAPSULES, capsule_bytes)?,
            events: CompletionChannel::new(device)?,
        })
    }

    pub(super) fn device(&self) -> Device {
        self.device
    }
}
