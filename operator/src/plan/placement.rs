//! Where a volume lives, read back from its status.

use roadstead_crds::condition::{DELETING, find, reason};
use roadstead_crds::{FINALIZER, NVMeNamespace};

/// The recorded place of a volume. All of it is there, or the volume is not placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement<'a> {
    /// Target.
    pub target: &'a str,
    /// Drive of the Target.
    pub drive: &'a str,
    /// Node of the Target.
    pub node: &'a str,
    /// UUID of the volume.
    pub uuid: &'a str,
    /// NQN of its subsystem.
    pub nqn: &'a str,
    /// The size that was granted.
    pub size_bytes: u64,
}

/// The recorded place of a volume.
pub fn placement(namespace: &NVMeNamespace) -> Option<Placement<'_>> {
    let status = namespace.status.as_ref()?;
    Some(Placement {
        target: status.target.as_deref()?,
        drive: status.drive.as_deref()?,
        node: status.node.as_deref()?,
        uuid: status.uuid.as_deref()?,
        nqn: status.nqn.as_deref()?,
        size_bytes: status.size_bytes,
    })
}

/// The decision to delete the volume's data is recorded: there is no way back.
pub fn is_removing(namespace: &NVMeNamespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
        && namespace
            .status
            .as_ref()
            .and_then(|s| find(&s.conditions, DELETING))
            .is_some_and(|c| c.reason == reason::REMOVING)
}

/// The object carries our finalizer: it cannot vanish before we let it.
pub(super) fn is_protected(finalizers: Option<&Vec<String>>) -> bool {
    finalizers.is_some_and(|list| list.iter().any(|f| f == FINALIZER))
}
