//! What the methods in user space have in common: one initiator, and what a namespace is to them.

use std::sync::{Mutex, PoisonError};

use roadstead_initiator::{
    ConnectError, Identity, Initiator, IoError, Limits, Namespace, Nqn, PathState as HostPathState,
    Spec as InitiatorSpec, Status,
};
use roadstead_nvme::Transport;
use roadstead_ring::ReactorConfig;
use rustix::io::Errno;
use tracing::{info, warn};

use crate::method::Availability;
use crate::{AttachError, HostIdentity, PathSpec, PathState, PathStatus, Spec};

/// The initiator of this process. Its thread starts with the first attachment.
pub(crate) struct Remote {
    host: HostIdentity,
    /// It ends with the process and not before: devices outlive the daemon, and the end of an initiator would fail
    /// requests that the next daemon can carry out.
    initiator: Mutex<Option<&'static Initiator>>,
}

impl Remote {
    pub(crate) fn new(host: HostIdentity) -> Self {
        Self {
            host,
            initiator: Mutex::new(None),
        }
    }

    fn initiator(&self) -> Result<&'static Initiator, ConnectError> {
        let mut slot = self
            .initiator
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(initiator) = *slot {
            return Ok(initiator);
        }
        // Memory that the threads on the way of the kernel's write-back allocate must not wait for it. The
        // mark is inherited by threads started here.
        let start = || {
            set_io_flusher();
            Initiator::start(ReactorConfig::default())
        };
        let started = std::thread::scope(|scope| scope.spawn(start).join());
        let initiator: &'static Initiator =
            Box::leak(Box::new(started.map_err(|_| ConnectError::Ended)??));
        *slot = Some(initiator);
        Ok(initiator)
    }

    /// Connects to the namespace.
    ///
    /// # Errors
    /// [`AttachError::InvalidSpec`], [`AttachError::Unreachable`].
    pub(crate) fn connect(&self, spec: &Spec) -> Result<Namespace, AttachError> {
        let invalid = |error: roadstead_initiator::NqnError| AttachError::InvalidSpec {
            id: spec.id.clone(),
            problem: error.to_string(),
        };
        let host = spec.host(&self.host);
        let target = InitiatorSpec {
            identity: Identity {
                nqn: Nqn::new(&host.nqn).map_err(invalid)?,
                id: host.id,
                keys: host.keys.clone(),
            },
            subsystem_nqn: Nqn::new(&spec.subsystem_nqn).map_err(invalid)?,
            namespace: spec.wanted(),
            paths: usable(spec).iter().map(PathSpec::portal).collect(),
            limits: Limits {
                ctrl_loss: spec.ctrl_loss_timeout(),
                ..Limits::default()
            },
            header_digest: false,
            data_digest: false,
        };
        let connected = self.initiator().and_then(|i| i.connect(target));
        connected.map_err(|error| AttachError::Unreachable {
            nqn: spec.subsystem_nqn.clone(),
            reason: error.to_string(),
        })
    }
}

/// Whether the initiator can use a transport here.
pub(crate) fn carries(transport: Transport) -> Availability {
    match transport {
        Transport::Tcp => Availability::Available,
        Transport::Rdma => match roadstead_initiator::rdma_available() {
            Ok(()) => Availability::Available,
            Err(reason) => Availability::Missing(reason),
        },
    }
}

/// The paths that the initiator can use, in their order.
pub(crate) fn usable(spec: &Spec) -> Vec<PathSpec> {
    let carried = |path: &&PathSpec| carries(path.transport) == Availability::Available;
    spec.paths.iter().filter(carried).copied().collect()
}

/// What every path of a namespace that was connected over `paths` does now.
pub(crate) fn path_statuses(paths: &[PathSpec], namespace: &Namespace) -> Vec<PathStatus> {
    let status = |(path, report): (&PathSpec, roadstead_initiator::PathReport)| PathStatus {
        path: *path,
        state: match report.state {
            HostPathState::Live => PathState::Live,
            HostPathState::Connecting => PathState::Connecting,
            HostPathState::Failed => PathState::Failed,
        },
        message: report.message,
        ..PathStatus::failed(*path, "")
    };
    paths.iter().zip(namespace.paths()).map(status).collect()
}

/// Whether the device shall refuse writes.
pub(crate) fn is_read_only(spec: &Spec, namespace: &Namespace) -> bool {
    spec.read_only || namespace.info().read_only
}

/// Has the device follow the namespace's size by `apply`, on a thread that ends with the namespace. It is not the
/// initiator's, which must go on while the kernel changes the size.
pub(crate) fn follow(
    spec: &Spec,
    namespace: &Namespace,
    apply: impl Fn() -> Result<(), AttachError> + Send + 'static,
) {
    let (id, changes) = (spec.id.clone(), namespace.changes());
    let run = move || {
        for () in changes {
            match apply() {
                Ok(()) => info!(id, "the device has the namespace's size"),
                Err(error) => warn!(id, %error, "cannot give the device its new size"),
            }
        }
    };
    let thread = std::thread::Builder::new().name("resize".into()).spawn(run);
    if let Err(error) = thread {
        warn!(id = spec.id, %error, "the device will follow the namespace's size only when asked to");
    }
}

/// What a request's failure is to the kernel.
pub(crate) fn errno(error: IoError) -> Errno {
    match error {
        IoError::Unsupported => Errno::OPNOTSUPP,
        IoError::Status(status) => match Status(status.code()) {
            Status::CAPACITY_EXCEEDED => Errno::NOSPC,
            Status::NAMESPACE_WRITE_PROTECTED => Errno::ROFS,
            Status::INVALID_OPCODE => Errno::OPNOTSUPP,
            _ => Errno::IO,
        },
        IoError::PathLost | IoError::CacheLost | IoError::Closed => Errno::IO,
    }
}

/// Marks the calling thread as one that the kernel's write-back depends on.
pub(crate) fn set_io_flusher() {
    // SAFETY: this request takes a plain integer and changes a flag of the calling thread.
    let result = unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        warn!(%error, "cannot mark a thread as I/O flusher");
    }
}

/// From linux/prctl.h.
const PR_SET_IO_FLUSHER: libc::c_int = 57;
