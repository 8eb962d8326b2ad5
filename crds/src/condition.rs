//! Conditions in the Kubernetes convention: the types and reasons that Roadstead writes, and how they are set.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The object does what it is for.
pub const READY: &str = "Ready";
/// NVMeAttachment: the I/O goes over the transport that was chosen. Only while the node has the device.
pub const PREFERRED: &str = "PreferredPath";
/// The object is being deleted; the message says what that waits for.
pub const DELETING: &str = "Deleting";

/// Reasons of conditions and of Events, one meaning each.
pub mod reason {
    /// Target: every drive is online and the portals listen.
    pub const SERVING: &str = "Serving";
    /// Target: some drives are online, others are not.
    pub const DRIVES_DEGRADED: &str = "DrivesDegraded";
    /// Target: no drive is online.
    pub const NO_DRIVE_ONLINE: &str = "NoDriveOnline";
    /// Target: two Targets name the same node and drive name, or the spec cannot be understood.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// Target, NVMeHost: no connection to the node's daemon.
    pub const DATAPLANE_UNREACHABLE: &str = "DataplaneUnreachable";
    /// Target: no node has this name.
    pub const NODE_NOT_FOUND: &str = "NodeNotFound";
    /// Target: no daemon pod runs on the node.
    pub const NO_DATAPLANE: &str = "NoDataplane";
    /// The node has not yet worked on the newest state.
    pub const APPLYING: &str = "Applying";
    /// Target: a portal does not listen.
    pub const PORTAL_DOWN: &str = "PortalDown";
    /// Target (an appliance): it is reached by every portal that it tells of.
    pub const REACHABLE: &str = "Reachable";
    /// Target (an appliance): it is reached, but not by every portal or not by every node.
    pub const PORTALS_DEGRADED: &str = "PortalsDegraded";
    /// Target (an appliance), and what is on it: no node reaches it.
    pub const UNREACHABLE: &str = "Unreachable";
    /// Target (an appliance): its discovery services tell the nodes of no subsystem.
    pub const NO_SUBSYSTEM: &str = "NoSubsystem";
    /// Target (an appliance): the Secret that it names does not exist.
    pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
    /// Target (an appliance): the Secret that it names cannot be used.
    pub const INVALID_SECRET: &str = "InvalidSecret";
    /// NVMeHost: the daemon is connected.
    pub const CONNECTED: &str = "Connected";

    /// NVMeNamespace: it exists and is served.
    pub const ONLINE: &str = "Online";
    /// NVMeNamespace: no Target has room.
    pub const NO_ROOM: &str = "NoRoom";
    /// NVMeNamespace: the named Target does not exist.
    pub const TARGET_NOT_FOUND: &str = "TargetNotFound";
    /// NVMeNamespace: no Target is ready.
    pub const NO_TARGET: &str = "NoTarget";
    /// NVMeNamespace: no Target is on an allowed node.
    pub const NO_ALLOWED_NODE: &str = "NoAllowedNode";
    /// NVMeNamespace: it was given its place.
    pub const PLACED: &str = "Placed";
    /// NVMeNamespace: the drive is not online.
    pub const DRIVE_OFFLINE: &str = "DriveOffline";
    /// NVMeNamespace: the drive is not in the Target's spec any more.
    pub const DRIVE_REMOVED: &str = "DriveRemoved";
    /// NVMeNamespace: the node could not make or grow it.
    pub const VOLUME_FAILED: &str = "VolumeFailed";
    /// NVMeNamespace: the drive has no room to grow.
    pub const NO_ROOM_TO_GROW: &str = "NoRoomToGrow";

    /// NVMeNamespace: the appliance does not show it.
    pub const NOT_ON_APPLIANCE: &str = "NotOnAppliance";
    /// NVMeNamespace: another one is this namespace of an appliance already.
    pub const ALREADY_BOUND: &str = "AlreadyBound";
    /// NVMeNamespace: the appliance's namespace has a format that no block device has.
    pub const UNUSABLE: &str = "Unusable";
    /// NVMeNamespace (Event): its object goes, and its data stays on the appliance.
    pub const LEFT_IN_PLACE: &str = "LeftInPlace";

    /// NVMeAttachment: the node may connect.
    pub const ALLOWED: &str = "Allowed";
    /// NVMeAttachment: the volume does not exist.
    pub const NAMESPACE_NOT_FOUND: &str = "NamespaceNotFound";
    /// NVMeAttachment: the volume is not ready.
    pub const NAMESPACE_NOT_READY: &str = "NamespaceNotReady";
    /// NVMeAttachment: the volume is being deleted.
    pub const NAMESPACE_DELETING: &str = "NamespaceDeleting";
    /// NVMeAttachment: the node never reported its host NQN.
    pub const HOST_UNKNOWN: &str = "HostUnknown";
    /// NVMeAttachment: no transport that both ends have fits what the volume needs.
    pub const NO_TRANSPORT: &str = "NoTransport";
    /// NVMeAttachment: the volume names a TransportPolicy that does not exist.
    pub const POLICY_NOT_FOUND: &str = "PolicyNotFound";
    /// NVMeAttachment (Event): a transport was chosen.
    pub const TRANSPORT_CHOSEN: &str = "TransportChosen";
    /// NVMeAttachment (Event): another transport is preferred now, without an interruption.
    pub const TRANSPORT_MOVED: &str = "TransportMoved";
    /// NVMeAttachment (Event): another transport would be chosen now, but this attachment keeps what it has.
    pub const TRANSPORT_SUPERSEDED: &str = "TransportSuperseded";
    /// NVMeAttachment: the I/O goes over the chosen transport.
    pub const AS_CHOSEN: &str = "AsChosen";
    /// NVMeAttachment: the I/O goes over another transport than the chosen one.
    pub const FAILED_OVER: &str = "FailedOver";
    /// NVMeAttachment: no path is live.
    pub const NO_LIVE_PATH: &str = "NoLivePath";
    /// TransportPolicy: decisions follow it.
    pub const IN_FORCE: &str = "InForce";

    /// Deletion waits for attachments.
    pub const WAITING_FOR_ATTACHMENTS: &str = "WaitingForAttachments";
    /// Deletion waits for volumes that live there.
    pub const WAITING_FOR_VOLUMES: &str = "WaitingForVolumes";
    /// Deletion waits for the node.
    pub const WAITING_FOR_NODE: &str = "WaitingForNode";
    /// Deletion waits until the node has let go of the device.
    pub const WAITING_FOR_DETACH: &str = "WaitingForDetach";
    /// NVMeAttachment: the target takes the node off the list of those that may connect.
    pub const REVOKING: &str = "Revoking";
    /// NVMeAttachment (Event): its node was down, and the target shut it out.
    pub const FENCED: &str = "Fenced";
    /// NVMeNamespace: its data is being deleted; there is no way back.
    pub const REMOVING: &str = "Removing";
}

/// The value of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can tell now.
    Unknown,
}

impl Status {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::True => "True",
            Status::False => "False",
            Status::Unknown => "Unknown",
        }
    }
}

/// The condition of type `type_`.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition `type_` is there and `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|c| c.status == Status::True.as_str())
}

/// A condition that says the same as `old`'s one of that type keeps its time; any other gets `now`.
pub fn next(
    old: &[Condition],
    type_: &str,
    status: Status,
    reason: &str,
    message: impl Into<String>,
    generation: Option<i64>,
    now: &Time,
) -> Condition {
    let since = find(old, type_)
        .filter(|c| c.status == status.as_str())
        .map_or_else(|| now.clone(), |c| c.last_transition_time.clone());
    Condition {
        last_transition_time: since,
        message: message.into(),
        observed_generation: generation,
        reason: reason.into(),
        status: status.as_str().into(),
        type_: type_.into(),
    }
}
