//! The functions of the RDMA libraries, found at run time: a machine without them runs the same program.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

use rdma_sys as sys;

use crate::error::VerbsError;

/// Makes a table of functions, and the function that fills it from a library.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident, $file:literal { $($function:ident: fn($($argument:ty),*) $(-> $result:ty)?;)* }) => {
        $(#[$doc])*
        pub(crate) struct $name {
            $(pub(crate) $function: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl $name {
            fn load() -> Result<Self, VerbsError> {
                let library = Library::open($file)?;
                Ok(Self {
                    $($function: {
                        let name = concat!(stringify!($function), "\0");
                        let symbol = library.find(name)?;
                        // SAFETY: the library's function of this name has this signature, as its header says, from
                        // which the argument types were generated; the library is never unloaded.
                        unsafe { std::mem::transmute::<NonNull<c_void>, unsafe extern "C" fn($($argument),*) $(-> $result)?>(symbol) }
                    },)*
                })
            }
        }
    };
}

table! {
    /// The connection manager.
    Manager, "librdmacm.so.1" {
        rdma_create_event_channel: fn() -> *mut sys::rdma_event_channel;
        rdma_destroy_event_channel: fn(*mut sys::rdma_event_channel);
        rdma_create_id: fn(*mut sys::rdma_event_channel, *mut *mut sys::rdma_cm_id, *mut c_void, sys::rdma_port_space::Type) -> c_int;
        rdma_destroy_id: fn(*mut sys::rdma_cm_id) -> c_int;
        rdma_bind_addr: fn(*mut sys::rdma_cm_id, *mut libc::sockaddr) -> c_int;
        rdma_listen: fn(*mut sys::rdma_cm_id, c_int) -> c_int;
        rdma_resolve_addr: fn(*mut sys::rdma_cm_id, *mut libc::sockaddr, *mut libc::sockaddr, c_int) -> c_int;
        rdma_resolve_route: fn(*mut sys::rdma_cm_id, c_int) -> c_int;
        rdma_connect: fn(*mut sys::rdma_cm_id, *mut sys::rdma_conn_param) -> c_int;
        rdma_accept: fn(*mut sys::rdma_cm_id, *mut sys::rdma_conn_param) -> c_int;
        rdma_reject: fn(*mut sys::rdma_cm_id, *const c_void, u8) -> c_int;
        rdma_disconnect: fn(*mut sys::rdma_cm_id) -> c_int;
        rdma_migrate_id: fn(*mut sys::rdma_cm_id, *mut sys::rdma_event_channel) -> c_int;
        rdma_get_cm_event: fn(*mut sys::rdma_event_channel, *mut *mut sys::rdma_cm_event) -> c_int;
        rdma_ack_cm_event: fn(*mut sys::rdma_cm_event) -> c_int;
        rdma_create_qp: fn(*mut sys::rdma_cm_id, *mut sys::ibv_pd, *mut sys::ibv_qp_init_attr) -> c_int;
        rdma_destroy_qp: fn(*mut sys::rdma_cm_id);
        rdma_get_devices: fn(*mut c_int) -> *mut *mut sys::ibv_context;
    }
}

table! {
    /// The verbs that go through the kernel. Those of the hot path are in each device's own table.
    Verbs, "libibverbs.so.1" {
        ibv_query_device: fn(*mut sys::ibv_context, *mut sys::ibv_device_attr) -> c_int;
        ibv_alloc_pd: fn(*mut sys::ibv_context) -> *mut sys::ibv_pd;
        ibv_dealloc_pd: fn(*mut sys::ibv_pd) -> c_int;
        ibv_reg_mr: fn(*mut sys::ibv_pd, *mut c_void, usize, c_int) -> *mut sys::ibv_mr;
        ibv_dereg_mr: fn(*mut sys::ibv_mr) -> c_int;
        ibv_create_comp_channel: fn(*mut sys::ibv_context) -> *mut sys::ibv_comp_channel;
        ibv_destroy_comp_channel: fn(*mut sys::ibv_comp_channel) -> c_int;
        ibv_create_cq: fn(*mut sys::ibv_context, c_int, *mut c_void, *mut sys::ibv_comp_channel, c_int) -> *mut sys::ibv_cq;
        ibv_destroy_cq: fn(*mut sys::ibv_cq) -> c_int;
        ibv_get_cq_event: fn(*mut sys::ibv_comp_channel, *mut *mut sys::ibv_cq, *mut *mut c_void) -> c_int;
        ibv_ack_cq_events: fn(*mut sys::ibv_cq, u32);
        ibv_create_srq: fn(*mut sys::ibv_pd, *mut sys::ibv_srq_init_attr) -> *mut sys::ibv_srq;
        ibv_destroy_srq: fn(*mut sys::ibv_srq) -> c_int;
        ibv_get_async_event: fn(*mut sys::ibv_context, *mut sys::ibv_async_event) -> c_int;
        ibv_ack_async_event: fn(*mut sys::ibv_async_event);
    }
}

/// Both libraries.
pub(crate) struct Api {
    pub(crate) manager: Manager,
    pub(crate) verbs: Verbs,
}

/// The libraries, loaded once.
pub(crate) fn api() -> Result<&'static Api, VerbsError> {
    static API: OnceLock<Api> = OnceLock::new();
    if let Some(api) = API.get() {
        return Ok(api);
    }
    // The connection manager brings the other library with it.
    let (manager, verbs) = (Manager::load()?, Verbs::load()?);
    Ok(API.get_or_init(|| Api { manager, verbs }))
}

/// Whether the libraries are there.
///
/// # Errors
/// [`VerbsError::NoLibrary`] says which one is not.
pub fn available() -> Result<(), VerbsError> {
    api().map(drop)
}

struct Library {
    file: &'static str,
    handle: NonNull<c_void>,
}

impl Library {
    fn open(file: &'static str) -> Result<Self, VerbsError> {
        let name = format!("{file}\0");
        let flags = libc::RTLD_NOW | libc::RTLD_GLOBAL;
        // SAFETY: the name ends with a zero; the initialisers of these libraries ask nothing of their users.
        let handle = unsafe { libc::dlopen(name.as_ptr().cast::<c_char>(), flags) };
        match NonNull::new(handle) {
            Some(handle) => Ok(Self { file, handle }),
            None => Err(Self::failed(file)),
        }
    }

    fn find(&self, name: &'static str) -> Result<NonNull<c_void>, VerbsError> {
        // SAFETY: the handle is open, and the name ends with a zero.
        let symbol = unsafe { libc::dlsym(self.handle.as_ptr(), name.as_ptr().cast::<c_char>()) };
        NonNull::new(symbol).ok_or_else(|| Self::failed(self.file))
    }

    fn failed(library: &'static str) -> VerbsError {
        // SAFETY: the call has no condition; what it returns stays until the thread's next call of this family.
        let text = unsafe { libc::dlerror() };
        let why = if text.is_null() {
            "it cannot be loaded".to_owned()
        } else {
            // SAFETY: it is text that ends with a zero, and is copied at once.
            unsafe { CStr::from_ptr(text) }
                .to_string_lossy()
                .into_owned()
        };
        VerbsError::NoLibrary { library, why }
    }
}
