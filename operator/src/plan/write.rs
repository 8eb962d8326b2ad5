//! What a plan wants written to the API, and how it is derived without repeating what is there.

use roadstead_crds::condition::{DELETING, PREFERRED, READY, Status, find, reason};
use roadstead_crds::{
    Condition, NVMeAttachmentStatus, NVMeHostStatus, NVMeNamespaceStatus, TargetStatus,
    TransportPolicyStatus,
};

/// The kinds of objects that the operator writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Target.
    Target,
    /// NVMeNamespace.
    Namespace,
    /// NVMeAttachment.
    Attachment,
    /// NVMeHost.
    Host,
    /// TransportPolicy.
    Policy,
}

/// One version of one object. A write holds only for this version: the API refuses it for any other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectVersion {
    /// Kind.
    pub kind: Kind,
    /// Name.
    pub name: String,
    /// UID; empty for an object that is to be made.
    pub uid: String,
    /// The version that the plan was made from; empty for an object that is to be made.
    pub resource_version: String,
}

/// One write: at most one for each object in a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The object.
    pub object: ObjectVersion,
    /// What becomes of it.
    pub change: Change,
    /// Events to publish once it is written.
    pub notes: Vec<Note>,
}

/// What a write changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The list of finalizers.
    Finalizers(Vec<String>),
    /// The status of a Target.
    TargetStatus(TargetStatus),
    /// The status of a volume.
    NamespaceStatus(NVMeNamespaceStatus),
    /// The status of an attachment.
    AttachmentStatus(NVMeAttachmentStatus),
    /// The status of a host.
    HostStatus(NVMeHostStatus),
    /// The status of a policy.
    PolicyStatus(TransportPolicyStatus),
    /// A host object that does not exist yet, owned by the Kubernetes node with this UID.
    CreateHost {
        /// UID of the node, if there is a node object.
        node_uid: Option<String>,
    },
}

/// An Event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// A warning; else a normal event.
    pub warning: bool,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// The Events that a change of conditions is worth: one for each of `Ready`, `PreferredPath` and `Deleting` whose status
/// or reason changed, but for steps on the way.
pub(super) fn transitions(old: &[Condition], new: &[Condition]) -> Vec<Note> {
    [READY, PREFERRED, DELETING]
        .into_iter()
        .filter_map(|type_| {
            let condition = find(new, type_)?;
            let before = find(old, type_);
            let same = before
                .is_some_and(|b| b.status == condition.status && b.reason == condition.reason);
            let passing = match condition.reason.as_str() {
                reason::APPLYING | reason::PLACED | reason::REVOKING => true,
                reason::REMOVING => type_ == READY,
                // While a device is made its paths come up one after the other.
                reason::AS_CHOSEN | reason::FAILED_OVER | reason::NO_LIVE_PATH => before.is_none(),
                _ => false,
            };
            let silent = same || passing;
            (!silent).then(|| Note {
                warning: type_ != DELETING && condition.status != Status::True.as_str(),
                reason: condition.reason.clone(),
                message: condition.message.clone(),
            })
        })
        .collect()
}
