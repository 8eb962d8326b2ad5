//! One way to make a block device out of a namespace.

use std::path::PathBuf;

use roadstead_nvme::Transport;

use crate::{AttachError, PathSpec, PathStatus, Spec};

/// Whether a method can work on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It can.
    Available,
    /// It cannot: a sentence for the node's report.
    Missing(String),
}

/// A block device that stands for a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// `/dev/nvme0n1`, `/dev/ublkb0`, `/dev/nbd0`, `/dev/loop3`.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
}

/// A way to attach. Calls block; the manager serialises those on one id.
pub trait Method: Send + Sync {
    /// Name in requests and reports.
    fn name(&self) -> &'static str;

    /// Whether it can work here, asked each time: modules come and go.
    fn available(&self) -> Availability;

    /// Whether it can use paths of this transport here.
    fn carries(&self, transport: Transport) -> Availability;

    /// Makes the device, or finds the one that is there.
    ///
    /// # Errors
    /// As [`AttachError`] says; nothing is left behind then.
    fn attach(&self, spec: &Spec) -> Result<Device, AttachError>;

    /// Removes the device and the connections. Not attached is success.
    ///
    /// # Errors
    /// [`AttachError::Busy`] when the device is in use; it is left as it is.
    fn detach(&self, spec: &Spec) -> Result<(), AttachError>;

    /// Gives the device the size that the target has now, and returns it, in bytes.
    ///
    /// # Errors
    /// [`AttachError::Unknown`] when it is not attached.
    fn rescan(&self, spec: &Spec) -> Result<u64, AttachError>;

    /// The device as it is now, if it is attached.
    fn device(&self, spec: &Spec) -> Option<Device>;

    /// What every path that can be used here does now, in the order of the spec.
    fn paths(&self, spec: &Spec) -> Vec<PathStatus>;

    /// Brings a device that is there towards these paths, and says which it has then: connects those that are missing
    /// and closes others, but no live one before one of these is live. Called again and again; may block. By default
    /// a device keeps the paths that it was made with.
    fn follow(&self, spec: &Spec, paths: &[PathSpec]) -> Vec<PathSpec> {
        let _ = paths;
        spec.paths.clone()
    }
}

/// Whether the method can work here with one of the paths; one is enough.
fn usable(method: &dyn Method, paths: &[PathSpec]) -> Availability {
    let available = method.available();
    if available != Availability::Available {
        return available;
    }
    let mut reasons: Vec<String> = Vec::new();
    for path in paths {
        match method.carries(path.transport) {
            Availability::Available => return Availability::Available,
            Availability::Missing(reason) if reasons.contains(&reason) => {}
            Availability::Missing(reason) => reasons.push(reason),
        }
    }
    Availability::Missing(reasons.join(", "))
}

/// The method asked for, or the first of the list (best first) that can work with one of the paths.
///
/// # Errors
/// [`AttachError::Unavailable`] with the reason of every method tried.
pub fn best<'a>(
    methods: &'a [Box<dyn Method>],
    wanted: Option<&str>,
    paths: &[PathSpec],
) -> Result<&'a dyn Method, AttachError> {
    let mut reasons = Vec::new();
    for method in methods {
        if wanted.is_some_and(|name| name != method.name()) {
            continue;
        }
        match usable(method.as_ref(), paths) {
            Availability::Available => return Ok(method.as_ref()),
            Availability::Missing(reason) => reasons.push(format!("{}: {reason}", method.name())),
        }
    }
    if reasons.is_empty() {
        let known: Vec<_> = methods.iter().map(|m| m.name()).collect();
        reasons.push(format!("unknown, known are: {}", known.join(", ")));
    }
    Err(AttachError::Unavailable {
        method: wanted.unwrap_or("any").into(),
        reason: reasons.join("; "),
    })
}
