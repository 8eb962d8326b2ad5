//! The connections to every node's dataplane: desired state down, reports up.
//!
//! Each dataplane has one task with one connection: see [`crate::link`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;
use roadstead_api::v1::NodeState;
use roadstead_api::{CONTROL_PORT, TlsIdentity};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::cluster::DataplanePod;
use crate::link::NodeLink;
use crate::snapshot::{Dataplane, Link};

/// All dataplanes.
pub struct Dataplanes {
    tasks: JoinSet<()>,
    links: BTreeMap<String, Known>,
    identity: watch::Receiver<Option<Arc<TlsIdentity>>>,
    wake: Arc<Notify>,
}

/// A dataplane that has, or had, a pod.
struct Known {
    pod: Option<DataplanePod>,
    view: Arc<Mutex<Dataplane>>,
    desired: watch::Sender<Option<Arc<NodeState>>>,
    task: Option<AbortHandle>,
}

impl Dataplanes {
    /// No dataplane yet; `identity` is what they are shown.
    pub fn new(identity: watch::Receiver<Option<Arc<TlsIdentity>>>, wake: Arc<Notify>) -> Self {
        Dataplanes {
            tasks: JoinSet::new(),
            links: BTreeMap::new(),
            identity,
            wake,
        }
    }

    /// Connects to new pods and lets go of those that are gone; what was known of a node stays while it exists.
    pub fn follow(
        &mut self,
        pods: BTreeMap<String, DataplanePod>,
        node_exists: impl Fn(&str) -> bool,
    ) {
        while self.tasks.try_join_next().is_some() {}
        for (node, known) in &mut self.links {
            if known.pod.is_some() && !pods.contains_key(node) {
                known.stop();
                let mut view = lock(&known.view);
                lose(&mut view, "its pod is gone or not running".into());
            }
        }
        self.links
            .retain(|node, known| known.pod.is_some() || node_exists(node));
        for (node, pod) in pods {
            let known = self
                .links
                .entry(node.clone())
                .or_insert_with(|| Known::new(&pod));
            if known.pod.as_ref() == Some(&pod) && known.task.is_some() {
                continue;
            }
            known.stop();
            lock(&known.view).address = pod.address.to_string();
            let link = NodeLink {
                node,
                address: SocketAddr::new(pod.address, CONTROL_PORT),
                view: known.view.clone(),
                desired: known.desired.subscribe(),
                identity: self.identity.clone(),
                wake: self.wake.clone(),
            };
            known.task = Some(self.tasks.spawn(link.run()));
            known.pod = Some(pod);
        }
    }

    /// Hands every node its state.
    pub fn set_desired(&self, states: BTreeMap<String, NodeState>) {
        for (node, state) in states {
            if let Some(known) = self.links.get(&node) {
                known.desired.send_if_modified(|old| {
                    let same = old.as_ref().is_some_and(|o| o.revision == state.revision);
                    if !same {
                        *old = Some(Arc::new(state));
                    }
                    !same
                });
            }
        }
    }

    /// What is known of every dataplane now.
    pub fn views(&self) -> BTreeMap<String, Dataplane> {
        let links = self.links.iter();
        links
            .map(|(node, known)| (node.clone(), lock(&known.view).clone()))
            .collect()
    }
}

impl Known {
    fn new(pod: &DataplanePod) -> Self {
        let view = Dataplane {
            address: pod.address.to_string(),
            link: Link::Connecting,
            report: None,
            sent: Vec::new(),
            refusal: None,
        };
        Known {
            pod: None,
            view: Arc::new(Mutex::new(view)),
            desired: watch::channel(None).0,
            task: None,
        }
    }

    fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.pod = None;
    }
}

/// The view of a dataplane, to read or change.
pub(crate) fn lock(view: &Mutex<Dataplane>) -> MutexGuard<'_, Dataplane> {
    // No code panics while it holds the lock; if it did, the view would still be whole.
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Marks the connection as lost, keeping the moment of the first loss.
pub(crate) fn lose(view: &mut Dataplane, error: String) {
    let since = match view.link {
        Link::Lost { since, .. } => since,
        Link::Connecting | Link::Up => Timestamp::now(),
    };
    view.link = Link::Lost { since, error };
}
