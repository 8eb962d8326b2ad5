//! Publishes Events, one after the other, so that nothing waits for them.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use roadstead_crds::{NVMeAttachment, NVMeHost, NVMeNamespace, Target, TransportPolicy};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::metrics::Metrics;
use crate::plan::{Kind, Note, ObjectVersion};

/// How long an Event may take.
const EVENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Events that wait to be published; more are dropped, for an Event is a courtesy.
const EVENTS_MAX: usize = 1000;

/// The API's limit of an Event's note is 1024 bytes.
const NOTE_BYTES_MAX: usize = 1000;

/// Takes Events to publish.
#[derive(Clone)]
pub struct Events(mpsc::Sender<(Note, ObjectReference)>);

impl Events {
    /// Events of the controller `controller` in the operator `identity`, and the task that publishes them.
    pub fn new(
        client: Client,
        controller: &str,
        identity: &str,
        metrics: Metrics,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let reporter = Reporter {
            controller: controller.into(),
            instance: Some(identity.into()),
        };
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        (
            Events(sender),
            publish(Recorder::new(client, reporter), receiver, metrics),
        )
    }

    /// Publishes `note` about `object`, soon.
    pub fn publish(&self, note: &Note, object: &ObjectVersion) {
        if self.0.try_send((note.clone(), reference(object))).is_err() {
            debug!(name = object.name, "too many Events wait; one is dropped");
        }
    }
}

fn reference(object: &ObjectVersion) -> ObjectReference {
    let (api_version, kind) = match object.kind {
        Kind::Target => (Target::api_version(&()), Target::kind(&())),
        Kind::Namespace => (NVMeNamespace::api_version(&()), NVMeNamespace::kind(&())),
        Kind::Attachment => (NVMeAttachment::api_version(&()), NVMeAttachment::kind(&())),
        Kind::Host => (NVMeHost::api_version(&()), NVMeHost::kind(&())),
        Kind::Policy => (
            TransportPolicy::api_version(&()),
            TransportPolicy::kind(&()),
        ),
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
