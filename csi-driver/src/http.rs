//! Probes and metrics over HTTP.
//!
//! `/healthz` (liveness): the driver answers a Probe at its own socket, whatever the answer is; a driver whose
//! daemon or API server is away must not be restarted for it. `/readyz`: the answer is "ready". `/metrics`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::routing::get;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UnixStream};
use tonic::transport::{Endpoint, Uri};

use crate::metrics::Metrics;
use crate::proto::csi::ProbeRequest;
use crate::proto::csi::identity_client::IdentityClient;

/// How long the driver's own socket may take to answer.
const SELF_PROBE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Context {
    socket: PathBuf,
    metrics: Metrics,
}

/// Serves until the process ends.
///
/// # Errors
/// The address cannot be listened at.
pub async fn serve(
    address: SocketAddr,
    socket: PathBuf,
    metrics: Metrics,
) -> Result<(), std::io::Error> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        std::io::Error::new(error.kind(), format!("cannot listen at {address}: {error}"))
    })?;
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(Context { socket, metrics });
    axum::serve(listener, router).await
}

async fn healthz(State(context): State<Context>) -> (StatusCode, String) {
    answer(probe(&context.socket).await.map(|_| ()))
}

async fn readyz(State(context): State<Context>) -> (StatusCode, String) {
    answer(match probe(&context.socket).await {
        Ok(true) => Ok(()),
        Ok(false) => Err("not ready: see the log".into()),
        Err(why) => Err(why),
    })
}

async fn metrics_text(
    State(context): State<Context>,
) -> ([(header::HeaderName, &'static str); 1], String) {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, context.metrics.render())
}

fn answer(result: Result<(), String>) -> (StatusCode, String) {
    match result {
        Ok(()) => (StatusCode::OK, "ok\n".into()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// Asks the driver at its own socket whether it is ready.
async fn probe(socket: &Path) -> Result<bool, String> {
    let socket = socket.to_owned();
    let asked = async move {
        let channel = Endpoint::from_static("http://csi.invalid")
            .connect_with_connector(tower::service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            }))
            .await
            .map_err(|error| format!("the driver's socket does not answer: {error}"))?;
        IdentityClient::new(channel)
            .probe(ProbeRequest {})
            .await
            .map(|answer| answer.into_inner().ready.unwrap_or(false))
            .map_err(|status| format!("Probe failed: {}", status.message()))
    };
    tokio::time::timeout(SELF_PROBE_TIMEOUT, asked)
        .await
        .unwrap_or_else(|_| Err(format!("Probe took more than {SELF_PROBE_TIMEOUT:?}")))
}
