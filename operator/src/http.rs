//! `/metrics`, `/healthz` and `/readyz`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use k8s_openapi::jiff::Timestamp;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// The main loop turns at least this often, in seconds; else it hangs.
const TURN_SECONDS_MAX: i64 = 120;

/// What the probes look at.
#[derive(Clone, Default)]
pub struct Health {
    /// The API server answered about the lease lately.
    ready: Arc<AtomicBool>,
    /// When the main loop turned last; 0: it does not run, because another operator leads.
    turned_at: Arc<AtomicI64>,
}

impl Health {
    /// Whether the API server answers.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// The main loop turned.
    pub fn turned(&self) {
        self.turned_at
            .store(Timestamp::now().as_second(), Ordering::Relaxed);
    }

    /// The main loop does not run.
    pub fn resting(&self) {
        self.turned_at.store(0, Ordering::Relaxed);
    }

    fn is_alive(&self) -> bool {
        let at = self.turned_at.load(Ordering::Relaxed);
        at == 0 || Timestamp::now().as_second() - at <= TURN_SECONDS_MAX
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

/// Serves at `listen` for ever.
///
/// # Errors
/// When the address cannot be used.
pub async fn serve(listen: SocketAddr, metrics: Metrics, health: Health) -> std::io::Result<()> {
    let alive = health.clone();
    let router = Router::new()
        .route(
            "/metrics",
            get(move || async move {
                (
                    [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
                    metrics.render(),
                )
            }),
        )
        .route(
            "/healthz",
            get(move || async move { answer(alive.is_alive(), "the main loop hangs") }),
        )
        .route(
            "/readyz",
            get(move || async move { answer(health.is_ready(), "the API server does not answer") }),
        );
    axum::serve(TcpListener::bind(listen).await?, router).await
}

fn answer(good: bool, otherwise: &'static str) -> (StatusCode, &'static str) {
    if good {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, otherwise)
    }
}
