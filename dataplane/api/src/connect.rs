//! Connecting to a dataplane's control API.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};

use crate::DATAPLANE_TLS_NAME;
use crate::v1::node_client::NodeClient;

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Silence after which the peer is asked for a sign of life.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long that sign may take before the connection is given up.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a dataplane could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing answers at the unix socket.
    #[error("cannot reach roadsteadd at {path}: {source}; is it running, and are you root?")]
    Socket {
        /// The socket's path.
        path: String,
        /// What the transport said.
        source: tonic::transport::Error,
    },
    /// Nothing answers at the address, or the TLS handshake failed.
    #[error("cannot reach the dataplane at {address}: {source}")]
    Tcp {
        /// The dataplane's address.
        address: SocketAddr,
        /// What the transport said.
        source: tonic::transport::Error,
    },
    /// The certificates cannot be used.
    #[error("the TLS identity cannot be used: {0}")]
    Identity(tonic::transport::Error),
}

/// What a client shows and trusts: PEM texts.
#[derive(Clone)]
pub struct TlsIdentity {
    /// Certificates of the authorities that may have signed the peer's.
    pub ca_pem: Vec<u8>,
    /// The client's certificate.
    pub certificate_pem: Vec<u8>,
    /// Its private key.
    pub key_pem: Vec<u8>,
}

/// Connects to the dataplane at a unix socket.
///
/// # Errors
/// [`ConnectError::Socket`] when nothing answers there.
pub async fn connect_unix(path: impl AsRef<Path>) -> Result<NodeClient<Channel>, ConnectError> {
    let path = path.as_ref().to_owned();
    let shown = path.display().to_string();
    // The URI names nothing: the connector below leads to the socket whatever it says.
    let channel = Endpoint::from_static("http://roadsteadd.invalid")
        .connect_timeout(CONNECT_TIMEOUT)
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .map_err(|source| ConnectError::Socket {
            path: shown,
            source,
        })?;
    Ok(NodeClient::new(channel))
}

/// Connects to the dataplane at `address` with mutual TLS; a peer that falls silent is noticed within
/// `KEEP_ALIVE_INTERVAL` and `KEEP_ALIVE_TIMEOUT`.
///
/// # Errors
/// [`ConnectError::Identity`] for unusable certificates, [`ConnectError::Tcp`] when nothing answers or the
/// peer is not a dataplane of this installation.
pub async fn connect_mtls(
    address: SocketAddr,
    identity: &TlsIdentity,
) -> Result<NodeClient<Channel>, ConnectError> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&identity.ca_pem))
        .identity(Identity::from_pem(
            &identity.certificate_pem,
            &identity.key_pem,
        ))
        .domain_name(DATAPLANE_TLS_NAME);
    let tcp = |source| ConnectError::Tcp { address, source };
    let channel = Endpoint::from_shared(format!("https://{address}"))
        .map_err(tcp)?
        .tls_config(tls)
        .map_err(ConnectError::Identity)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .connect()
        .await
        .map_err(tcp)?;
    Ok(NodeClient::new(channel))
}
