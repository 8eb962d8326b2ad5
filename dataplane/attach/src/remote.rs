//! What the methods in user space have in common: one initiator, and what a namespace is to them.

use std::sync::{Mutex, PoisonError};

use roadstead_initiator::{
    ConnectError, Dial, Identity, Initiator, IoError, Limits, Namespace, Nqn,
    PathState as HostPathState, PathStatus as InitiatorPath, Spec as InitiatorSpec, Status,
};
use roadstead_nvme::Transport;
use roadstead_ring::ReactorConfig;
use rustix::io::Errno;
use tracing::{info, warn};

use crate::manager::failed_paths;
use crate::method::Availability;
use crate::{AttachError, HostIdentity, Losses, PathSpec, PathState, PathStatus, Spec, Traffic};

/// The initiator of this process. Its thread starts with the first attachment.
pub(crate) struct Remote {
    host: HostIdentity,
    /// To the target of this process, if it has one.
    dial: Option<Dial>,
    /// It ends with the process and not before: devices outlive the daemon, and the end of an initiator would fail
    /// requests that the next daemon can carry out.
    initiator: Mutex<Option<&'static Initiator>>,
}

impl Remote {
    pub(crate) fn new(host: HostIdentity, dial: Option<Dial>) -> Self {
        Self {
            host,
            dial,
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
        let dial = self.dial.clone();
        let start = || {
            set_io_flusher();
            Initiator::start_beside_target(ReactorConfig::default(), dial)
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
            paths: self.usable(&spec.paths).map(PathSpec::portal).collect(),
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
            reason: match spec.is_local() {
                true => format!("{error} (locally there are this node's own subsystems alone)"),
                false => error.to_string(),
            },
        })
    }

    /// Whether the initiator can use a transport here.
    pub(crate) fn carries(&self, transport: Transport) -> Availability {
        match transport {
            Transport::Tcp => Availability::Available,
            Transport::Rdma => match roadstead_initiator::rdma_available() {
                Ok(()) => Availability::Available,
                Err(reason) => Availability::Missing(reason),
            },
            Transport::Local if self.dial.is_some() => Availability::Available,
            Transport::Local => Availability::Missing("this process has no target".into()),
        }
    }

    /// The paths that the initiator can use, in their order.
    fn usable<'a>(&self, paths: &'a [PathSpec]) -> impl Iterator<Item = &'a PathSpec> {
        let carried = |path: &&PathSpec| self.carries(path.transport) == Availability::Available;
        paths.iter().filter(carried)
    }

    /// What the paths of a namespace do now, in the order of the spec. Those that the initiator cannot use here are left out.
    /// `None`: it is not attached.
    pub(crate) fn path_statuses(
        &self,
        spec: &Spec,
        namespace: Option<Namespace>,
    ) -> Vec<PathStatus> {
        let Some(namespace) = namespace else {
            return failed_paths(spec, "not attached");
        };
        let there = namespace.measure();
        let known = |path: &PathSpec| {
            let seen = there.iter().find(|seen| seen.portal == path.portal());
            match (seen, self.carries(path.transport)) {
                (Some(seen), _) => Some(status(*path, seen)),
                (None, Availability::Available) => {
                    Some(PathStatus::failed(*path, "not connected yet"))
                }
                (None, Availability::Missing(_)) => None,
            }
        };
        spec.paths.iter().filter_map(known).collect()
    }

    /// Has a namespace in use reached over these paths. Says which it has: these, and others that have not ended yet.
    /// `None`: it is not attached.
    pub(crate) fn follow_paths(
        &self,
        spec: &Spec,
        namespace: Option<Namespace>,
        paths: &[PathSpec],
    ) -> Vec<PathSpec> {
        let Some(namespace) = namespace else {
            return spec.paths.clone();
        };
        namespace.follow(self.usable(paths).map(PathSpec::portal).collect());
        let mut has = paths.to_vec();
        let there = namespace.paths().into_iter();
        for path in there.map(|seen| PathSpec::from(seen.portal)) {
            if !has.contains(&path) {
                has.push(path);
            }
        }
        has
    }
}

fn status(path: PathSpec, seen: &InitiatorPath) -> PathStatus {
    let report = &seen.report;
    PathStatus {
        path,
        state: match report.state {
            HostPathState::Live => PathState::Live,
            HostPathState::Connecting => PathState::Connecting,
            HostPathState::Failed => PathState::Failed,
        },
        message: report.message.clone(),
        ana_state: report.ana_state,
        losses: Losses {
            count: report.losses,
            last_s: seen.lost_s,
        },
        round_trip: report.round_trip,
        traffic: Some(Traffic {
            commands: report.traffic,
            segments: seen.segments,
        }),
    }
}

/// Whether the device shall refuse writes.
pub(crate) fn is_read_only(spec: &Spec, namespace: &Namespace) -> bool {
    spec.read_only || namespace.info().read_only
}

/// Has the device follow the namespace's size by `apply`, on a thread that ends with the namespace. It is not the
/// initiator's, which must go on while the kernel changes the size.
pub(crate) fn follow_size(
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

/// Marks the calling thread, and the threads that it starts from now on, as ones that the kernel's write-back depends on:
/// memory that they allocate does not wait for it.
pub fn set_io_flusher() {
    // SAFETY: this request takes a plain integer and changes a flag of the calling thread.
    let result = unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        warn!(%error, "cannot mark a thread as I/O flusher");
    }
}

/// From linux/prctl.h.
const PR_SET_IO_FLUSHER: libc::c_int = 57;
