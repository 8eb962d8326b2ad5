//! Where block devices come from: the node's dataplane.

use std::path::PathBuf;

use roadstead_api::v1::{
    AttachRequest, AttachmentReport, DetachRequest, GetReportRequest, RescanRequest,
};
use tonic::Status;

use super::error::NodeError;
use crate::request::PublishContext;

/// Makes volumes block devices of this node. Every call may be repeated.
#[tonic::async_trait]
pub trait Attacher: Send + Sync + 'static {
    /// The volume's device, connected; the same device every time.
    async fn attach(
        &self,
        volume: &str,
        context: &PublishContext,
        read_only: bool,
    ) -> Result<AttachmentReport, NodeError>;

    /// No device and no connection for the volume any more.
    async fn detach(&self, volume: &str) -> Result<(), NodeError>;

    /// Gives the device the size that the target reports; returns it in bytes.
    async fn rescan(&self, volume: &str) -> Result<u64, NodeError>;

    /// The volume's attachment as it is.
    async fn find(&self, volume: &str) -> Result<Option<AttachmentReport>, NodeError>;
}

/// The real one: roadsteadd at its unix socket. Each call connects anew, so a restart of the daemon is never noticed.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// The socket.
    pub socket: PathBuf,
}

fn refused(doing: String) -> impl FnOnce(Status) -> NodeError {
    move |status| NodeError::Daemon {
        doing,
        status: Box::new(status),
    }
}

#[tonic::async_trait]
impl Attacher for Daemon {
    async fn attach(
        &self,
        volume: &str,
        context: &PublishContext,
        read_only: bool,
    ) -> Result<AttachmentReport, NodeError> {
        let request = AttachRequest {
            id: volume.to_owned(),
            subsystem_nqn: context.nqn.clone(),
            volume_uuid: context.uuid.clone(),
            nguid: context.nguid.clone(),
            nsid: context.nsid,
            external: context.external.clone(),
            paths: context.portals()?,
            read_only,
            method: context.method.clone(),
            ..Default::default()
        };
        let mut daemon = roadstead_api::connect_unix(&self.socket).await?;
        let doing = || format!("attach volume {volume}");
        let response = daemon.attach(request).await.map_err(refused(doing()))?;
        response
            .into_inner()
            .attachment
            .ok_or_else(|| refused(doing())(Status::internal("its answer names no attachment")))
    }

    async fn detach(&self, volume: &str) -> Result<(), NodeError> {
        let mut daemon = roadstead_api::connect_unix(&self.socket).await?;
        let request = DetachRequest {
            id: volume.to_owned(),
        };
        let detached = daemon.detach(request).await;
        detached.map_err(refused(format!("detach volume {volume}")))?;
        Ok(())
    }

    async fn rescan(&self, volume: &str) -> Result<u64, NodeError> {
        let mut daemon = roadstead_api::connect_unix(&self.socket).await?;
        let request = RescanRequest {
            id: volume.to_owned(),
        };
        let response = daemon.rescan(request).await;
        let response = response.map_err(refused(format!("rescan volume {volume}")))?;
        Ok(response.into_inner().size_bytes)
    }

    async fn find(&self, volume: &str) -> Result<Option<AttachmentReport>, NodeError> {
        let mut daemon = roadstead_api::connect_unix(&self.socket).await?;
        let report = daemon.get_report(GetReportRequest {}).await;
        let report = report.map_err(refused("report its attachments".into()))?;
        let attachments = report.into_inner().attachments;
        Ok(attachments.into_iter().find(|a| a.id == volume))
    }
}
