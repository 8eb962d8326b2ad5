//! The operator's way in: mutual TLS, and nobody else.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod common;

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use roadstead_api::v1::node_client::NodeClient;
use roadstead_api::v1::{self};
use roadstead_api::{DATAPLANE_TLS_NAME, OPERATOR_TLS_NAME, TlsIdentity};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key for a name.
    fn leaf(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        (
            params.signed_by(&key, &self.0).unwrap().pem(),
            key.serialize_pem(),
        )
    }

    fn identity(&self, name: &str, trusted: &Authority) -> TlsIdentity {
        let (certificate, key) = self.leaf(name);
        TlsIdentity {
            ca_pem: trusted.pem().into_bytes(),
            certificate_pem: certificate.into_bytes(),
            key_pem: key.into_bytes(),
        }
    }

    /// The daemon's files, as the kubelet mounts a Secret: a directory behind a link that is swapped.
    fn mount(&self, tls: &Path, version: &str) {
        let data = tls.join(version);
        std::fs::create_dir_all(&data).unwrap();
        let (certificate, key) = self.leaf(DATAPLANE_TLS_NAME);
        for (name, text) in [
            ("ca.crt", self.pem()),
            ("tls.crt", certificate),
            ("tls.key", key),
        ] {
            std::fs::write(data.join(name), text).unwrap();
            let link = tls.join(name);
            if !link.exists() {
                let _ = std::fs::remove_file(&link);
                symlink(Path::new("..data").join(name), link).unwrap();
            }
        }
        let fresh = tls.join("..fresh");
        symlink(version, &fresh).unwrap();
        std::fs::rename(fresh, tls.join("..data")).unwrap();
    }
}

/// What the operator's first call gives.
async fn call(address: SocketAddr, identity: &TlsIdentity) -> Result<v1::NodeReport, String> {
    let mut client = roadstead_api::connect_mtls(address, identity)
        .await
        .map_err(|error| format!("{error:?}"))?;
    let report = client.get_report(v1::GetReportRequest {}).await;
    report
        .map(tonic::Response::into_inner)
        .map_err(|status| format!("{status:?}"))
}

async fn works(address: SocketAddr, identity: &TlsIdentity) {
    until("the operator is let in", async || {
        call(address, identity).await.ok()
    })
    .await;
}

#[tokio::test]
async fn only_the_operator_is_let_in() {
    let dir = temporary();
    let (ours, foreign) = (Authority::new(), Authority::new());
    let address = free_address();
    let tls = dir.path().join("tls");
    let (listen, tls_dir) = (address.to_string(), tls.to_str().unwrap().to_owned());
    let arguments = ["--control-listen", &listen, "--tls-dir", &tls_dir];
    let daemon = Daemon::start(dir.path(), &arguments).await;
    let operator = ours.identity(OPERATOR_TLS_NAME, &ours);
    assert!(
        call(address, &operator).await.is_err(),
        "there are no certificates yet"
    );
    ours.mount(&tls, "..1");
    works(address, &operator).await;
    assert_eq!(
        daemon.log_text().matches("waiting for usable ones").count(),
        1
    );

    let dataplane = ours.identity(DATAPLANE_TLS_NAME, &ours);
    assert!(
        call(address, &dataplane).await.is_err(),
        "another name of our authority"
    );
    let impostor = foreign.identity(OPERATOR_TLS_NAME, &ours);
    assert!(
        call(address, &impostor).await.is_err(),
        "the name from another authority"
    );
    assert!(
        without_certificate(address, &ours).await.is_err(),
        "no certificate"
    );
    let misled = ours.identity(OPERATOR_TLS_NAME, &foreign);
    assert!(
        call(address, &misled).await.is_err(),
        "a client that trusts somebody else"
    );
    let mut clear = NodeClient::new(
        Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect_lazy(),
    );
    assert!(
        clear.get_report(v1::GetReportRequest {}).await.is_err(),
        "no TLS at all"
    );
    works(address, &operator).await;

    // A new authority: the daemon takes it up without a restart, and lets the old one's clients in no more.
    foreign.mount(&tls, "..2");
    works(address, &foreign.identity(OPERATOR_TLS_NAME, &foreign)).await;
    assert!(call(address, &operator).await.is_err());
}

async fn without_certificate(address: SocketAddr, trusted: &Authority) -> Result<(), String> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(trusted.pem()))
        .domain_name(DATAPLANE_TLS_NAME);
    let endpoint = Endpoint::from_shared(format!("https://{address}"))
        .unwrap()
        .tls_config(tls);
    let channel: Channel = endpoint
        .unwrap()
        .connect()
        .await
        .map_err(|error| error.to_string())?;
    let report = NodeClient::new(channel)
        .get_report(v1::GetReportRequest {})
        .await;
    report.map(drop).map_err(|status| status.to_string())
}

#[tokio::test]
async fn the_operator_applies_and_does_not_attach() {
    let dir = temporary();
    let ours = Authority::new();
    let address = free_address();
    let tls = dir.path().join("tls");
    ours.mount(&tls, "..1");
    let (listen, tls_dir) = (address.to_string(), tls.to_str().unwrap().to_owned());
    let arguments = ["--control-listen", &listen, "--tls-dir", &tls_dir];
    let daemon = Daemon::start(dir.path(), &arguments).await;
    let operator = ours.identity(OPERATOR_TLS_NAME, &ours);
    works(address, &operator).await;
    let mut client = roadstead_api::connect_mtls(address, &operator)
        .await
        .unwrap();
    let state = v1::NodeState {
        revision: "1".into(),
        ..Default::default()
    };
    client
        .apply(v1::ApplyRequest { state: Some(state) })
        .await
        .unwrap();
    daemon.applied("1").await;
    assert!(client.watch(v1::WatchRequest {}).await.is_ok());
    let attach = client
        .attach(v1::AttachRequest::default())
        .await
        .unwrap_err();
    let detach = client
        .detach(v1::DetachRequest::default())
        .await
        .unwrap_err();
    let rescan = client
        .rescan(v1::RescanRequest::default())
        .await
        .unwrap_err();
    for status in [attach, detach, rescan] {
        assert_eq!(status.code(), Code::PermissionDenied);
    }
}
