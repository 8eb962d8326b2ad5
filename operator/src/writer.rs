//! Writes what a plan says to the API.
//!
//! Every write is for one version of one object: the API refuses it if the object changed since, and the next plan
//! decides anew. A failure delays further writes to the same object, longer each time, and nothing else.

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use roadstead_crds::{NVMeAttachment, NVMeHost, NVMeNamespace, Target};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::metrics::Metrics;
use crate::plan::{Change, Kind, Note, ObjectVersion, Write};

/// Who owns the fields that we apply.
const FIELD_MANAGER: &str = "roadstead-operator";

/// How long one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an Event may take.
const EVENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Events that wait to be published; more are dropped, for an Event is a courtesy.
const EVENTS_MAX: usize = 1000;

/// The API's limit of an Event's note is 1024 bytes.
const NOTE_BYTES_MAX: usize = 1000;

/// Delay after the first failed write to an object, and the longest one.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Why a write was not done.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The object changed since the plan saw it.
    #[error("the object changed meanwhile")]
    Conflict,
    /// The object is gone.
    #[error("the object is gone")]
    Gone,
    /// The API refused it or could not be reached.
    #[error("the API server: {0}")]
    Api(#[source] Box<kube::Error>),
    /// No answer came.
    #[error("the API server gave no answer within {WRITE_TIMEOUT:?}")]
    Timeout,
}

impl WriteError {
    /// One word for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            WriteError::Conflict => "conflict",
            WriteError::Gone => "gone",
            WriteError::Api(_) => "error",
            WriteError::Timeout => "timeout",
        }
    }
}

impl From<kube::Error> for WriteError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 409 => WriteError::Conflict,
            kube::Error::Api(status) if status.code == 404 => WriteError::Gone,
            _ => WriteError::Api(Box::new(error)),
        }
    }
}

/// Writes to the API and publishes Events.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    cluster: Cluster,
    events: tokio::sync::mpsc::Sender<(Note, ObjectReference)>,
}

impl Writer {
    /// A writer that tells `cluster` what it wrote, and the task that publishes its Events.
    pub fn new(
        client: Client,
        cluster: Cluster,
        identity: &str,
        metrics: Metrics,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let reporter = Reporter {
            controller: FIELD_MANAGER.into(),
            instance: Some(identity.into()),
        };
        let recorder = Recorder::new(client.clone(), reporter);
        let (events, receiver) = tokio::sync::mpsc::channel(EVENTS_MAX);
        let writer = Writer {
            client,
            cluster,
            events,
        };
        (writer, publish(recorder, receiver, metrics))
    }

    /// Does one write.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing was changed, or (after a time-out) the whole write may have been.
    pub async fn write(&self, write: &Write) -> Result<(), WriteError> {
        let done = timeout(WRITE_TIMEOUT, self.change(write)).await;
        done.map_err(|_| WriteError::Timeout)??;
        for note in &write.notes {
            let reference = reference(&write.object);
            info!(
                kind = ?write.object.kind, name = write.object.name, reason = note.reason,
                message = note.message, "event"
            );
            if self.events.try_send((note.clone(), reference)).is_err() {
                debug!(
                    name = write.object.name,
                    "too many Events wait; one is dropped"
                );
            }
        }
        Ok(())
    }

    async fn change(&self, write: &Write) -> Result<(), WriteError> {
        let object = &write.object;
        let cluster = &self.cluster;
        match &write.change {
            Change::Finalizers(list) => match object.kind {
                Kind::Target => self.finalizers(&cluster.targets, object, list).await,
                Kind::Namespace => self.finalizers(&cluster.namespaces, object, list).await,
                Kind::Attachment => self.finalizers(&cluster.attachments, object, list).await,
                Kind::Host => self.finalizers(&cluster.hosts, object, list).await,
            },
            Change::TargetStatus(status) => self.status(&cluster.targets, object, status).await,
            Change::NamespaceStatus(status) => {
                self.status(&cluster.namespaces, object, status).await
            }
            Change::AttachmentStatus(status) => {
                self.status(&cluster.attachments, object, status).await
            }
            Change::HostStatus(status) => self.status(&cluster.hosts, object, status).await,
            Change::CreateHost { node_uid } => {
                self.create_host(&object.name, node_uid.as_deref()).await
            }
        }
    }

    async fn finalizers<K>(
        &self,
        cache: &Cache<K>,
        object: &ObjectVersion,
        list: &[String],
    ) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + PartialEq,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let patch = json!({"metadata": {
            "uid": object.uid,
            "resourceVersion": object.resource_version,
            "finalizers": list,
        }});
        let written = api
            .patch(&object.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        cache.observe(&written, stripped(written.clone()));
        Ok(())
    }

    async fn status<K, S>(
        &self,
        cache: &Cache<K>,
        object: &ObjectVersion,
        status: &S,
    ) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + PartialEq,
        S: Serialize,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let mut patch = typed::<K>(&object.name);
        patch["metadata"]["uid"] = object.uid.clone().into();
        patch["metadata"]["resourceVersion"] = object.resource_version.clone().into();
        patch["status"] = serde_json::to_value(status)
            .map_err(|e| WriteError::Api(Box::new(kube::Error::SerdeError(e))))?;
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = api
            .patch_status(&object.name, &params, &Patch::Apply(&patch))
            .await?;
        cache.observe(&written, stripped(written.clone()));
        Ok(())
    }

    async fn create_host(&self, name: &str, node_uid: Option<&str>) -> Result<(), WriteError> {
        let api: Api<NVMeHost> = Api::all(self.client.clone());
        let mut patch = typed::<NVMeHost>(name);
        patch["spec"] = json!({});
        if let Some(uid) = node_uid {
            // The object goes with its node.
            patch["metadata"]["ownerReferences"] =
                json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}]);
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(name, &params, &Patch::Apply(&patch)).await?;
        Ok(())
    }
}

/// The part that every applied object has.
fn typed<K: Resource<DynamicType = ()>>(name: &str) -> Value {
    json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name},
    })
}

/// An object without what the watch takes off it as well.
fn stripped<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

fn reference(object: &ObjectVersion) -> ObjectReference {
    let (api_version, kind) = match object.kind {
        Kind::Target => (Target::api_version(&()), Target::kind(&())),
        Kind::Namespace => (NVMeNamespace::api_version(&()), NVMeNamespace::kind(&())),
        Kind::Attachment => (NVMeAttachment::api_version(&()), NVMeAttachment::kind(&())),
        Kind::Host => (NVMeHost::api_version(&()), NVMeHost::kind(&())),
    };
    ObjectReference {
        api_version: Some(api_version.into_owned()),
        kind: Some(kind.into_owned()),
        name: Some(object.name.clone()),
        uid: Some(object.uid.clone()),
        ..ObjectReference::default()
    }
}

/// Publishes Events one after the other, so that nothing waits for them.
async fn publish(
    recorder: Recorder,
    mut events: tokio::sync::mpsc::Receiver<(Note, ObjectReference)>,
    metrics: Metrics,
) {
    while let Some((note, reference)) = events.recv().await {
        let event = Event {
            type_: if note.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: note.reason.clone(),
            note: Some(shortened(&note.message)),
            action: "Reconcile".into(),
            secondary: None,
        };
        match timeout(EVENT_TIMEOUT, recorder.publish(&event, &reference)).await {
            Ok(Ok(())) => metrics.event_published(),
            Ok(Err(error)) => {
                warn!(name = reference.name, %error, "an Event could not be published")
            }
            Err(_) => warn!(
                name = reference.name,
                "an Event could not be published in time"
            ),
        }
    }
}

fn shortened(message: &str) -> String {
    match message
        .char_indices()
        .find(|(at, c)| at + c.len_utf8() > NOTE_BYTES_MAX)
    {
        Some((at, _)) => format!("{}...", &message[..at]),
        None => message.into(),
    }
}

/// Which objects are not to be written for a while.
#[derive(Default)]
pub struct Delays(HashMap<(Kind, String), Delay>);

struct Delay {
    backoff: Backoff,
    until: Instant,
    /// The version that the failed write was for.
    version: String,
}

impl Delays {
    /// The write may be tried at `now`.
    pub fn allow(&self, object: &ObjectVersion, now: Instant) -> bool {
        self.0
            .get(&(object.kind, object.name.clone()))
            .is_none_or(|delay| now >= delay.until || delay.version != object.resource_version)
    }

    /// Takes note of a write's result.
    pub fn record(
        &mut self,
        object: &ObjectVersion,
        result: &Result<(), WriteError>,
        now: Instant,
    ) {
        let key = (object.kind, object.name.clone());
        if result.is_ok() {
            self.0.remove(&key);
            return;
        }
        let seed = u64::from(object.name.bytes().map(u32::from).sum::<u32>());
        let delay = self.0.entry(key).or_insert_with(|| Delay {
            backoff: Backoff::new(RETRY_FIRST, RETRY_MAX, seed),
            until: now,
            version: String::new(),
        });
        delay.until = now + delay.backoff.next_delay();
        delay.version.clone_from(&object.resource_version);
    }

    /// Forgets what is over, and says when the next delay ends.
    pub fn next(&mut self, now: Instant) -> Option<Instant> {
        self.0.retain(|_, delay| delay.until + RETRY_MAX > now);
        self.0
            .values()
            .map(|d| d.until)
            .filter(|until| *until > now)
            .min()
    }
}
