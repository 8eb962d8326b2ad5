//! One connection to one node's dataplane.
//!
//! It sends the newest desired state after every connect and after every change, keeps the newest report, and connects
//! again with a bounded, jittered, growing delay. Only the newest of everything counts, so nothing queues up.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use roadstead_api::v1::node_client::NodeClient;
use roadstead_api::v1::{ApplyRequest, NodeReport, NodeState, WatchRequest};
use roadstead_api::{ConnectError, TlsIdentity, connect_mtls};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::causes::whole;
use crate::dataplanes::{lock, lose};
use crate::snapshot::{Dataplane, Link};

/// Delay after the first failed connection, and the longest one.
const RECONNECT_FIRST: Duration = Duration::from_millis(200);
const RECONNECT_MAX: Duration = Duration::from_secs(5);

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

/// One node's connection.
pub(crate) struct NodeLink {
    pub(crate) node: String,
    pub(crate) address: SocketAddr,
    pub(crate) view: Arc<Mutex<Dataplane>>,
    pub(crate) desired: watch::Receiver<Option<Arc<NodeState>>>,
    pub(crate) identity: watch::Receiver<Option<Arc<TlsIdentity>>>,
    pub(crate) wake: Arc<Notify>,
}

impl NodeLink {
    /// Keeps the connection for ever.
    pub(crate) async fn run(mut self) {
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
