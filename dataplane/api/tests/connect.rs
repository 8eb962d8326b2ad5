//! The unix socket path, with a real server behind it.

use roadstead_api::v1::node_server::{Node, NodeServer};
use roadstead_api::v1::*;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

struct Empty;

#[tonic::async_trait]
impl Node for Empty {
    type WatchStream = tokio_stream::Iter<std::vec::IntoIter<Result<NodeReport, Status>>>;
    async fn apply(&self, _: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        Ok(Response::new(ApplyResponse {}))
    }
    async fn get_report(
        &self,
        _: Request<GetReportRequest>,
    ) -> Result<Response<NodeReport>, Status> {
        Ok(Response::new(NodeReport {
            applied_revision: "r1".into(),
            ..NodeReport::default()
        }))
    }
    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(tokio_stream::iter(Vec::new())))
    }
    async fn attach(&self, _: Request<AttachRequest>) -> Result<Response<AttachResponse>, Status> {
        Err(Status::unimplemented("no"))
    }
    async fn detach(&self, _: Request<DetachRequest>) -> Result<Response<DetachResponse>, Status> {
        Err(Status::unimplemented("no"))
    }
    async fn rescan(&self, _: Request<RescanRequest>) -> Result<Response<RescanResponse>, Status> {
        Err(Status::unimplemented("no"))
    }
}

#[tokio::test]
async fn unix_socket_reaches_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(NodeServer::new(Empty))
            .serve_with_incoming(UnixListenerStream::new(listener)),
    );
    let mut client = roadstead_api::connect_unix(&path).await.unwrap();
    let report = client.get_report(GetReportRequest {}).await.unwrap();
    assert_eq!(report.into_inner().applied_revision, "r1");
}

#[tokio::test]
async fn a_missing_socket_says_what_to_do() {
    let error = roadstead_api::connect_unix("/nonexistent/sock")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("is it running"), "{error}");
}
