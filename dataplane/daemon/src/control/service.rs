//! The calls of the control API.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use roadstead_api::v1;
use roadstead_api::v1::node_server::Node as NodeApi;
use roadstead_attach::{AttachError, Foreign, ForeignName, HostIdentity, Manager, PathSpec, Spec};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use crate::desired;
use crate::external::Looker;
use crate::keeper::{ApplyError, Keeper};
use crate::report::{Reporter, without_counters};

/// A watcher gets a report at least this often.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// How often changes are looked for that nobody announces: controllers and paths.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Reports that wait for a slow watcher; then its stream waits.
const REPORTS_WAITING_MAX: usize = 2;

/// Where a call comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Root on this node.
    Socket,
    /// The operator, over the network.
    Operator,
}

/// What the calls work on.
pub(crate) struct Node {
    pub(crate) keeper: Keeper,
    pub(crate) reporter: Reporter,
    pub(crate) attachments: Arc<Manager>,
    pub(crate) looker: Arc<Looker>,
}

/// The API as seen from one origin.
pub(crate) struct Service {
    node: Arc<Node>,
    origin: Origin,
}

impl Service {
    pub(crate) fn new(node: Arc<Node>, origin: Origin) -> Self {
        Self { node, origin }
    }

    fn only_at_socket(&self, call: &str) -> Result<(), Status> {
        match self.origin {
            Origin::Socket => Ok(()),
            Origin::Operator => Err(Status::permission_denied(format!(
                "{call} is for callers on the node: use the unix socket"
            ))),
        }
    }

    /// Whom this node is to the target, if not itself without keys.
    fn host(&self, request: &v1::AttachRequest) -> Result<Option<HostIdentity>, Status> {
        let external = request.external.as_str();
        let keys = desired::keys(request.keys.as_ref())
            .map_err(|what| Status::invalid_argument(format!("keys: {what}")))?;
        if external.is_empty() {
            let own = &self.node.reporter.identity;
            return Ok(keys.map(|keys| HostIdentity {
                nqn: own.nqn.clone(),
                id: own.id,
                keys: Some(keys),
            }));
        }
        if keys.is_some() {
            let what = "keys: those of an appliance are in the node's state";
            return Err(Status::invalid_argument(what));
        }
        let known = self.node.looker.host(external);
        known.ok_or_else(|| {
            Status::unavailable(format!(
                "external: this node was not told of the appliance '{external}' yet; try again"
            ))
        })
    }

    /// Runs a call of the attachments' manager where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Manager) -> Result<T, AttachError> + Send + 'static,
    ) -> Result<T, Status> {
        let attachments = Arc::clone(&self.node.attachments);
        match tokio::task::spawn_blocking(move || work(&attachments)).await {
            Ok(result) => result.map_err(|error| attach_status(&error)),
            Err(error) => Err(Status::internal(format!(
                "the operation ended early: {error}"
            ))),
        }
    }
}

type Reports = Pin<Box<dyn Stream<Item = Result<v1::NodeReport, Status>> + Send>>;

#[tonic::async_trait]
impl NodeApi for Service {
    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let state = request.into_inner().state;
        let state = state.ok_or_else(|| Status::invalid_argument("state: is missing"))?;
        self.node
            .keeper
            .apply(state)
            .await
            .map_err(|error| apply_status(&error))?;
        Ok(Response::new(v1::ApplyResponse {}))
    }

    async fn get_report(
        &self,
        _: Request<v1::GetReportRequest>,
    ) -> Result<Response<v1::NodeReport>, Status> {
        Ok(Response::new(self.node.reporter.report()))
    }

    type WatchStream = Reports;

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Reports>, Status> {
        let (reports, stream) = mpsc::channel(REPORTS_WAITING_MAX);
        tokio::spawn(watch(Arc::clone(&self.node), reports));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn attach(
        &self,
        request: Request<v1::AttachRequest>,
    ) -> Result<Response<v1::AttachResponse>, Status> {
        self.only_at_socket("Attach")?;
        let request = request.into_inner();
        let host = self.host(&request)?;
        let spec = attach_spec(request, host)?;
        let attached = self.blocking(move |manager| manager.attach(spec)).await?;
        Ok(Response::new(v1::AttachResponse {
            attachment: Some(self.node.reporter.attachment(&attached)),
        }))
    }

    async fn detach(
        &self,
        request: Request<v1::DetachRequest>,
    ) -> Result<Response<v1::DetachResponse>, Status> {
        self.only_at_socket("Detach")?;
        let id = request.into_inner().id;
        self.blocking(move |manager| manager.detach(&id)).await?;
        Ok(Response::new(v1::DetachResponse {}))
    }

    async fn rescan(
        &self,
        request: Request<v1::RescanRequest>,
    ) -> Result<Response<v1::RescanResponse>, Status> {
        self.only_at_socket("Rescan")?;
        let id = request.into_inner().id;
        let size_bytes = self.blocking(move |manager| manager.rescan(&id)).await?;
        Ok(Response::new(v1::RescanResponse { size_bytes }))
    }
}

/// Sends the report, and again whenever it changes or `REPORT_INTERVAL` has passed, until nobody listens.
async fn watch(node: Arc<Node>, reports: mpsc::Sender<Result<v1::NodeReport, Status>>) {
    let mut changes = node.reporter.status.clone();
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<(v1::NodeReport, Instant)> = None;
    loop {
        let report = node.reporter.report();
        let essence = without_counters(report.clone());
        let is_due = last
            .as_ref()
            .is_none_or(|(sent, at)| *sent != essence || at.elapsed() >= REPORT_INTERVAL);
        if is_due {
            if reports.send(Ok(report)).await.is_err() {
                return;
            }
            last = Some((essence, Instant::now()));
        }
        tokio::select! {
            _ = look.tick() => {}
            changed = changes.changed() => if changed.is_err() { return },
            () = reports.closed() => return,
        }
    }
}

fn attach_spec(request: v1::AttachRequest, host: Option<HostIdentity>) -> Result<Spec, Status> {
    let wrong = |field: &str, what: String| Status::invalid_argument(format!("{field}: {what}"));
    let (volume_uuid, name) = namespace(&request).map_err(|(field, what)| wrong(field, what))?;
    let foreign = (name.is_some() || host.is_some() || !request.external.is_empty())
        .then_some(Foreign { name, host });
    let mut paths = Vec::new();
    for (i, portal) in request.paths.iter().enumerate() {
        let portal = desired::path(portal)
            .map_err(|(field, what)| wrong(&format!("paths[{i}].{field}"), what))?;
        paths.push(PathSpec::from(portal));
    }
    Ok(Spec {
        id: request.id,
        subsystem_nqn: request.subsystem_nqn,
        volume_uuid,
        foreign,
        paths,
        read_only: request.read_only,
        method: Some(request.method).filter(|method| !method.is_empty()),
        ctrl_loss_timeout_s: request.ctrl_loss_timeout_s,
    })
}

/// Which namespace is meant: its UUID, or what else it is known by.
fn namespace(
    request: &v1::AttachRequest,
) -> Result<(Uuid, Option<ForeignName>), (&'static str, String)> {
    let v1::AttachRequest {
        volume_uuid,
        nguid,
        nsid,
        ..
    } = request;
    match (nguid.as_str(), *nsid) {
        ("", 0) => {
            let uuid = desired::uuid(volume_uuid).map_err(|what| ("volume_uuid", what))?;
            Ok((uuid, None))
        }
        _ if !volume_uuid.is_empty() => {
            let what = "only one of volume_uuid, nguid and nsid names a namespace";
            Err(("volume_uuid", what.to_owned()))
        }
        (nguid, 0) => match Uuid::try_parse(nguid) {
            Ok(bits) => Ok((Uuid::nil(), Some(ForeignName::Nguid(bits.into_bytes())))),
            Err(_) => Err(("nguid", format!("'{nguid}' is not 32 hexadecimal digits"))),
        },
        ("", nsid) => Ok((Uuid::nil(), Some(ForeignName::Nsid(nsid)))),
        _ => Err((
            "nsid",
            "only one of nguid and nsid names a namespace".to_owned(),
        )),
    }
}

/// The one map from what can go wrong with an attachment to a gRPC status.
fn attach_status(error: &AttachError) -> Status {
    let code = match error {
        AttachError::InvalidSpec { .. } => Code::InvalidArgument,
        AttachError::Conflict { .. } => Code::AlreadyExists,
        AttachError::InProgress { .. } => Code::Aborted,
        AttachError::Unknown { .. } => Code::NotFound,
        AttachError::Unavailable { .. }
        | AttachError::Busy { .. }
        | AttachError::FixedSize { .. } => Code::FailedPrecondition,
        AttachError::WrongNamespace { .. } => Code::FailedPrecondition,
        AttachError::Unreachable { .. } => Code::Unavailable,
        AttachError::Refused { .. } => Code::PermissionDenied,
        AttachError::Timeout { .. } => Code::DeadlineExceeded,
        AttachError::Io { .. } => Code::Internal,
    };
    Status::new(code, error.to_string())
}

/// The one map from a refused state to a gRPC status.
fn apply_status(error: &ApplyError) -> Status {
    let code = match error {
        ApplyError::FileRules { .. } => Code::FailedPrecondition,
        ApplyError::Invalid(_) => Code::InvalidArgument,
        ApplyError::Store(_) | ApplyError::Stopped => Code::Internal,
    };
    Status::new(code, error.to_string())
}
