//! The operator's way in: TCP with mutual TLS.
//!
//! Guaranteed: a client needs a certificate of our authority whose common name is the operator's; others
//! do not get through the handshake. Certificates are read again when their files change (a mounted Secret
//! is swapped by a symbolic link), and the port opens as soon as they exist.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use roadstead_api::OPERATOR_TLS_NAME;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How often the files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once; more wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 32;
/// Pause after the system refused to accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file does not hold what it should.
    #[error("{} does not hold {what}", path.display())]
    Content { path: PathBuf, what: &'static str },
    /// The parts do not fit together.
    #[error("the certificates in {} cannot be used: {why}", directory.display())]
    Unusable { directory: PathBuf, why: String },
}

/// The three files as they were read.
#[derive(PartialEq, Eq, Clone)]
struct Files {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(directory: &Path) -> Result<Self, TlsError> {
        let read = |name| {
            let path = directory.join(name);
            std::fs::read(&path).map_err(|source| TlsError::Read { path, source })
        };
        Ok(Self {
            ca: read("ca.crt")?,
            certificate: read("tls.crt")?,
            key: read("tls.key")?,
        })
    }

    fn server_config(&self, directory: &Path) -> Result<ServerConfig, TlsError> {
        let content = |name, what| {
            let path = directory.join(name);
            move || TlsError::Content { path, what }
        };
        let unusable = |why: String| TlsError::Unusable {
            directory: directory.to_owned(),
            why,
        };
        let certificates = |pem: &[u8]| -> Option<Vec<CertificateDer<'static>>> {
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            found.ok().filter(|found| !found.is_empty())
        };
        let mut roots = RootCertStore::empty();
        for ca in certificates(&self.ca).ok_or_else(content("ca.crt", "a certificate"))? {
            roots.add(ca).map_err(|error| unusable(error.to_string()))?;
        }
        let chain =
            certificates(&self.certificate).ok_or_else(content("tls.crt", "a certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| content("tls.key", "a private key")())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chains = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(error.to_string()))?
            .with_client_cert_verifier(Arc::new(OnlyOperator { chains }))
            .with_single_cert(chain, key)
            .map_err(|error| unusable(error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// A certificate of our authority is not enough: every dataplane has one.
#[derive(Debug)]
struct OnlyOperator {
    chains: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for OnlyOperator {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .chains
            .verify_client_cert(end_entity, intermediates, now)?;
        if is_operator(end_entity) {
            Ok(verified)
        } else {
            Err(rustls::CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Whether the certificate's one common name is the operator's.
fn is_operator(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return false;
    };
    let mut names = certificate.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str() == Ok(OPERATOR_TLS_NAME),
        _ => false,
    }
}

/// Keeps the configuration current; `None` until there is one.
pub(crate) async fn reload(directory: PathBuf, current: watch::Sender<Option<Arc<ServerConfig>>>) {
    let mut loaded = None;
    let mut complaint = String::new();
    loop {
        let fresh = Files::read(&directory).and_then(|files| {
            if loaded.as_ref() == Some(&files) {
                return Ok(None);
            }
            let config = files.server_config(&directory)?;
            Ok(Some((files, config)))
        });
        match fresh {
            Ok(None) => complaint.clear(),
            Ok(Some((files, config))) => {
                tracing::info!(directory = %directory.display(), "control certificates loaded");
                loaded = Some(files);
                complaint.clear();
                current.send_replace(Some(Arc::new(config)));
            }
            Err(error) => {
                // Once for each state of affairs, not every few seconds.
                let text = error.to_string();
                if text != complaint {
                    tracing::warn!(%error, "control certificates: waiting for usable ones");
                    complaint = text;
                }
            }
        }
        tokio::time::sleep(RELOAD_INTERVAL).await;
    }
}

/// Accepts connections and hands over those that passed the handshake.
pub(crate) async fn accept(
    listener: TcpListener,
    current: watch::Receiver<Option<Arc<ServerConfig>>>,
    passed: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a control connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(config) = current.borrow().clone() else {
            continue;
        };
        let passed = passed.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let _ = stream.set_nodelay(true);
            let handshake = TlsAcceptor::from(config).accept(stream);
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
                // The server has stopped if nobody takes it.
                Ok(Ok(stream)) => drop(passed.send(Ok(stream)).await),
                Ok(Err(error)) => tracing::warn!(%peer, %error, "control connection refused"),
                Err(_) => {
                    tracing::warn!(%peer, "control connection refused: the handshake took too long")
                }
            }
        });
    }
}
