//! Creating, deleting and growing volumes.

use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use roadstead_crds::condition::{self, reason};
use roadstead_crds::{NVMeNamespace, quantity};
use serde_json::json;
use tracing::info;

use super::Controller;
use super::error::ControllerError;
use super::objects::{self, Readiness};
use crate::proto::csi;
use crate::request::{self, Capability, Capacity, FileSystem, Parameters, RequestError};

impl Controller {
    pub(super) async fn create(
        &self,
        r: csi::CreateVolumeRequest,
    ) -> Result<csi::CreateVolumeResponse, ControllerError> {
        let name = request::identifier("name", &r.name)?;
        if r.volume_content_source.is_some() {
            return Err(RequestError::ContentSource.into());
        }
        if let Some(parameter) = r.mutable_parameters.into_keys().next() {
            return Err(RequestError::MutableParameter(parameter).into());
        }
        let capabilities = Capability::parse_all(&r.volume_capabilities)?;
        let xfs = capabilities
            .iter()
            .find_map(|c| c.file_system().filter(|fs| *fs == FileSystem::Xfs));
        let capacity = Capacity::parse(r.capacity_range.as_ref(), xfs)?;
        let parameters = Parameters::parse(&r.parameters)?;
        let volume = objects::volume_name(&name);
        let _guard = self.begin(&volume, volume.clone())?;

        self.ensure_namespace(&volume, &parameters, &capacity)
            .await?;
        let capacity_bytes = self.await_created(&volume).await?;
        Ok(csi::CreateVolumeResponse {
            volume: Some(csi::Volume {
                capacity_bytes: signed(capacity_bytes),
                volume_id: volume,
                ..Default::default()
            }),
        })
    }

    /// The volume's object exists and is the one asked for.
    async fn ensure_namespace(
        &self,
        volume: &str,
        parameters: &Parameters,
        capacity: &Capacity,
    ) -> Result<(), ControllerError> {
        if let Some(existing) = self.namespace(volume).await? {
            return objects::check_compatible(&existing, volume, parameters, capacity);
        }
        if let Some(target) = &parameters.target {
            let found = self.targets.get_opt(target).await;
            let found = found.map_err(ControllerError::api("get the Target"))?;
            match found {
                None => return Err(ControllerError::NoSuchTarget(target.clone())),
                Some(found) if found.spec.external.is_some() => {
                    return Err(ControllerError::TargetIsAppliance(target.clone()));
                }
                Some(_) => {}
            }
        }
        let needs = self.transport_needs(parameters).await?;
        let object = objects::new_namespace(volume, parameters, needs, capacity.size_bytes);
        match self
            .namespaces
            .create(&PostParams::default(), &object)
            .await
        {
            Ok(_) => {
                info!(volume, size = object.spec.size, "volume asked for");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let existing = self.namespace(volume).await?;
                let existing = existing
                    .ok_or_else(|| ControllerError::BeingDeleted(format!("volume {volume}")))?;
                objects::check_compatible(&existing, volume, parameters, capacity)
            }
            Err(error) => Err(ControllerError::api("create the NVMeNamespace")(error)),
        }
    }

    /// Waits for the operator; returns the volume's size in bytes. A volume without room is taken back, because the
    /// provisioner forgets it after this error.
    async fn await_created(&self, volume: &str) -> Result<u64, ControllerError> {
        let what = || format!("volume {volume}");
        let created = self
            .watch_until(&self.namespaces, volume, what, |object, why| {
                judge_created(volume, object, why)
            })
            .await;
        if let Err(ControllerError::NoRoom { .. }) = created {
            self.take_back(volume).await?;
        }
        created
    }

    /// Deletes a volume that was never placed. If it was placed meanwhile, the operator removes it like any other.
    async fn take_back(&self, volume: &str) -> Result<(), ControllerError> {
        let Some(object) = self.namespace(volume).await? else {
            return Ok(());
        };
        if !objects::is_ours(&object.metadata) {
            return Ok(());
        }
        self.delete_namespace(&object).await
    }

    pub(super) async fn delete(
        &self,
        r: csi::DeleteVolumeRequest,
    ) -> Result<csi::DeleteVolumeResponse, ControllerError> {
        let volume = request::identifier("volume_id", &r.volume_id)?;
        let _guard = self.begin(&volume, volume.clone())?;
        let Some(object) = self.namespace(&volume).await? else {
            return Ok(csi::DeleteVolumeResponse {});
        };
        let nodes = self.attached_nodes(&volume).await?;
        if !nodes.is_empty() {
            return Err(ControllerError::StillAttached {
                volume,
                nodes: nodes.join(", "),
            });
        }
        self.delete_namespace(&object).await?;
        self.await_deleted(&volume, object.metadata.uid.as_deref())
            .await?;
        Ok(csi::DeleteVolumeResponse {})
    }

    async fn delete_namespace(&self, object: &NVMeNamespace) -> Result<(), ControllerError> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: object.metadata.uid.clone(),
                resource_version: None,
            }),
            ..Default::default()
        };
        match self.namespaces.delete(name, &params).await {
            Ok(_) => Ok(()),
            // Gone, or gone and made anew.
            Err(kube::Error::Api(s)) if s.is_not_found() || s.is_conflict() => Ok(()),
            Err(error) => Err(ControllerError::api("delete the NVMeNamespace")(error)),
        }
    }

    async fn await_deleted(&self, volume: &str, uid: Option<&str>) -> Result<(), ControllerError> {
        let mut held = None;
        let what = || format!("deletion of volume {volume}");
        let gone = self
            .watch_until(&self.namespaces, volume, what, |object, why| {
                let object = object.filter(|o| o.metadata.uid.as_deref() == uid);
                let Some(object) = object else {
                    return Some(Ok(()));
                };
                let conditions = object.status.map(|s| s.conditions).unwrap_or_default();
                if let Some(deleting) = condition::find(&conditions, condition::DELETING) {
                    why.clone_from(&deleting.message);
                    held = (deleting.reason == reason::WAITING_FOR_ATTACHMENTS)
                        .then(|| deleting.message.clone());
                }
                None
            })
            .await;
        match held {
            Some(nodes) if gone.is_err() => Err(ControllerError::StillAttached {
                volume: volume.to_owned(),
                nodes,
            }),
            _ => gone,
        }
    }

    pub(super) async fn expand(
        &self,
        r: csi::ControllerExpandVolumeRequest,
    ) -> Result<csi::ControllerExpandVolumeResponse, ControllerError> {
        let volume = request::identifier("volume_id", &r.volume_id)?;
        let range = r.capacity_range.as_ref();
        let range = range.ok_or(RequestError::Missing("capacity_range"))?;
        let capacity = Capacity::parse(Some(range), None)?;
        if let Some(capability) = r.volume_capability.as_ref() {
            Capability::parse(Some(capability))?;
        }
        let _guard = self.begin(&volume, volume.clone())?;
        let object = self.existing_namespace(&volume).await?;
        let now_bytes = objects::spec_size_bytes(&object);
        if objects::is_external(&object) && !capacity.accepts(now_bytes) {
            return Err(ControllerError::NotOurs(volume));
        }
        let size_bytes = match objects::is_external(&object) {
            // It was grown there, and the claim follows.
            true => now_bytes,
            false => capacity.size_bytes.max(now_bytes),
        };
        if !capacity.accepts(size_bytes) {
            return Err(ControllerError::NoRoomToGrow {
                volume,
                why: format!("it has {now_bytes} bytes already, more than limit_bytes"),
            });
        }
        if size_bytes > now_bytes {
            self.check_room(&volume, &object, size_bytes - now_bytes)
                .await?;
            let patch = Patch::Merge(json!({"spec": {"size": quantity::exact(size_bytes)}}));
            self.namespaces
                .patch(&volume, &PatchParams::default(), &patch)
                .await
                .map_err(ControllerError::api("change the NVMeNamespace's size"))?;
        }
        self.await_grown(&volume, size_bytes).await?;
        Ok(csi::ControllerExpandVolumeResponse {
            capacity_bytes: signed(size_bytes),
            node_expansion_required: true,
        })
    }

    /// The spec's size cannot be taken back, so a size that does not fit is refused before it is written there.
    async fn check_room(
        &self,
        volume: &str,
        object: &NVMeNamespace,
        growth_bytes: u64,
    ) -> Result<(), ControllerError> {
        let Some(target) = object.status.as_ref().and_then(|s| s.target.as_deref()) else {
            return Ok(());
        };
        let target = self.targets.get_opt(target).await;
        let target = target.map_err(ControllerError::api("get the Target"))?;
        match target.and_then(|t| objects::room_to_grow(object, &t)) {
            Some(free_bytes) if free_bytes < growth_bytes => Err(ControllerError::NoRoomToGrow {
                volume: volume.to_owned(),
                why: format!("its drive has {free_bytes} bytes left, {growth_bytes} are needed"),
            }),
            _ => Ok(()),
        }
    }

    async fn await_grown(&self, volume: &str, size_bytes: u64) -> Result<(), ControllerError> {
        let what = || format!("growth of volume {volume}");
        self.watch_until(&self.namespaces, volume, what, |object, why| {
            let Some(object) = object else {
                return Some(Err(ControllerError::VolumeNotFound(volume.to_owned())));
            };
            let status = object.status.unwrap_or_default();
            if status.capacity_bytes >= size_bytes {
                return Some(Ok(()));
            }
            match objects::readiness(&object.metadata, &status.conditions) {
                Readiness::Not { reason, message } if reason == reason::NO_ROOM_TO_GROW => {
                    Some(Err(ControllerError::NoRoomToGrow {
                        volume: volume.to_owned(),
                        why: message,
                    }))
                }
                Readiness::Not { message, .. } => {
                    *why = message;
                    None
                }
                Readiness::Ready => None,
            }
        })
        .await
    }

    /// The volume's object, if there is one.
    pub(super) async fn namespace(
        &self,
        volume: &str,
    ) -> Result<Option<NVMeNamespace>, ControllerError> {
        if !objects::is_object_name(volume) {
            return Ok(None);
        }
        self.namespaces
            .get_opt(volume)
            .await
            .map_err(ControllerError::api("get the NVMeNamespace"))
    }

    /// The volume's object.
    pub(super) async fn existing_namespace(
        &self,
        volume: &str,
    ) -> Result<NVMeNamespace, ControllerError> {
        let object = self.namespace(volume).await?;
        object.ok_or_else(|| ControllerError::VolumeNotFound(volume.to_owned()))
    }

    /// The nodes that this driver attached the volume to.
    pub(super) async fn attached_nodes(
        &self,
        volume: &str,
    ) -> Result<Vec<String>, ControllerError> {
        let params = ListParams::default().labels(&objects::attachments_of(volume));
        let list = self.attachments.list(&params).await;
        let list = list.map_err(ControllerError::api("list NVMeAttachments"))?;
        let nodes = list
            .items
            .into_iter()
            .filter(|a| a.spec.namespace == volume);
        Ok(nodes.map(|a| a.spec.node).collect())
    }
}

fn judge_created(
    volume: &str,
    object: Option<NVMeNamespace>,
    why: &mut String,
) -> Option<Result<u64, ControllerError>> {
    let object = object.filter(|o| o.metadata.deletion_timestamp.is_none());
    let Some(object) = object else {
        return Some(Err(ControllerError::BeingDeleted(format!(
            "volume {volume}"
        ))));
    };
    let status = object.status.unwrap_or_default();
    match objects::readiness(&object.metadata, &status.conditions) {
        Readiness::Ready => Some(Ok(status.capacity_bytes)),
        Readiness::Not { reason, message } if objects::is_no_room(&reason) => {
            Some(Err(ControllerError::NoRoom {
                volume: volume.to_owned(),
                why: message,
            }))
        }
        Readiness::Not { message, .. } => {
            *why = message;
            None
        }
    }
}

/// A number of bytes as CSI has it; sizes are below 2^63.
pub(super) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
