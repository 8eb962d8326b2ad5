//! The CSI controller service: volumes and attachments are objects of the Kubernetes API, which the operator makes true.
//!
//! Every call may be repeated, and goes on where an earlier one stopped: what it made has a name that follows from the
//! request. A call waits for the operator, at most [`WAIT_MAX`].

mod claim;
mod error;
mod objects;
mod publish;
mod query;
mod volumes;

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use roadstead_crds::{NVMeAttachment, NVMeHost, NVMeNamespace, Target};
use tonic::{Request, Response, Status};

pub use error::ControllerError;

use crate::in_flight::{Guard, InFlight};
use crate::proto::csi;
use crate::proto::csi::controller_service_capability::{Rpc as RpcCapability, Type, rpc};
use crate::rpc::{Rpc, Worth};

/// How long a call waits for the operator. The side cars' own limit (`--timeout`) must be larger, so that they see the reason.
pub const WAIT_MAX: Duration = Duration::from_secs(45);

/// The service.
#[derive(Clone)]
pub struct Controller {
    client: Client,
    namespaces: Api<NVMeNamespace>,
    attachments: Api<NVMeAttachment>,
    targets: Api<Target>,
    hosts: Api<NVMeHost>,
    in_flight: InFlight,
    wait_max: Duration,
    rpc: Rpc,
}

impl Controller {
    /// A controller that works through `client`; a call waits at most `wait_max` for the operator, [`WAIT_MAX`] as a rule.
    pub fn new(client: Client, wait_max: Duration, rpc: Rpc) -> Self {
        Self {
            namespaces: Api::all(client.clone()),
            attachments: Api::all(client.clone()),
            targets: Api::all(client.clone()),
            hosts: Api::all(client.clone()),
            client,
            in_flight: InFlight::default(),
            wait_max,
            rpc,
        }
    }

    fn begin(&self, volume: &str, key: String) -> Result<Guard, ControllerError> {
        self.in_flight
            .begin(key)
            .ok_or_else(|| ControllerError::Busy(volume.to_owned()))
    }

    /// Watches the object `name` until `judge` has a verdict. The judge sees `None` while the object does not exist, and
    /// leaves in `why` what it waits for, which the error says after `wait_max`.
    async fn watch_until<K, R>(
        &self,
        api: &Api<K>,
        name: &str,
        what: impl FnOnce() -> String,
        mut judge: impl FnMut(Option<K>, &mut String) -> Option<Result<R, ControllerError>>,
    ) -> Result<R, ControllerError>
    where
        K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
    {
        let mut why = String::new();
        let watched = async {
            let mut states = pin!(watch_object(api.clone(), name).default_backoff());
            while let Some(state) = states.next().await {
                match state {
                    Ok(object) => {
                        if let Some(verdict) = judge(object, &mut why) {
                            return Some(verdict);
                        }
                    }
                    // The stream starts again by itself.
                    Err(error) => why = format!("the Kubernetes API: {error}"),
                }
            }
            None
        };
        let verdict = tokio::time::timeout(self.wait_max, watched).await;
        verdict.ok().flatten().unwrap_or_else(|| {
            Err(ControllerError::NotInTime {
                what: what(),
                limit_s: self.wait_max.as_secs(),
                why,
            })
        })
    }
}

#[tonic::async_trait]
impl csi::controller_server::Controller for Controller {
    async fn create_volume(
        &self,
        request: Request<csi::CreateVolumeRequest>,
    ) -> Result<Response<csi::CreateVolumeResponse>, Status> {
        let (this, r) = (self.clone(), request.into_inner());
        self.rpc
            .run("CreateVolume", Worth::Line, r.name.clone(), async move {
                this.create(r).await
            })
            .await
    }

    async fn delete_volume(
        &self,
        request: Request<csi::DeleteVolumeRequest>,
    ) -> Result<Response<csi::DeleteVolumeResponse>, Status> {
        let (this, r) = (self.clone(), request.into_inner());
        self.rpc
            .run(
                "DeleteVolume",
                Worth::Line,
                r.volume_id.clone(),
                async move { this.delete(r).await },
            )
            .await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<csi::ControllerPublishVolumeRequest>,
    ) -> Result<Response<csi::ControllerPublishVolumeResponse>, Status> {
        let (this, r) = (self.clone(), request.into_inner());
        self.rpc
            .run(
                "ControllerPublishVolume",
                Worth::Line,
                r.volume_id.clone(),
                async move { this.publish(r).await },
            )
            .await
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<csi::ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<csi::ControllerUnpublishVolumeResponse>, Status> {
        let (this, r) = (self.clone(), request.into_inner());
        self.rpc
            .run(
                "ControllerUnpublishVolume",
                Worth::Line,
                r.volume_id.clone(),
                async move { this.unpublish(r).await },
            )
            .await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<csi::ValidateVolumeCapabilitiesResponse>, Status> {
        let (this, r) = (self.clone(), request.into_inner());
        self.rpc
            .run(
                "ValidateVolumeCapabilities",
                Worth::Debug,
                r.volume_id.clone(),
                async move { this.validate(r).await },
            )
            .await
    }

    async fn list_volumes(
        &self,
        request: Request<csi::ListVolumesRequest>,
    ) -> Result<Response<csi::ListVolumesResponse>, Status> {
        let (this, r) = (self.clone(), request.into_inner());
        self.rpc
            .run("ListVolumes", Worth::Debug, String::new(), async move {
                this.list(r).await
            })
            .await
    }

    async fn get_capacity(
        &self,
        request: Request<csi::GetCapacityRequest>,
    ) -> Result<Response<csi::GetCapacityResponse>, Status> {
        let (this, r) = (self.clone(), request.into_inner());
        self.rpc
            .run("GetCapacity", Worth::Debug, String::new(), async move {
                this.capacity(r).await
            })
            .await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<csi::ControllerGetCapabilitiesResponse>, Status> {
        let capabilities = [
            rpc::Type::CreateDeleteVolume,
            rpc::Type::PublishUnpublishVolume,
            rpc::Type::ListVolumes,
            rpc::Type::GetCapacity,
            rpc::Type::PublishReadonly,
            rpc::Type::ExpandVolume,
            rpc::Type::ListVolumesPublishedNodes,
            rpc::Type::SingleNodeMultiWriter,
        ]
        .into_iter()
        .map(|kind| csi::ControllerServiceCapability {
            r#type: Some(Type::Rpc(RpcCapability {
                r#type: kind.into(),
            })),
        })
        .collect();
        Ok(Response::new(csi::ControllerGetCapabilitiesResponse {
            capabilities,
        }))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<csi::ControllerExpandVolumeRequest>,
    ) -> Result<Response<csi::ControllerExpandVolumeResponse>, Status> {
        let (this, r) = (self.clone(), request.into_inner());
        self.rpc
            .run(
                "ControllerExpandVolume",
                Worth::Line,
                r.volume_id.clone(),
                async move { this.expand(r).await },
            )
            .await
    }
}
