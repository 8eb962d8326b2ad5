//! Devices, and what belongs to one: protection domains, memory that it may touch.

use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use rdma_sys as sys;
use roadstead_ring::{BufPool, IoBuf};

use crate::api::Api;
use crate::error::{VerbsError, check_number, last};
use crate::work::Remote;

/// An RDMA device, as the connection manager has opened it.
#[derive(Clone, Copy)]
pub struct Device {
    pub(crate) context: NonNull<sys::ibv_context>,
    pub(crate) api: &'static Api,
}

// SAFETY: the device is kept open for ever, and the library's functions on it may be called from any thread.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        self.context == other.context
    }
}

impl Eq for Device {}

/// What a device can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceLimits {
    /// Work requests of a queue.
    pub queue_entries: u32,
    /// Work requests of a shared receive queue; 0: there are none.
    pub shared_receives: u32,
    /// Completions of a completion queue.
    pub completions: u32,
    /// Reads of other memory that a queue pair has under way at once.
    pub reads_outbound: u8,
    /// Reads of its memory that a queue pair serves at once.
    pub reads_inbound: u8,
}

/// Addresses of the contexts of devices that are kept open.
static KEPT: Mutex<Vec<usize>> = Mutex::new(Vec::new());

impl Device {
    /// The device of a context, if it is still there. It is kept open from now on: the library would close one that was
    /// removed as soon as no identifier is on it, but domains and completion queues may still be.
    ///
    /// # Safety
    /// The context is open, and stays so during the call.
    pub(crate) unsafe fn keep(
        context: NonNull<sys::ibv_context>,
        api: &'static Api,
    ) -> Option<Self> {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.contains(&context.as_ptr().addr()) {
            let mut count = 0;
            // SAFETY: the call has no condition. The list is never given back, which keeps its devices open.
            let list = unsafe { (api.manager.rdma_get_devices)(&raw mut count) };
            for index in 0..usize::try_from(count).unwrap_or(0) {
                if list.is_null() {
                    break;
                }
                // SAFETY: the list has so many entries.
                let address = unsafe { *list.add(index) }.addr();
                if !kept.contains(&address) {
                    kept.push(address);
                }
            }
        }
        kept.contains(&context.as_ptr().addr())
            .then_some(Self { context, api })
    }

    /// Its name.
    pub fn name(&self) -> String {
        // SAFETY: the device is open; its name is text that ends with a zero within the field.
        let name = unsafe { CStr::from_ptr((*(*self.context.as_ptr()).device).name.as_ptr()) };
        name.to_string_lossy().into_owned()
    }

    /// What it can do.
    ///
    /// # Errors
    /// [`VerbsError::Call`].
    pub fn limits(&self) -> Result<DeviceLimits, VerbsError> {
        // SAFETY: a structure of numbers, for which zeros are values.
        let mut attributes: sys::ibv_device_attr = unsafe { std::mem::zeroed() };
        let query = self.api.verbs.ibv_query_device;
        // SAFETY: the device is open, and the structure is where the answer goes.
        let result = unsafe { query(self.context.as_ptr(), &raw mut attributes) };
        check_number(result, "ask an RDMA device for its limits")?;
        let count = |value: i32| u32::try_from(value).unwrap_or(0);
        let byte = |value: i32| u8::try_from(value.clamp(0, 255)).unwrap_or(u8::MAX);
        Ok(DeviceLimits {
            queue_entries: count(attributes.max_qp_wr),
            shared_receives: count(attributes.max_srq_wr),
            completions: count(attributes.max_cqe),
            reads_outbound: byte(attributes.max_qp_init_rd_atom),
            reads_inbound: byte(attributes.max_qp_rd_atom),
        })
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.name())
    }
}

struct RawDomain {
    device: Device,
    raw: NonNull<sys::ibv_pd>,
}

// SAFETY: functions on a protection domain may be called from any thread.
unsafe impl Send for RawDomain {}
// SAFETY: as above.
unsafe impl Sync for RawDomain {}

impl Drop for RawDomain {
    fn drop(&mut self) {
        // SAFETY: everything in it holds on to it, so nothing is left.
        let _ = unsafe { (self.device.api.verbs.ibv_dealloc_pd)(self.raw.as_ptr()) };
    }
}

/// A protection domain. Clones are the same one.
#[derive(Clone)]
pub struct Domain(Arc<RawDomain>);

impl Domain {
    /// A domain on a device.
    ///
    /// # Errors
    /// [`VerbsError::Call`].
    pub fn new(device: Device) -> Result<Self, VerbsError> {
        // SAFETY: the device is open.
        let raw = unsafe { (device.api.verbs.ibv_alloc_pd)(device.context.as_ptr()) };
        let raw = NonNull::new(raw).ok_or_else(|| last("make a protection domain"))?;
        Ok(Self(Arc::new(RawDomain { device, raw })))
    }

    /// Its device.
    pub fn device(&self) -> Device {
        self.0.device
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::ibv_pd {
        self.0.raw.as_ptr()
    }
}

/// Who may touch memory beside this end's own requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nobody.
    Local,
    /// The other end reads and writes it, given the key: all of it, at any time. Keep in such a pool only what that end
    /// may see, and look at a buffer only when the other end is done with it.
    Remote,
}

/// The memory of a pool, known to a device. It stays as long as this.
pub struct MemoryRegion {
    raw: NonNull<sys::ibv_mr>,
    domain: Domain,
    pool: BufPool,
    start: usize,
    length: usize,
}

// SAFETY: functions on a region may be called from any thread.
unsafe impl Send for MemoryRegion {}
// SAFETY: a shared region gives its keys and addresses away, which do not change.
unsafe impl Sync for MemoryRegion {}

impl MemoryRegion {
    /// Makes all buffers of a pool known, which must be one in an arena.
    ///
    /// # Errors
    /// [`VerbsError::NotRegistered`]: it is none. [`VerbsError::Call`]: not enough memory may be locked, maybe.
    pub fn new(domain: &Domain, pool: &BufPool, access: Access) -> Result<Self, VerbsError> {
        let (base, length) = pool.range().ok_or(VerbsError::NotRegistered)?;
        let flag = |flag: sys::ibv_access_flags| i32::try_from(flag.0).unwrap_or(0);
        let local = flag(sys::ibv_access_flags::IBV_ACCESS_LOCAL_WRITE);
        let flags = match access {
            Access::Local => local,
            Access::Remote => {
                let read = flag(sys::ibv_access_flags::IBV_ACCESS_REMOTE_READ);
                local | read | flag(sys::ibv_access_flags::IBV_ACCESS_REMOTE_WRITE)
            }
        };
        let register = domain.device().api.verbs.ibv_reg_mr;
        // SAFETY: the range is mapped as long as the pool, which is kept; the domain is alive, and kept.
        let raw = unsafe { register(domain.as_ptr(), base.as_ptr().cast(), length, flags) };
        let what = "register memory with an RDMA device; raise the limit of locked memory, if that is the reason,";
        let raw = NonNull::new(raw).ok_or_else(|| last(what))?;
        Ok(Self {
            raw,
            domain: domain.clone(),
            pool: pool.clone(),
            start: base.as_ptr().addr(),
            length,
        })
    }

    /// The pool.
    pub fn pool(&self) -> &BufPool {
        &self.pool
    }

    /// The key by which the other end reaches the memory.
    pub fn remote_key(&self) -> u32 {
        // SAFETY: the region is alive.
        unsafe { (*self.raw.as_ptr()).rkey }
    }

    /// How the other end reaches the first bytes of a buffer, if they lie in this memory and [`Access::Remote`] lets it.
    pub fn remote(&self, buffer: &IoBuf, length: u32) -> Option<Remote> {
        Some(Remote {
            address: self.address_of(buffer, length)?,
            key: self.remote_key(),
        })
    }

    pub(crate) fn local_key(&self) -> u32 {
        // SAFETY: the region is alive.
        unsafe { (*self.raw.as_ptr()).lkey }
    }

    /// The address of a buffer, if its first `length` bytes lie in this memory.
    pub(crate) fn address_of(&self, buffer: &IoBuf, length: u32) -> Option<u64> {
        let length = usize::try_from(length).ok()?;
        let offset = buffer.as_ptr().addr().checked_sub(self.start)?;
        let fits = length <= buffer.capacity() && offset.checked_add(length)? <= self.length;
        fits.then(|| buffer.as_ptr().addr() as u64)
    }

    pub(crate) fn domain(&self) -> &Domain {
        &self.domain
    }
}

impl Drop for MemoryRegion {
    fn drop(&mut self) {
        // SAFETY: made by the library and freed once; queue pairs that use it hold on to it.
        let _ = unsafe { (self.domain.device().api.verbs.ibv_dereg_mr)(self.raw.as_ptr()) };
    }
}
