//! Letting a node at a volume, and shutting it out again.

use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use roadstead_crds::condition::{self, reason};
use roadstead_crds::{NVMeAttachment, NVMeAttachmentSpec, NVMeNamespace};
use tracing::info;

use super::Controller;
use super::error::ControllerError;
use super::objects::{self, Readiness};
use crate::proto::csi;
use crate::request::{self, Capability, RequestError};

impl Controller {
    pub(super) async fn publish(
        &self,
        r: csi::ControllerPublishVolumeRequest,
    ) -> Result<csi::ControllerPublishVolumeResponse, ControllerError> {
        let volume = request::identifier("volume_id", &r.volume_id)?;
        if r.node_id.is_empty() {
            return Err(RequestError::Missing("node_id").into());
        }
        let capability = Capability::parse(r.volume_capability.as_ref())?;
        let spec = NVMeAttachmentSpec {
            namespace: volume.clone(),
            node: r.node_id,
            read_only: r.readonly || capability.mode.is_read_only(),
        };
        let exclusive = capability.mode.is_exclusive();
        let _guard = self.begin(&volume, attachment_key(&volume, &spec.node))?;

        let namespace = self.existing_namespace(&volume).await?;
        if namespace.metadata.deletion_timestamp.is_some() {
            return Err(ControllerError::BeingDeleted(format!("volume {volume}")));
        }
        self.check_node(&spec.node).await?;
        self.check_not_elsewhere(&spec, exclusive).await?;
        let name = objects::attachment_name(&volume, &spec.node, exclusive);
        self.ensure_attachment(&name, &spec).await?;
        self.await_attached(&name, &namespace).await
    }

    async fn check_node(&self, node: &str) -> Result<(), ControllerError> {
        let unknown = || ControllerError::NodeNotFound(node.to_owned());
        if !objects::is_object_name(node) {
            return Err(unknown());
        }
        let host = self.hosts.get_opt(node).await;
        let host = host.map_err(ControllerError::api("get the NVMeHost"))?;
        host.map(|_| ()).ok_or_else(unknown)
    }

    /// Nobody else has the volume, or everyone only reads it.
    async fn check_not_elsewhere(
        &self,
        spec: &NVMeAttachmentSpec,
        exclusive: bool,
    ) -> Result<(), ControllerError> {
        let params = ListParams::default().labels(&objects::attachments_of(&spec.namespace));
        let list = self.attachments.list(&params).await;
        let list = list.map_err(ControllerError::api("list NVMeAttachments"))?;
        let conflict = list.items.into_iter().find(|other| {
            let other_is_exclusive = other.metadata.name.as_deref() == Some(&spec.namespace);
            other.spec.namespace == spec.namespace
                && other.spec.node != spec.node
                && (exclusive || other_is_exclusive)
        });
        conflict.map_or(Ok(()), |other| {
            Err(ControllerError::AttachedElsewhere {
                volume: spec.namespace.clone(),
                node: other.spec.node,
            })
        })
    }

    /// The attachment's object exists and is the one asked for.
    async fn ensure_attachment(
        &self,
        name: &str,
        spec: &NVMeAttachmentSpec,
    ) -> Result<(), ControllerError> {
        let object = objects::new_attachment(name, spec.clone());
        let existing = match self
            .attachments
            .create(&PostParams::default(), &object)
            .await
        {
            Ok(_) => {
                info!(
                    volume = spec.namespace,
                    node = spec.node,
                    "attachment asked for"
                );
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let existing = self.attachments.get_opt(name).await;
                existing.map_err(ControllerError::api("get the NVMeAttachment"))?
            }
            Err(error) => return Err(ControllerError::api("create the NVMeAttachment")(error)),
        };
        match existing {
            Some(existing) => check_same(&existing, spec),
            None => Err(being_deleted(spec)),
        }
    }

    async fn await_attached(
        &self,
        name: &str,
        namespace: &NVMeNamespace,
    ) -> Result<csi::ControllerPublishVolumeResponse, ControllerError> {
        let volume = namespace.metadata.name.clone().unwrap_or_default();
        let what = || format!("attachment of volume {volume}");
        let attachment = self
            .watch_until(&self.attachments, name, what, |object, why| {
                let Some(object) = object.filter(|o| o.metadata.deletion_timestamp.is_none())
                else {
                    return Some(Err(ControllerError::BeingDeleted(what())));
                };
                let conditions = object.status.as_ref().map_or(&[][..], |s| &s.conditions);
                match objects::readiness(&object.metadata, conditions) {
                    Readiness::Ready => Some(Ok(object)),
                    Readiness::Not { reason, .. } if reason == reason::NAMESPACE_NOT_FOUND => {
                        Some(Err(ControllerError::VolumeNotFound(volume.clone())))
                    }
                    Readiness::Not { message, .. } => {
                        *why = message;
                        None
                    }
                }
            })
            .await?;
        // Read again: the volume may have been placed since.
        let namespace = self.existing_namespace(&volume).await?;
        let context = objects::publish_context(&namespace, &attachment)?;
        let publish_context = context.to_map().map_err(|_| ControllerError::Incomplete {
            object: format!("the attachment of volume {volume}"),
            field: "paths",
        })?;
        Ok(csi::ControllerPublishVolumeResponse { publish_context })
    }

    pub(super) async fn unpublish(
        &self,
        r: csi::ControllerUnpublishVolumeRequest,
    ) -> Result<csi::ControllerUnpublishVolumeResponse, ControllerError> {
        let volume = request::identifier("volume_id", &r.volume_id)?;
        let _guard = self.begin(&volume, attachment_key(&volume, &r.node_id))?;
        let params = ListParams::default().labels(&objects::attachments_of(&volume));
        let list = if objects::is_object_name(&volume) {
            let list = self.attachments.list(&params).await;
            list.map_err(ControllerError::api("list NVMeAttachments"))?
                .items
        } else {
            Vec::new()
        };
        let to_go = list.into_iter().filter(|a| {
            a.spec.namespace == volume && (r.node_id.is_empty() || a.spec.node == r.node_id)
        });
        for attachment in to_go {
            self.detach(&attachment).await?;
        }
        Ok(csi::ControllerUnpublishVolumeResponse {})
    }

    /// Deletes the attachment and waits until the operator let it go: the target shuts the node out by then.
    async fn detach(&self, attachment: &NVMeAttachment) -> Result<(), ControllerError> {
        let name = attachment.metadata.name.as_deref().unwrap_or_default();
        let uid = attachment.metadata.uid.clone();
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: uid.clone(),
                resource_version: None,
            }),
            ..Default::default()
        };
        match self.attachments.delete(name, &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(s)) if s.is_not_found() || s.is_conflict() => return Ok(()),
            Err(error) => return Err(ControllerError::api("delete the NVMeAttachment")(error)),
        }
        let spec = &attachment.spec;
        let what = || format!("detaching volume {} from {}", spec.namespace, spec.node);
        self.watch_until(&self.attachments, name, what, |object, why| {
            let Some(object) = object.filter(|o| o.metadata.uid == uid) else {
                return Some(Ok(()));
            };
            let conditions = object.status.map(|s| s.conditions).unwrap_or_default();
            if let Some(deleting) = condition::find(&conditions, condition::DELETING) {
                why.clone_from(&deleting.message);
            }
            None
        })
        .await
    }
}

/// What one operation at a time means here: a volume on a node.
fn attachment_key(volume: &str, node: &str) -> String {
    format!("{volume} on {node}")
}

/// An attachment that exists satisfies a request for one, or differs in something.
fn check_same(
    existing: &NVMeAttachment,
    wanted: &NVMeAttachmentSpec,
) -> Result<(), ControllerError> {
    let has = &existing.spec;
    let volume = wanted.namespace.clone();
    if has.node != wanted.node {
        return Err(ControllerError::AttachedElsewhere {
            volume,
            node: has.node.clone(),
        });
    }
    if existing.metadata.deletion_timestamp.is_some() {
        return Err(being_deleted(wanted));
    }
    if has.namespace != wanted.namespace || has.read_only != wanted.read_only {
        return Err(ControllerError::AttachedOtherwise {
            volume,
            node: has.node.clone(),
            read_only: has.read_only,
        });
    }
    Ok(())
}

fn being_deleted(spec: &NVMeAttachmentSpec) -> ControllerError {
    ControllerError::BeingDeleted(format!(
        "the attachment of volume {} to node {}",
        spec.namespace, spec.node
    ))
}
