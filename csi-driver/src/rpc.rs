//! What every call has in common: it runs to its end, is counted, and leaves a line in the log.

use std::fmt::Display;
use std::future::Future;
use std::time::Instant;

use tonic::{Code, Response, Status};
use tracing::{debug, info, warn};

use crate::metrics::{Metrics, code_name};

/// How much a successful call is worth in the log; a failed one is always a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// It changes something: a line.
    Line,
    /// It is asked all the time: a line for who debugs.
    Debug,
}

/// Runs calls.
#[derive(Clone, Debug, Default)]
pub struct Rpc {
    metrics: Metrics,
}

impl Rpc {
    /// Calls are counted in `metrics`.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }

    /// Runs `operation` for `volume` (may be empty).
    ///
    /// The operation is a task of its own: a caller that hangs up does not stop it half way, and what it
    /// holds (the volume's in-flight guard, a running mkfs) stays held until it ends.
    ///
    /// # Errors
    /// The operation's error as a gRPC status.
    pub async fn run<T, E>(
        &self,
        method: &'static str,
        worth: Worth,
        volume: String,
        operation: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        E: Display + Into<Status> + Send + 'static,
    {
        let metrics = self.metrics.clone();
        let task = tokio::spawn(async move {
            let start = Instant::now();
            let result = operation.await;
            let elapsed = start.elapsed();
            let elapsed_ms = elapsed.as_millis();
            match result {
                Ok(value) => {
                    metrics.record(method, Code::Ok, elapsed);
                    match worth {
                        Worth::Line => info!(method, volume, elapsed_ms, "done"),
                        Worth::Debug => debug!(method, volume, elapsed_ms, "done"),
                    }
                    Ok(Response::new(value))
                }
                Err(error) => {
                    let message = error.to_string();
                    let status: Status = error.into();
                    let code = code_name(status.code());
                    metrics.record(method, status.code(), elapsed);
                    warn!(method, volume, elapsed_ms, code, error = message, "failed");
                    Err(status)
                }
            }
        });
        task.await
            .unwrap_or_else(|error| Err(Status::internal(format!("{method} broke off: {error}"))))
    }
}
