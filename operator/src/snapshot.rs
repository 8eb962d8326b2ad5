//! What the planner sees: every object and every node's dataplane at one moment, as typed values.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use roadstead_api::v1::{NodeReport, NodeState};
use roadstead_crds::{NVMeAttachment, NVMeHost, NVMeNamespace, Target, Time, TransportPolicy};
use roadstead_nvme::dhchap::Keys;

/// Everything that a plan depends on. Two equal snapshots give the same plan.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The time at which it was taken.
    pub now: Timestamp,
    /// Targets by name.
    pub targets: BTreeMap<String, Arc<Target>>,
    /// Volumes by name.
    pub namespaces: BTreeMap<String, Arc<NVMeNamespace>>,
    /// Attachments by name.
    pub attachments: BTreeMap<String, Arc<NVMeAttachment>>,
    /// Hosts by node name.
    pub hosts: BTreeMap<String, Arc<NVMeHost>>,
    /// Transport policies by name.
    pub policies: BTreeMap<String, Arc<TransportPolicy>>,
    /// Credentials for appliances, by the name of their Secret.
    pub credentials: BTreeMap<String, Arc<Credentials>>,
    /// Kubernetes nodes by name.
    pub nodes: BTreeMap<String, NodeInfo>,
    /// Dataplanes by node name: those that have a pod, and what is known of them.
    pub dataplanes: BTreeMap<String, Dataplane>,
}

impl Snapshot {
    /// `now` as the API writes it.
    pub fn time(&self) -> Time {
        // Conditions carry whole seconds.
        Time(Timestamp::from_second(self.now.as_second()).unwrap_or(self.now))
    }

    /// The report of a node that is connected now.
    pub fn live_report(&self, node: &str) -> Option<&NodeReport> {
        self.dataplanes.get(node)?.live_report()
    }
}

/// The type of Secrets with credentials for appliances: no other Secret is read.
pub const CREDENTIALS_TYPE: &str = "roadstead.io/external";

/// Whom the nodes are to an appliance, from a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The host; or a sentence, without anything secret, that says what is wrong with the Secret.
    pub host: Result<HostIdentity, String>,
}

/// A host that nodes are instead of themselves.
#[derive(Clone, PartialEq, Eq)]
pub struct HostIdentity {
    /// Host NQN.
    pub nqn: String,
    /// Host identifier, a UUID.
    pub id: String,
    /// By what it authenticates itself, and what the appliance has to prove.
    pub keys: Option<Keys>,
}

/// It came from a Secret: it is not for logs.
impl std::fmt::Debug for HostIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostIdentity")
    }
}

/// What matters of a Kubernetes node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its UID.
    pub uid: String,
    /// Its first InternalIP.
    pub internal_ip: Option<String>,
    /// Its `Ready` condition is `True`.
    pub ready: bool,
    /// It carries the taint `node.kubernetes.io/out-of-service`: an administrator says that it is off.
    pub out_of_service: bool,
}

impl NodeInfo {
    /// Nothing can run there, as far as Kubernetes knows.
    pub fn is_down(&self) -> bool {
        !self.ready || self.out_of_service
    }
}

/// The connection to a dataplane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// The first attempt has not ended yet: nothing is known, nothing is to be said.
    Connecting,
    /// Connected, and a report came.
    Up,
    /// Not connected.
    Lost {
        /// Since when.
        since: Timestamp,
        /// Why the last attempt failed.
        error: String,
    },
}

/// A node's dataplane as the operator knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataplane {
    /// IP address of its pod, which is the node's.
    pub address: String,
    /// The connection.
    pub link: Link,
    /// The newest report; an old one when the link is not up.
    pub report: Option<Arc<NodeReport>>,
    /// States that it was sent lately, the newest last.
    pub sent: Vec<Arc<NodeState>>,
    /// What it said when it refused the newest state.
    pub refusal: Option<String>,
}

impl Dataplane {
    /// The report, if it is a current one.
    pub fn live_report(&self) -> Option<&NodeReport> {
        match self.link {
            Link::Up => self.report.as_deref(),
            Link::Connecting | Link::Lost { .. } => None,
        }
    }

    /// The state that the node says it has worked on to the end, if it is connected and that state is known:
    /// `desired`, or one that it was sent lately.
    pub fn applied<'a>(&'a self, desired: &'a NodeState) -> Option<&'a NodeState> {
        let revision = &self.live_report()?.applied_revision;
        if *revision == desired.revision {
            return Some(desired);
        }
        self.sent
            .iter()
            .rev()
            .find(|state| state.revision == *revision)
            .map(AsRef::as_ref)
    }
}
