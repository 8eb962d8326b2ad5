//! Calls that only look.

use std::collections::BTreeMap;

use kube::api::ListParams;
use roadstead_crds::NVMeNamespace;

use super::Controller;
use super::error::ControllerError;
use super::objects;
use super::volumes::signed;
use crate::proto::csi;
use crate::proto::csi::list_volumes_response::{Entry, VolumeStatus};
use crate::proto::csi::validate_volume_capabilities_response::Confirmed;
use crate::request::{self, Capability, Parameters, RequestError, VOLUME_SIZE_MIN_BYTES};

impl Controller {
    pub(super) async fn validate(
        &self,
        r: csi::ValidateVolumeCapabilitiesRequest,
    ) -> Result<csi::ValidateVolumeCapabilitiesResponse, ControllerError> {
        let volume = request::identifier("volume_id", &r.volume_id)?;
        if r.volume_capabilities.is_empty() {
            return Err(RequestError::Missing("volume_capabilities").into());
        }
        self.existing_namespace(&volume).await?;
        let checked = Capability::parse_all(&r.volume_capabilities)
            .and_then(|_| Parameters::parse(&r.parameters));
        Ok(match checked {
            Ok(_) => csi::ValidateVolumeCapabilitiesResponse {
                confirmed: Some(Confirmed {
                    volume_context: r.volume_context,
                    volume_capabilities: r.volume_capabilities,
                    parameters: r.parameters,
                    mutable_parameters: r.mutable_parameters,
                }),
                message: String::new(),
            },
            Err(why) => csi::ValidateVolumeCapabilitiesResponse {
                confirmed: None,
                message: why.to_string(),
            },
        })
    }

    /// Room for new volumes. Every node reaches every volume, so the topology makes no difference.
    pub(super) async fn capacity(
        &self,
        r: csi::GetCapacityRequest,
    ) -> Result<csi::GetCapacityResponse, ControllerError> {
        let parameters = Parameters::parse(&r.parameters)?;
        let possible = r.volume_capabilities.is_empty()
            || Capability::parse_all(&r.volume_capabilities).is_ok();
        let targets = self.targets.list(&ListParams::default()).await;
        let targets = targets.map_err(ControllerError::api("list Targets"))?;
        let (all, largest) = if possible {
            objects::free_space(&targets.items, parameters.target.as_deref())
        } else {
            (0, 0)
        };
        Ok(csi::GetCapacityResponse {
            available_capacity: signed(all),
            maximum_volume_size: Some(signed(largest)),
            minimum_volume_size: Some(signed(VOLUME_SIZE_MIN_BYTES)),
        })
    }

    /// One page of volumes; the token is the API server's.
    pub(super) async fn list(
        &self,
        r: csi::ListVolumesRequest,
    ) -> Result<csi::ListVolumesResponse, ControllerError> {
        let limit = u32::try_from(r.max_entries).map_err(|_| {
            RequestError::Unsupported(format!("max_entries is {}, below 0", r.max_entries))
        })?;
        let mut params = ListParams::default();
        if limit > 0 {
            params = params.limit(limit);
        }
        if !r.starting_token.is_empty() {
            params = params.continue_token(&r.starting_token);
        }
        let page = match self.namespaces.list(&params).await {
            Ok(page) => page,
            // 400: not a token. 410: too old.
            Err(kube::Error::Api(s))
                if !r.starting_token.is_empty() && matches!(s.code, 400 | 410) =>
            {
                return Err(ControllerError::BadToken(r.starting_token));
            }
            Err(error) => return Err(ControllerError::api("list NVMeNamespaces")(error)),
        };
        let mut nodes = self.nodes_by_volume().await?;
        let next_token = page.metadata.continue_.unwrap_or_default();
        let entries = page.items.into_iter().map(|v| entry(v, &mut nodes));
        Ok(csi::ListVolumesResponse {
            entries: entries.collect(),
            next_token,
        })
    }

    async fn nodes_by_volume(&self) -> Result<BTreeMap<String, Vec<String>>, ControllerError> {
        let params = ListParams::default().labels(&objects::all_attachments());
        let list = self.attachments.list(&params).await;
        let list = list.map_err(ControllerError::api("list NVMeAttachments"))?;
        let mut nodes = BTreeMap::<String, Vec<String>>::new();
        for attachment in list.items {
            let spec = attachment.spec;
            nodes.entry(spec.namespace).or_default().push(spec.node);
        }
        Ok(nodes)
    }
}

fn entry(namespace: NVMeNamespace, nodes: &mut BTreeMap<String, Vec<String>>) -> Entry {
    let capacity_bytes = signed(objects::spec_size_bytes(&namespace));
    let volume_id = namespace.metadata.name.unwrap_or_default();
    let published_node_ids = nodes.remove(&volume_id).unwrap_or_default();
    Entry {
        volume: Some(csi::Volume {
            capacity_bytes,
            volume_id,
            ..Default::default()
        }),
        status: Some(VolumeStatus { published_node_ids }),
    }
}
