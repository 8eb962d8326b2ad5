//! The CSI identity service, the same for controller and node but for what "ready" means.

use std::path::PathBuf;
use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Client};
use roadstead_api::v1::GetReportRequest;
use roadstead_crds::NVMeNamespace;
use tonic::{Request, Response, Status};

use crate::proto::csi;
use crate::proto::csi::plugin_capability::{
    Service, Type, VolumeExpansion, service, volume_expansion,
};
use crate::rpc::{Rpc, Worth};

/// The driver's name, in StorageClasses, volumes and the kubelet's folders.
pub const DRIVER_NAME: &str = "csi.roadstead.io";

/// How long a probe may take; longer counts as not ready.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// What the driver cannot work without.
#[derive(Clone)]
pub enum Needs {
    /// The controller: the Kubernetes API, with our objects in it.
    Api(Client),
    /// The node: roadsteadd at this socket.
    Daemon(PathBuf),
}

impl Needs {
    /// Whether it is there now; if not, why.
    ///
    /// # Errors
    /// A sentence for people.
    pub async fn check(&self) -> Result<(), String> {
        let asked = async {
            match self {
                Self::Api(client) => Api::<NVMeNamespace>::all(client.clone())
                    .list(&ListParams::default().limit(1))
                    .await
                    .map(|_| ())
                    .map_err(|error| format!("the Kubernetes API does not list volumes: {error}")),
                Self::Daemon(socket) => daemon_answers(socket).await,
            }
        };
        tokio::time::timeout(PROBE_TIMEOUT, asked)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {PROBE_TIMEOUT:?}")))
    }
}

async fn daemon_answers(socket: &PathBuf) -> Result<(), String> {
    let mut daemon = roadstead_api::connect_unix(socket)
        .await
        .map_err(|error| error.to_string())?;
    daemon
        .get_report(GetReportRequest {})
        .await
        .map(|_| ())
        .map_err(|status| format!("roadsteadd does not report: {}", status.message()))
}

/// The service.
#[derive(Clone)]
pub struct Identity {
    needs: Needs,
    rpc: Rpc,
}

impl Identity {
    /// An identity that is ready when `needs` are met.
    pub fn new(needs: Needs, rpc: Rpc) -> Self {
        Self { needs, rpc }
    }
}

#[tonic::async_trait]
impl csi::identity_server::Identity for Identity {
    async fn get_plugin_info(
        &self,
        _: Request<csi::GetPluginInfoRequest>,
    ) -> Result<Response<csi::GetPluginInfoResponse>, Status> {
        Ok(Response::new(csi::GetPluginInfoResponse {
            name: DRIVER_NAME.into(),
            vendor_version: env!("CARGO_PKG_VERSION").into(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<csi::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<csi::GetPluginCapabilitiesResponse>, Status> {
        let service = |kind: service::Type| {
            Type::Service(Service {
                r#type: kind.into(),
            })
        };
        let expansion = Type::VolumeExpansion(VolumeExpansion {
            r#type: volume_expansion::Type::Online.into(),
        });
        let capabilities = [
            service(service::Type::ControllerService),
            service(service::Type::VolumeAccessibilityConstraints),
            expansion,
        ]
        .into_iter()
        .map(|kind| csi::PluginCapability { r#type: Some(kind) })
        .collect();
        Ok(Response::new(csi::GetPluginCapabilitiesResponse {
            capabilities,
        }))
    }

    async fn probe(
        &self,
        _: Request<csi::ProbeRequest>,
    ) -> Result<Response<csi::ProbeResponse>, Status> {
        let needs = self.needs.clone();
        let probe = async move {
            let ready = needs
                .check()
                .await
                .inspect_err(|why| tracing::warn!(why, "not ready"))
                .is_ok();
            Ok::<_, Status>(csi::ProbeResponse { ready: Some(ready) })
        };
        self.rpc
            .run("Probe", Worth::Debug, String::new(), probe)
            .await
    }
}
