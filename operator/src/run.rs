//! The main loop of the leader.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use roadstead_crds::Condition;
use roadstead_crds::condition::{READY, is_true};
use roadstead_crds::transport::TransportKind;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::causes::whole;
use crate::cluster::Cluster;
use crate::dataplanes::Dataplanes;
use crate::delays::Delays;
use crate::events::Events;
use crate::http::Health;
use crate::metrics::{Gauges, Metrics};
use crate::plan::{Kind, Write, plan};
use crate::secrets;
use crate::snapshot::{Link, Snapshot};
use crate::writer::{FIELD_MANAGER, WriteError, Writer};

/// Two plans are at least this far apart, so that a burst of changes is one plan.
const PLAN_INTERVAL_MIN: Duration = Duration::from_millis(5);

/// A plan is made at least this often, changes or not.
const PLAN_INTERVAL_MAX: Duration = Duration::from_secs(30);

/// Writes to the API under way at once.
const WRITES_AT_ONCE: usize = 32;

/// Writes in one turn of the loop, so that a flood of them does not keep the nodes from their states.
const WRITES_PER_TURN: usize = 256;

/// What the main loop needs.
#[derive(Clone)]
pub struct Context {
    /// The API.
    pub client: Client,
    /// Where the dataplane pods and our Secrets are.
    pub namespace: String,
    /// Who writes Events.
    pub identity: String,
    /// Metrics.
    pub metrics: Metrics,
    /// Probes.
    pub health: Health,
}

/// Acts as the leader. Everything that it starts ends when the future is dropped.
pub async fn lead(context: Context) -> Infallible {
    let wake = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    let (identity, identities) = watch::channel(None);
    tasks.spawn(secrets::keep(
        context.client.clone(),
        context.namespace.clone(),
        identity,
        context.metrics.clone(),
    ));
    let cluster = Cluster::start(&context.client, &context.namespace, &wake, &mut tasks);
    let (events, publisher) = Events::new(
        context.client.clone(),
        FIELD_MANAGER,
        &context.identity,
        context.metrics.clone(),
    );
    tasks.spawn(publisher);
    let writer = Writer::new(context.client.clone(), cluster.clone(), events);
    while !cluster.is_listed() {
        context.health.turned();
        let _ = tokio::time::timeout(PLAN_INTERVAL_MAX, wake.notified()).await;
    }
    info!("every object is known; planning begins");
    let mut dataplanes = Dataplanes::new(identities, wake.clone());
    let mut delays = Delays::default();
    loop {
        context.health.turned();
        dataplanes.follow(cluster.dataplane_pods(), |node| cluster.has_node(node));
        let snapshot = cluster.snapshot(dataplanes.views());
        let started = Instant::now();
        let plan = plan(&snapshot);
        context
            .metrics
            .planned(started.elapsed(), gauges(&snapshot, &cluster));
        dataplanes.set_desired(plan.states);
        let done = write_all(&writer, &mut delays, &context.metrics, plan.writes).await;
        let pause = match done {
            // What was written may allow the next step at once.
            0 => delay(&mut delays, plan.wake_at, snapshot.now),
            _ => Duration::ZERO,
        };
        let _ = tokio::time::timeout(pause, wake.notified()).await;
        sleep(PLAN_INTERVAL_MIN).await;
    }
}

/// How long nothing is to be done unless something changes.
fn delay(delays: &mut Delays, wake_at: Option<Timestamp>, now: Timestamp) -> Duration {
    let clock = Instant::now();
    let retry = delays
        .next(clock)
        .map(|at| at.saturating_duration_since(clock));
    let grace = wake_at.map(|at| now.duration_until(at).unsigned_abs());
    [retry, grace]
        .into_iter()
        .flatten()
        .fold(PLAN_INTERVAL_MAX, Duration::min)
}

/// Does the writes that may be tried now; how many of them were done.
async fn write_all(
    writer: &Writer,
    delays: &mut Delays,
    metrics: &Metrics,
    writes: Vec<Write>,
) -> usize {
    let now = Instant::now();
    let due = writes.into_iter().filter(|w| delays.allow(&w.object, now));
    let due: Vec<Write> = due.take(WRITES_PER_TURN).collect();
    let results: Vec<(Write, Result<(), WriteError>)> = stream::iter(due)
        .map(|write| async {
            let result = writer.write(&write).await;
            (write, result)
        })
        .buffer_unordered(WRITES_AT_ONCE)
        .collect()
        .await;
    let mut done = 0;
    let now = Instant::now();
    for (write, result) in results {
        let kind = kind_word(write.object.kind);
        match &result {
            Ok(()) => {
                done += 1;
                metrics.wrote(kind, "ok");
            }
            Err(error) => {
                metrics.wrote(kind, error.word());
                if let WriteError::Api(_) | WriteError::Timeout = error {
                    warn!(
                        kind,
                        name = write.object.name,
                        error = whole(error),
                        "a write failed"
                    );
                }
            }
        }
        delays.record(&write.object, &result, now);
    }
    done
}

fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Target => "target",
        Kind::Namespace => "nvmenamespace",
        Kind::Attachment => "nvmeattachment",
        Kind::Host => "nvmehost",
        Kind::Policy => "transportpolicy",
    }
}

fn gauges(snapshot: &Snapshot, cluster: &Cluster) -> Gauges {
    let mut objects: BTreeMap<(&'static str, bool), u64> = BTreeMap::new();
    let mut count = |kind: Kind, conditions: Option<&[Condition]>| {
        let ready = is_true(conditions.unwrap_or_default(), READY);
        *objects.entry((kind_word(kind), ready)).or_default() += 1;
    };
    for o in snapshot.targets.values() {
        count(
            Kind::Target,
            o.status.as_ref().map(|s| s.conditions.as_slice()),
        );
    }
    for o in snapshot.namespaces.values() {
        count(
            Kind::Namespace,
            o.status.as_ref().map(|s| s.conditions.as_slice()),
        );
    }
    for o in snapshot.attachments.values() {
        count(
            Kind::Attachment,
            o.status.as_ref().map(|s| s.conditions.as_slice()),
        );
    }
    for o in snapshot.hosts.values() {
        count(
            Kind::Host,
            o.status.as_ref().map(|s| s.conditions.as_slice()),
        );
    }
    for o in snapshot.policies.values() {
        count(
            Kind::Policy,
            o.status.as_ref().map(|s| s.conditions.as_slice()),
        );
    }
    let statuses = || snapshot.targets.values().filter_map(|t| t.status.as_ref());
    let up = snapshot.dataplanes.values().filter(|d| d.link == Link::Up);
    Gauges {
        objects,
        dataplanes_connected: number(up.count()),
        dataplanes: number(snapshot.dataplanes.len()),
        invalid_objects: number(cluster.invalid_count()),
        capacity_bytes: statuses().map(|s| s.capacity_bytes).sum(),
        free_bytes: statuses().map(|s| s.free_bytes).sum(),
        attachments: transports(snapshot),
        superseded: number(superseded(snapshot)),
    }
}

/// Attachments by what was chosen and what carries the I/O.
fn transports(snapshot: &Snapshot) -> BTreeMap<(&'static str, &'static str), u64> {
    let mut all = BTreeMap::new();
    for status in snapshot
        .attachments
        .values()
        .filter_map(|a| a.status.as_ref())
    {
        let chosen = status.chosen_transport.map_or("none", TransportKind::word);
        let used = match status.transport.as_deref() {
            None => "none",
            Some(text) => text.parse().map_or("several", TransportKind::word),
        };
        *all.entry((chosen, used)).or_default() += 1;
    }
    all
}

/// Attachments that keep what they have although another transport would be chosen now.
fn superseded(snapshot: &Snapshot) -> usize {
    let statuses = snapshot
        .attachments
        .values()
        .filter_map(|a| a.status.as_ref());
    statuses.filter(|s| s.superseded.is_some()).count()
}

fn number(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
