//! Counts and durations of calls, in the text format of Prometheus.
//!
//! Labels are the call's name and its gRPC code, both from fixed lists, so their number is bounded.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::Code;

/// Upper bounds of the histogram's buckets, in seconds.
const BUCKETS_S: [f64; 10] = [0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 5.0, 15.0, 60.0, 120.0];

#[derive(Clone, Debug, Default)]
struct Series {
    buckets: [u64; BUCKETS_S.len()],
    count: u64,
    sum_s: f64,
}

/// All calls since the start.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<BTreeMap<(&'static str, &'static str), Series>>>);

impl Metrics {
    /// Counts a call that took `elapsed`.
    pub fn record(&self, method: &'static str, code: Code, elapsed: Duration) {
        let elapsed_s = elapsed.as_secs_f64();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let series = all.entry((method, code_name(code))).or_default();
        for (bucket, bound) in series.buckets.iter_mut().zip(BUCKETS_S) {
            *bucket += u64::from(elapsed_s <= bound);
        }
        series.count += 1;
        series.sum_s += elapsed_s;
    }

    /// Everything as text.
    pub fn render(&self) -> String {
        const NAME: &str = "roadstead_csi_rpc_duration_seconds";
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = format!(
            "# HELP {NAME} How long CSI calls took, by call and gRPC code.\n# TYPE {NAME} histogram\n"
        );
        for ((method, code), series) in all.iter() {
            let labels = format!("method=\"{method}\",code=\"{code}\"");
            for (count, bound) in series.buckets.iter().zip(BUCKETS_S) {
                let _ = writeln!(text, "{NAME}_bucket{{{labels},le=\"{bound}\"}} {count}");
            }
            let _ = writeln!(
                text,
                "{NAME}_bucket{{{labels},le=\"+Inf\"}} {count}\n{NAME}_sum{{{labels}}} {sum}\n{NAME}_count{{{labels}}} {count}",
                count = series.count,
                sum = series.sum_s,
            );
        }
        text
    }
}

/// The code's name as the gRPC specification writes it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_cumulative_buckets() {
        let metrics = Metrics::default();
        metrics.record("NodeStageVolume", Code::Ok, Duration::from_millis(20));
        metrics.record("NodeStageVolume", Code::Ok, Duration::from_secs(3));
        metrics.record("NodeStageVolume", Code::Aborted, Duration::ZERO);
        let text = metrics.render();
        let labels = r#"method="NodeStageVolume",code="OK""#;
        for line in [
            format!(r#"roadstead_csi_rpc_duration_seconds_bucket{{{labels},le="0.005"}} 0"#),
            format!(r#"roadstead_csi_rpc_duration_seconds_bucket{{{labels},le="0.025"}} 1"#),
            format!(r#"roadstead_csi_rpc_duration_seconds_bucket{{{labels},le="5"}} 2"#),
            format!(r#"roadstead_csi_rpc_duration_seconds_bucket{{{labels},le="+Inf"}} 2"#),
            format!("roadstead_csi_rpc_duration_seconds_sum{{{labels}}} 3.02"),
            format!("roadstead_csi_rpc_duration_seconds_count{{{labels}}} 2"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.contains(r#"code="ABORTED""#));
    }
}
