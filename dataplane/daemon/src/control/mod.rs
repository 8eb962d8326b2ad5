//! The control API's sockets: a unix socket for root on the node, TCP with mutual TLS for the operator.

mod service;
mod tls;

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use roadstead_api::v1::node_server::NodeServer;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;

use crate::http;
use crate::settings::ControlListen;
pub(crate) use service::{Node, Origin};

/// Largest message taken: ten thousand volumes fit several times.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Silence after which a peer is asked for a sign of life, and how long that may take.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long that sign may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that wait between handshake and service.
const ACCEPTED_MAX: usize = 16;

/// For root alone.
const SOCKET_MODE: u32 = 0o600;

/// Why the control API cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// The unix socket cannot be made.
    #[error("cannot listen at {}: {source}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    /// Another process answers there.
    #[error("another process listens at {}; is a second roadsteadd running?", path.display())]
    SocketInUse { path: PathBuf },
    /// The server ended.
    #[error("the control API ended: {0}")]
    Ended(#[from] tonic::transport::Error),
}

/// Binds the unix socket. The process's umask makes it the owner's alone before anyone can reach it.
pub(crate) fn bind_socket(path: &Path) -> Result<UnixListener, ControlError> {
    let failed = |source| ControlError::Socket {
        path: path.to_owned(),
        source,
    };
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ControlError::SocketInUse {
            path: path.to_owned(),
        });
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    Ok(listener)
}

/// Serves all calls at the unix socket.
pub(crate) async fn serve_socket(
    node: Arc<Node>,
    listener: UnixListener,
) -> Result<(), ControlError> {
    let incoming = UnixListenerStream::new(listener);
    let service = service::Service::new(node, Origin::Socket);
    Ok(Server::builder()
        .add_service(limits(service))
        .serve_with_incoming(incoming)
        .await?)
}

/// Serves the operator's calls at the TCP port, from the moment that there are certificates.
pub(crate) async fn serve_operator(
    node: Arc<Node>,
    listen: ControlListen,
) -> Result<(), ControlError> {
    let (config, mut current) = watch::channel(None);
    let reload = tokio::spawn(tls::reload(listen.tls_dir, config));
    let _reload = AbortOnDrop(reload);
    // An error would mean that `reload` ended, which it never does.
    let _ = current.wait_for(Option::is_some).await;
    let listener = http::listen(listen.address, "the operator").await;
    let (passed, incoming) = mpsc::channel(ACCEPTED_MAX);
    let _accept = AbortOnDrop(tokio::spawn(tls::accept(listener, current, passed)));
    let service = service::Service::new(node, Origin::Operator);
    Ok(Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .add_service(limits(service))
        .serve_with_incoming(ReceiverStream::new(incoming))
        .await?)
}

fn limits(service: service::Service) -> NodeServer<service::Service> {
    NodeServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// A task that ends with the one that needs it.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
