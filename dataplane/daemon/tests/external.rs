//! Looking at appliances: the daemon's own target stands for one.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod common;

use std::net::TcpListener;

use common::*;
use roadstead_api::v1;
use tonic::Code;

const HOST: &str = "nqn.2014-08.com.example:host";

fn external(name: &str, address: std::net::SocketAddr) -> v1::External {
    v1::External {
        name: name.into(),
        nqn: roadstead_api::subsystem_nqn(VOLUME),
        portals: vec![portal(address)],
        ..Default::default()
    }
}

/// What is said of the appliance, once it was looked at and is as asked.
async fn seen(
    daemon: &Daemon,
    name: &str,
    is_so: impl Fn(&v1::ExternalReport) -> bool,
) -> v1::ExternalReport {
    let find = |report: &v1::NodeReport| {
        let mut externals = report.externals.iter();
        externals
            .find(|e| e.name == name && e.looked && is_so(e))
            .cloned()
    };
    let what = format!("appliance {name} is seen as it should be");
    let report = daemon
        .report_when(&what, |report| find(report).is_some())
        .await;
    find(&report).unwrap()
}

#[tokio::test]
async fn appliances_are_looked_at_as_the_host_that_the_state_says() {
    let dir = temporary();
    let daemon = Daemon::start(dir.path(), &[]).await;
    // The kernel accepts there, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free_address();
    let mut state = state(dir.path(), "1", address);
    state.subsystems[0].allow_any_host = false;
    state.subsystems[0].allowed_hosts = vec![HOST.into()];
    state.externals = vec![
        external("as-itself", address),
        v1::External {
            host_nqn: HOST.into(),
            host_id: VOLUME.into(),
            ..external("as-another", address)
        },
        external("silent", silent.local_addr().unwrap()),
        v1::External {
            name: "discovered".into(),
            discovery: vec![portal(address)],
            host_nqn: HOST.into(),
            host_id: VOLUME.into(),
            ..Default::default()
        },
    ];
    // The silent one keeps nobody waiting.
    daemon.apply(&state).await;
    for name in ["as-another", "discovered"] {
        let report = seen(&daemon, name, |e| {
            e.subsystems.iter().any(|s| !s.namespaces.is_empty())
        });
        let report = report.await;
        let subsystem = &report.subsystems[0];
        assert_eq!(subsystem.portals[0].reach(), v1::PortalReach::Reached);
        let namespace = &subsystem.namespaces[0];
        assert_eq!((namespace.nsid, namespace.uuid.as_str()), (1, VOLUME));
        assert_eq!(
            (namespace.size_bytes, namespace.block_size),
            (64 * MIB, 4096)
        );
    }
    for (name, words) in [("as-itself", "not allowed"), ("silent", "")] {
        let report = seen(&daemon, name, |e| !e.subsystems.is_empty()).await;
        let portal = &report.subsystems[0].portals[0];
        assert_eq!(portal.reach(), v1::PortalReach::Failed, "{portal:?}");
        assert!(
            portal.message.contains(words) && !portal.message.is_empty(),
            "{portal:?}"
        );
    }

    // What is taken out of the state is not looked at any more; what has changed is, at once.
    state.revision = "2".into();
    state.externals.truncate(2);
    state.externals[1].host_nqn.clear();
    state.externals[1].host_id.clear();
    let report = daemon.apply(&state).await;
    assert_eq!(report.externals.len(), 2);
    let failed = |e: &v1::ExternalReport| {
        let portals = e.subsystems.iter().flat_map(|s| &s.portals);
        portals
            .map(v1::ExternalPortal::reach)
            .eq([v1::PortalReach::Failed])
    };
    seen(&daemon, "as-another", failed).await;
    // It is kept with the state.
    daemon.kill();
    let daemon = Daemon::start(dir.path(), &[]).await;
    seen(&daemon, "as-another", |_| true).await;
}

#[tokio::test]
async fn an_attachment_names_an_appliance_that_the_node_knows() {
    let dir = temporary();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let request = |nguid: &str, nsid, external: &str| v1::AttachRequest {
        id: "a".into(),
        subsystem_nqn: roadstead_api::subsystem_nqn(VOLUME),
        nguid: nguid.into(),
        nsid,
        external: external.into(),
        paths: vec![portal("127.0.0.1:1".parse().unwrap())],
        method: "none".into(),
        ..Default::default()
    };
    let mut client = daemon.client().await;
    let mut refusal = async |request| {
        let status = client.attach(request).await.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let (code, why) = refusal(request("", 3, "array")).await;
    assert_eq!(code, Code::Unavailable, "{why}");
    assert!(why.contains("'array'"), "{why}");
    let (code, why) = refusal(request("xyz", 0, "")).await;
    assert_eq!(
        (code, why.starts_with("nguid: ")),
        (Code::InvalidArgument, true),
        "{why}"
    );
    let (code, why) = refusal(request("", 0, "")).await;
    assert_eq!(
        (code, why.starts_with("volume_uuid: ")),
        (Code::InvalidArgument, true),
        "{why}"
    );
    let both = v1::AttachRequest {
        volume_uuid: VOLUME.into(),
        ..request("", 3, "")
    };
    let (code, why) = refusal(both).await;
    assert_eq!(
        (code, why.contains("only one of")),
        (Code::InvalidArgument, true),
        "{why}"
    );
    let key = "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
    let with_key = |key: &str, external| v1::AttachRequest {
        keys: Some(v1::HostKeys {
            host: key.into(),
            controller: String::new(),
        }),
        ..request("", 3, external)
    };
    for (request, words) in [
        (with_key(&key[..40], ""), "keys: host: it does not have"),
        (with_key(key, "array"), "keys: those of an appliance"),
    ] {
        let (code, why) = refusal(request).await;
        assert_eq!(code, Code::InvalidArgument, "{why}");
        assert!(
            why.starts_with(words) && !why.contains("DHHC-1:00"),
            "{why}"
        );
    }
    let (code, why) = refusal(with_key(key, "")).await;
    assert_eq!(code, Code::FailedPrecondition, "{why}");
    // The name itself is no reason.
    let (code, why) = refusal(request("", 3, "")).await;
    assert_eq!(code, Code::FailedPrecondition, "{why}");
    assert!(why.contains("attach method none"), "{why}");
}
