//! Writes what a plan says to the API.
//!
//! Every write is for one version of one object: the API refuses it if the object changed since, and the next plan
//! decides anew. A failure delays further writes to the same object (see [`crate::delays`]), and nothing else.

use std::fmt::Debug;
use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource};
use roadstead_crds::NVMeHost;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::info;

use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::events::Events;
use crate::plan::{Change, Kind, ObjectVersion, Write};

/// Who owns the fields that we apply, and publishes the Events.
pub const FIELD_MANAGER: &str = "roadstead-operator";

/// How long one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

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
    events: Events,
}

impl Writer {
    /// A writer that tells `cluster` what it wrote.
    pub fn new(client: Client, cluster: Cluster, events: Events) -> Self {
        Writer {
            client,
            cluster,
            events,
        }
    }

    /// Does one write.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing was changed, or (after a time-out) the whole write may have been.
    pub async fn write(&self, write: &Write) -> Result<(), WriteError> {
        let done = timeout(WRITE_TIMEOUT, self.change(write)).await;
        done.map_err(|_| WriteError::Timeout)??;
        for note in &write.notes {
            info!(
                kind = ?write.object.kind,
                name = write.object.name,
                reason = note.reason,
                "{}", note.message
            );
            self.events.publish(note, &write.object);
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
                Kind::Policy => self.finalizers(&cluster.policies, object, list).await,
            },
            Change::TargetStatus(status) => self.status(&cluster.targets, object, status).await,
            Change::NamespaceStatus(status) => {
                self.status(&cluster.namespaces, object, status).await
            }
            Change::AttachmentStatus(status) => {
                self.status(&cluster.attachments, object, status).await
            }
            Change::HostStatus(status) => self.status(&cluster.hosts, object, status).await,
            Change::PolicyStatus(status) => self.status(&cluster.policies, object, status).await,
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
