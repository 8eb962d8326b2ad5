//! The CSI node service: from a volume to a device, a file system and a pod's folder.
//!
//! Nothing is remembered between calls: the kernel's mount table, the device's content and the dataplane's report say
//! how far an earlier call came, also one that was killed half way.

mod attacher;
mod error;
mod format;
mod mounts;
mod program;
mod publish;
mod stage;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::{Request, Response, Status};

pub use attacher::{Attacher, Daemon};
pub use error::NodeError;

use crate::in_flight::{Guard, InFlight};
use crate::proto::csi;
use crate::proto::csi::node_service_capability::{Rpc as RpcCapability, Type, rpc};
use crate::rpc::{Rpc, Worth};

/// The service.
pub struct Node<A> {
    name: String,
    volumes_max: i64,
    attacher: Arc<A>,
    in_flight: InFlight,
    rpc: Rpc,
}

impl<A> Clone for Node<A> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            volumes_max: self.volumes_max,
            attacher: self.attacher.clone(),
            in_flight: self.in_flight.clone(),
            rpc: self.rpc.clone(),
        }
    }
}

impl<A: Attacher> Node<A> {
    /// The node `name`, which takes at most `volumes_max` volumes at once.
    pub fn new(name: String, volumes_max: u32, attacher: A, rpc: Rpc) -> Self {
        Self {
            name,
            volumes_max: volumes_max.into(),
            attacher: Arc::new(attacher),
            in_flight: InFlight::default(),
            rpc,
        }
    }

    fn begin(&self, volume: &str) -> Result<Guard, NodeError> {
        self.in_flight
            .begin(volume)
            .ok_or_else(|| NodeError::Busy(volume.to_owned()))
    }
}

/// Runs what may block for as long as a device does.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NodeError> + Send + 'static,
) -> Result<T, NodeError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(NodeError::System {
                doing: "finish the operation".into(),
                source: std::io::Error::other(error),
            })
        })
}

#[tonic::async_trait]
impl<A: Attacher> csi::node_server::Node for Node<A> {
    async fn node_stage_volume(
        &self,
        request: Request<csi::NodeStageVolumeRequest>,
    ) -> Result<Response<csi::NodeStageVolumeResponse>, Status> {
        let (this, r) = (self.clone(), request.into_inner());
        self.rpc
            .run(
                "NodeStageVolume",
                Worth::Line,
                r.volume_id.clone(),
                async move { this.stage(r).await },
            )
            .await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<csi::NodeUnstageVolumeRequest>,
    ) -> Result<Response<csi::NodeUnstageVolumeResponse>, Status> {
        let (this, r) = (self.clone(), request.into_inner());
        self.rpc
            .run(
                "NodeUnstageVolume",
                Worth::Line,
                r.volume_id.clone(),
                async move { this.unstage(r).await },
            )
            .await
    }

    async fn node_publish_volume(
        &self,
        request: Request<csi::NodePublishVolumeRequest>,
    ) -> Result<Response<csi::NodePublishVolumeResponse>, Status> {
        let (this, r) = (self.clone(), request.into_inner());
        self.rpc
            .run(
                "NodePublishVolume",
                Worth::Line,
                r.volume_id.clone(),
                async move { this.publish(r).await },
            )
            .await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<csi::NodeUnpublishVolumeRequest>,
    ) -> Result<Response<csi::NodeUnpublishVolumeResponse>, Status> {
        let (this, r) = (self.clone(), request.into_inner());
        self.rpc
            .run(
                "NodeUnpublishVolume",
                Worth::Line,
                r.volume_id.clone(),
                async move { this.unpublish(r).await },
            )
            .await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<csi::NodeGetVolumeStatsRequest>,
    ) -> Result<Response<csi::NodeGetVolumeStatsResponse>, Status> {
        let (this, r) = (self.clone(), request.into_inner());
        self.rpc
            .run(
                "NodeGetVolumeStats",
                Worth::Debug,
                r.volume_id.clone(),
                async move { this.stats(r).await },
            )
            .await
    }

    async fn node_get_volume_health(
        &self,
        request: Request<csi::NodeGetVolumeHealthRequest>,
    ) -> Result<Response<csi::NodeGetVolumeHealthResponse>, Status> {
        let (this, r) = (self.clone(), request.into_inner());
        self.rpc
            .run(
                "NodeGetVolumeHealth",
                Worth::Debug,
                r.volume_id.clone(),
                async move { this.health(r).await },
            )
            .await
    }

    async fn node_expand_volume(
        &self,
        request: Request<csi::NodeExpandVolumeRequest>,
    ) -> Result<Response<csi::NodeExpandVolumeResponse>, Status> {
        let (this, r) = (self.clone(), request.into_inner());
        self.rpc
            .run(
                "NodeExpandVolume",
                Worth::Line,
                r.volume_id.clone(),
                async move { this.expand(r).await },
            )
            .await
    }

    async fn node_get_capabilities(
        &self,
        _: Request<csi::NodeGetCapabilitiesRequest>,
    ) -> Result<Response<csi::NodeGetCapabilitiesResponse>, Status> {
        let capabilities = [
            rpc::Type::StageUnstageVolume,
            rpc::Type::GetVolumeStats,
            rpc::Type::ExpandVolume,
            rpc::Type::SingleNodeMultiWriter,
            rpc::Type::GetVolumeHealth,
        ]
        .into_iter()
        .map(|kind| csi::NodeServiceCapability {
            r#type: Some(Type::Rpc(RpcCapability {
                r#type: kind.into(),
            })),
        })
        .collect();
        Ok(Response::new(csi::NodeGetCapabilitiesResponse {
            capabilities,
        }))
    }

    async fn node_get_info(
        &self,
        _: Request<csi::NodeGetInfoRequest>,
    ) -> Result<Response<csi::NodeGetInfoResponse>, Status> {
        let segments =
            BTreeMap::from([(roadstead_crds::TOPOLOGY_KEY.to_owned(), self.name.clone())]);
        Ok(Response::new(csi::NodeGetInfoResponse {
            node_id: self.name.clone(),
            max_volumes_per_node: self.volumes_max,
            accessible_topology: Some(csi::Topology { segments }),
        }))
    }
}
