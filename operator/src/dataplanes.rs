//! The connections to every node's dataplane: desired state down, reports up.
//!
//! Each dataplane has one task with one connection. It sends the newest desired state after every connect and after
//! every change, keeps the newest report, and connects again with a bounded, jittered, growing delay. Only the
//! newest of everything counts, so nothing queues up.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use roadstead_api::v1::node_client::NodeClient;
use roadstead_api::v1::{ApplyRequest, NodeReport, NodeState, WatchRequest};
use roadstead_api::{CONTROL_PORT, ConnectError, TlsIdentity, connect_mtls};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::causes::whole;
use crate::cluster::DataplanePod;
use crate::snapshot::{Dataplane, Link};

/// Delay after the first failed connection, and the longest one.
const RECONNECT_FIRST: Duration = Duration::from_millis(200);
const RECONNECT_MAX: Duration = Duration::from_secs(10);

/// How long connecting, with its handshake, and any call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A report comes at least every 10 s; after this silence the connection is made again.
const REPORT_SILENCE_MAX: Duration = Duration::from_secs(30);

/// Delay after a state was refused, and the longest one.
const REFUSED_FIRST: Duration = Duration::from_millis(500);
const REFUSED_MAX: Duration = Duration::from_secs(30);

/// How many sent states are kept to recognise what a node has applied.
const SENT_MAX: usize = 16;

/// Largest report: tens of thousands of volumes.
const REPORT_BYTES_MAX: usize = 64 << 20;

/// Why a connection ended or was never made.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    /// There are no certificates yet.
    #[error("the operator has no certificate yet")]
    NoIdentity,
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No connection in time.
    #[error("nothing answered at {0} within {CALL_TIMEOUT:?}")]
    ConnectTimeout(SocketAddr),
    /// A call failed.
    #[error("{call} failed: {}", .status.message())]
    Call {
        call: &'static str,
        status: Box<Status>,
    },
    /// A call took too long.
    #[error("{0} had no answer within {CALL_TIMEOUT:?}")]
    CallTimeout(&'static str),
    /// The stream of reports ended.
    #[error("the dataplane ended the connection")]
    Ended,
    /// No report came.
    #[error("no report came for {REPORT_SILENCE_MAX:?}")]
    Silent,
}

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

fn lock(view: &Mutex<Dataplane>) -> MutexGuard<'_, Dataplane> {
    // No code panics while it holds the lock; if it did, the view would still be whole.
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Marks the connection as lost, keeping the moment of the first loss.
fn lose(view: &mut Dataplane, error: String) {
    let since = match view.link {
        Link::Lost { since, .. } => since,
        Link::Connecting | Link::Up => Timestamp::now(),
    };
    view.link = Link::Lost { since, error };
}

/// One node's connection.
struct NodeLink {
    node: String,
    address: SocketAddr,
    view: Arc<Mutex<Dataplane>>,
    desired: watch::Receiver<Option<Arc<NodeState>>>,
    identity: watch::Receiver<Option<Arc<TlsIdentity>>>,
    wake: Arc<Notify>,
}

impl NodeLink {
    async fn run(mut self) {
        let seed = self
            .node
            .bytes()
            .fold(u64::from(self.address.port()), |seed, byte| {
                seed.wrapping_mul(31).wrapping_add(u64::from(byte))
            });
        let mut backoff = Backoff::new(RECONNECT_FIRST, RECONNECT_MAX, seed);
        loop {
            let Err(error) = self.session(&mut backoff).await;
            let message = whole(&error);
            let news = {
                let mut view = lock(&self.view);
                let before = view.link.clone();
                lose(&mut view, message.clone());
                before != view.link
            };
            if news {
                warn!(node = self.node, address = %self.address, error = message, "no connection to the dataplane");
                self.wake.notify_one();
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Connects and serves the connection until it fails.
    async fn session(&mut self, backoff: &mut Backoff) -> Result<Infallible, LinkError> {
        let mut client = self.connect().await?;
        let mut reports = call("Watch", client.watch(WatchRequest {})).await?;
        let mut refused = Backoff::new(REFUSED_FIRST, REFUSED_MAX, 1);
        // After every connect the state is sent, whatever the report says: the same state twice changes nothing.
        let mut acknowledged = String::new();
        let mut retry_at = None;
        loop {
            let desired = self.desired.borrow_and_update().clone();
            if let Some(state) = desired.filter(|s| s.revision != acknowledged)
                && retry_at.is_none_or(|at| tokio::time::Instant::now() >= at)
            {
                let revision = state.revision.clone();
                retry_at = match self.send(&mut client, state).await? {
                    true => {
                        acknowledged = revision;
                        refused.reset();
                        None
                    }
                    false => Some(tokio::time::Instant::now() + refused.next_delay()),
                };
            }
            tokio::select! {
                report = next_report(&mut reports) => {
                    self.take(report?);
                    backoff.reset();
                }
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return Err(LinkError::Ended);
                    }
                    retry_at = None;
                }
                () = sleep_until(retry_at) => retry_at = None,
            }
        }
    }

    async fn connect(&mut self) -> Result<NodeClient<Channel>, LinkError> {
        // The first certificates take a moment; the guard must not live on.
        let waited = timeout(CALL_TIMEOUT, self.identity.wait_for(Option::is_some));
        let _ = waited.await.map(drop);
        let identity = self.identity.borrow().clone();
        let identity = identity.ok_or(LinkError::NoIdentity)?;
        let client = timeout(CALL_TIMEOUT, connect_mtls(self.address, &identity))
            .await
            .map_err(|_| LinkError::ConnectTimeout(self.address))??;
        Ok(client.max_decoding_message_size(REPORT_BYTES_MAX))
    }

    /// Sends a state; `false` if the node refuses it.
    async fn send(
        &self,
        client: &mut NodeClient<Channel>,
        state: Arc<NodeState>,
    ) -> Result<bool, LinkError> {
        {
            // Before the call: the report may be faster than its answer.
            let mut view = lock(&self.view);
            view.sent.retain(|s| s.revision != state.revision);
            view.sent.push(state.clone());
            let surplus = view.sent.len().saturating_sub(SENT_MAX);
            view.sent.drain(..surplus);
        }
        let request = ApplyRequest {
            state: Some(state.as_ref().clone()),
        };
        let refusal = match call("Apply", client.apply(request)).await {
            Ok(_) => None,
            Err(LinkError::Call { status, .. }) if is_refusal(status.code()) => {
                Some(status.message().to_string())
            }
            Err(error) => return Err(error),
        };
        let accepted = refusal.is_none();
        let mut view = lock(&self.view);
        if view.refusal != refusal {
            if let Some(refusal) = &refusal {
                warn!(node = self.node, refusal, "the dataplane refused its state");
            }
            view.refusal = refusal;
            self.wake.notify_one();
        }
        Ok(accepted)
    }

    /// Keeps a report, and wakes the planner if it says something new.
    fn take(&self, report: NodeReport) {
        let mut view = lock(&self.view);
        let up = view.link == Link::Up;
        let news = !up || view.report.as_deref() != Some(&report);
        if !up {
            info!(node = self.node, address = %self.address, "connected to the dataplane");
        }
        view.link = Link::Up;
        view.report = Some(Arc::new(report));
        drop(view);
        if news {
            self.wake.notify_one();
        }
    }
}

/// The node understood the state and will not have it; sending it again soon would not help.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::Unimplemented
    )
}

async fn call<T>(
    call: &'static str,
    answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, LinkError> {
    let answer = timeout(CALL_TIMEOUT, answer)
        .await
        .map_err(|_| LinkError::CallTimeout(call))?;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| LinkError::Call {
            call,
            status: Box::new(status),
        })
}

async fn next_report(reports: &mut Streaming<NodeReport>) -> Result<NodeReport, LinkError> {
    let report = timeout(REPORT_SILENCE_MAX, reports.message()).await;
    match report.map_err(|_| LinkError::Silent)? {
        Ok(Some(report)) => Ok(report),
        Ok(None) => Err(LinkError::Ended),
        Err(status) => Err(LinkError::Call {
            call: "Watch",
            status: Box::new(status),
        }),
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
