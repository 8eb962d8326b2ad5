//! How the node service makes itself known to the kubelet, without a side car.
//!
//! The kubelet watches its `plugins_registry` folder, calls `GetInfo` at every socket that appears there, connects to
//! the endpoint it is told and says how that went. After a failure the kubelet tries again by itself.

use std::io;
use std::path::{Path, PathBuf};

use tonic::{Request, Response, Status};
use tracing::{info, warn};

use crate::identity::DRIVER_NAME;
use crate::proto::registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse, registration_server,
};

/// The version of CSI that the kubelet is told: it looks at the major number alone.
const CSI_VERSION: &str = "1.0.0";

/// A file name, as part of a socket's path, with which the kubelet can call us.
///
/// The kubelet's gRPC library sends the socket's whole path, its slashes escaped, as the `:authority` of each request.
/// A host name with escapes is malformed, and our HTTP library refuses it. What stands before an `@` is no host name
/// and may have escapes, so a path whose last part has an `@` makes a request that both accept.
fn callable(name: &str) -> String {
    format!("{name}@kubelet.sock")
}

/// Where the registration socket must be, below the kubelet's folder.
pub fn registration_socket(kubelet_dir: &Path) -> PathBuf {
    let registry = kubelet_dir.join("plugins_registry");
    registry.join(callable(DRIVER_NAME))
}

/// The service.
#[derive(Clone, Debug)]
pub struct Registration {
    endpoint: PathBuf,
}

impl Registration {
    /// Registers the driver's socket, by a link to it that the kubelet can call.
    ///
    /// # Errors
    /// The link cannot be made.
    pub fn new(socket: &Path) -> io::Result<Self> {
        let endpoint = socket.with_file_name(callable("csi"));
        match std::fs::remove_file(&endpoint) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let name = socket.file_name().unwrap_or_default();
        std::os::unix::fs::symlink(name, &endpoint)?;
        Ok(Self { endpoint })
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::codegen::http::uri::Authority;

    /// What the kubelet sends as the authority: everything but letters, digits and the characters that RFC 3986 allows
    /// in an authority is escaped.
    fn authority_of(path: &Path) -> String {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]@".contains(&b);
        let text = path.to_str().unwrap();
        let parts = text.bytes().map(|b| {
            if allowed(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        });
        parts.collect()
    }

    #[test]
    fn the_kubelet_can_call_both_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("csi.sock");
        std::fs::write(&socket, "").unwrap();
        for _ in 0..2 {
            let endpoint = Registration::new(&socket).unwrap().endpoint;
            assert_eq!(
                endpoint.canonicalize().unwrap(),
                socket.canonicalize().unwrap()
            );
            assert!(Authority::try_from(authority_of(&endpoint)).is_ok());
        }
        let registration = registration_socket(Path::new("/var/lib/kubelet"));
        let authority = authority_of(&registration);
        assert!(authority.starts_with("%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2F"));
        assert!(Authority::try_from(authority).is_ok());
        // The reason for all this.
        assert!(Authority::try_from(authority_of(&socket)).is_err());
    }
}
