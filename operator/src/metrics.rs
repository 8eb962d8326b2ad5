//! Metrics in the Prometheus text format. Labels are bounded: kinds, results and states, never names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Counters and gauges of one operator.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Mutex<Values>>);

#[derive(Default)]
struct Values {
    leader: bool,
    plans: u64,
    plan_seconds: f64,
    plan_seconds_max: f64,
    writes: BTreeMap<(&'static str, &'static str), u64>,
    events: u64,
    gauges: Gauges,
    certificate_expiry: Option<i64>,
}

/// What the last snapshot showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Objects by kind and whether they are ready.
    pub objects: BTreeMap<(&'static str, bool), u64>,
    /// Dataplanes that have a connection.
    pub dataplanes_connected: u64,
    /// Dataplanes that are known.
    pub dataplanes: u64,
    /// Objects that cannot be parsed.
    pub invalid_objects: u64,
    /// Room for volumes on connected drives, in bytes.
    pub capacity_bytes: u64,
    /// Room for new volumes, in bytes.
    pub free_bytes: u64,
    /// Attachments by the chosen transport and by what carries the I/O.
    pub attachments: BTreeMap<(&'static str, &'static str), u64>,
    /// Attachments for which another transport would be chosen now.
    pub superseded: u64,
}

impl Metrics {
    fn with<T>(&self, f: impl FnOnce(&mut Values) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// This operator leads, or does not.
    pub fn set_leader(&self, leader: bool) {
        self.with(|v| v.leader = leader);
    }

    /// A plan was made in `took`, from what `gauges` count.
    pub fn planned(&self, took: Duration, gauges: Gauges) {
        self.with(|v| {
            v.plans += 1;
            v.plan_seconds += took.as_secs_f64();
            v.plan_seconds_max = v.plan_seconds_max.max(took.as_secs_f64());
            v.gauges = gauges;
        });
    }

    /// A write to an object of `kind` ended with `result`.
    pub fn wrote(&self, kind: &'static str, result: &'static str) {
        self.with(|v| *v.writes.entry((kind, result)).or_default() += 1);
    }

    /// An Event was published.
    pub fn event_published(&self) {
        self.with(|v| v.events += 1);
    }

    /// When the first certificate expires, in seconds since 1970.
    pub fn set_certificate_expiry(&self, at: i64) {
        self.with(|v| v.certificate_expiry = Some(at));
    }

    /// Everything, as text.
    pub fn render(&self) -> String {
        self.with(|v| v.render())
    }
}

impl Values {
    fn render(&self) -> String {
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, String)]| {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "# HELP roadstead_operator_{name} {help}\n# TYPE roadstead_operator_{name} {kind}"
            );
            for (labels, value) in values {
                let _ = writeln!(text, "roadstead_operator_{name}{labels} {value}");
            }
        };
        let one = |value: String| [(String::new(), value)];
        let gauges = &self.gauges;
        metric(
            "leader",
            "gauge",
            "1 while this operator leads.",
            &one(u8::from(self.leader).to_string()),
        );
        metric(
            "plans_total",
            "counter",
            "Plans made.",
            &one(self.plans.to_string()),
        );
        metric(
            "plan_seconds_total",
            "counter",
            "Time spent on plans.",
            &one(self.plan_seconds.to_string()),
        );
        metric(
            "plan_seconds_max",
            "gauge",
            "Longest plan so far.",
            &one(self.plan_seconds_max.to_string()),
        );
        let writes = self.writes.iter();
        let writes: Vec<_> = writes
            .map(|((kind, result), n)| {
                (
                    format!("{{kind=\"{kind}\",result=\"{result}\"}}"),
                    n.to_string(),
                )
            })
            .collect();
        metric(
            "writes_total",
            "counter",
            "Writes to the API by kind of object and result.",
            &writes,
        );
        metric(
            "events_total",
            "counter",
            "Events published.",
            &one(self.events.to_string()),
        );
        let objects = gauges.objects.iter();
        let objects: Vec<_> = objects
            .map(|((kind, ready), n)| {
                (
                    format!("{{kind=\"{kind}\",ready=\"{ready}\"}}"),
                    n.to_string(),
                )
            })
            .collect();
        metric(
            "objects",
            "gauge",
            "Objects by kind and readiness.",
            &objects,
        );
        metric(
            "invalid_objects",
            "gauge",
            "Objects that cannot be parsed.",
            &one(gauges.invalid_objects.to_string()),
        );
        metric(
            "dataplanes",
            "gauge",
            "Dataplanes that are known.",
            &one(gauges.dataplanes.to_string()),
        );
        metric(
            "dataplanes_connected",
            "gauge",
            "Dataplanes with a connection.",
            &one(gauges.dataplanes_connected.to_string()),
        );
        metric(
            "capacity_bytes",
            "gauge",
            "Room for volumes.",
            &one(gauges.capacity_bytes.to_string()),
        );
        metric(
            "free_bytes",
            "gauge",
            "Room for new volumes.",
            &one(gauges.free_bytes.to_string()),
        );
        let attachments = gauges.attachments.iter();
        let attachments: Vec<_> = attachments
            .map(|((chosen, used), n)| {
                (
                    format!("{{chosen=\"{chosen}\",transport=\"{used}\"}}"),
                    n.to_string(),
                )
            })
            .collect();
        metric(
            "attachments",
            "gauge",
            "Attachments by the chosen transport and the one that carries the I/O.",
            &attachments,
        );
        metric(
            "attachments_superseded",
            "gauge",
            "Attachments for which another transport would be chosen now.",
            &one(gauges.superseded.to_string()),
        );
        if let Some(at) = self.certificate_expiry {
            let help = "When the first certificate expires, in seconds since 1970.";
            metric(
                "certificate_expiry_timestamp_seconds",
                "gauge",
                help,
                &one(at.to_string()),
            );
        }
        text
    }
}
