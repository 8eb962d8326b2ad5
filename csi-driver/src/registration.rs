//! How the node service makes itself known to the kubelet, without a side car.
//!
//! The kubelet watches its `plugins_registry` folder, calls `GetInfo` at every socket that appears there, connects to
//! the endpoint it is told and says how that went. After a failure the kubelet tries again by itself.

use std::path::PathBuf;

use tonic::{Request, Response, Status};
use tracing::{info, warn};

use crate::identity::DRIVER_NAME;
use crate::proto::registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse, registration_server,
};

/// The version of CSI that the kubelet is told: it looks at the major number alone.
const CSI_VERSION: &str = "1.0.0";

/// The service.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The driver's socket, as the kubelet sees it.
    pub endpoint: PathBuf,
}

#[tonic::async_trait]
impl registration_server::Registration for Registration {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".into(),
            name: DRIVER_NAME.into(),
            endpoint: self.endpoint.to_string_lossy().into_owned(),
            supported_versions: vec![CSI_VERSION.into()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            info!("the kubelet registered the driver");
        } else {
            warn!(
                error = status.error,
                "the kubelet refused the driver and will try again"
            );
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
