//! Attaching over the control API: what is refused, with which code. What works needs devices, and is tested
//! where they are (the attach crate, the scenarios in virtual machines and in the cluster).
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod common;

use common::*;
use roadstead_api::v1;
use tonic::Code;

fn request() -> v1::AttachRequest {
    v1::AttachRequest {
        id: "a".into(),
        subsystem_nqn: roadstead_api::subsystem_nqn(VOLUME),
        volume_uuid: VOLUME.into(),
        paths: vec![portal("127.0.0.1:1".parse().unwrap())],
        ..Default::default()
    }
}

#[tokio::test]
async fn wrong_requests_are_refused_with_their_field() {
    let dir = temporary();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let mut client = daemon.client().await;
    let rdma = v1::Portal {
        transport: v1::Transport::Rdma.into(),
        ..request().paths[0].clone()
    };
    let cases = [
        (
            v1::AttachRequest {
                id: "../x".into(),
                ..request()
            },
            "id",
        ),
        (
            v1::AttachRequest {
                subsystem_nqn: "x".into(),
                ..request()
            },
            "subsystem_nqn",
        ),
        (
            v1::AttachRequest {
                volume_uuid: "x".into(),
                ..request()
            },
            "volume_uuid: 'x' is not",
        ),
        (
            v1::AttachRequest {
                paths: vec![],
                ..request()
            },
            "paths",
        ),
        (
            v1::AttachRequest {
                paths: vec![v1::Portal {
                    address: "0.0.0.0".into(),
                    ..rdma.clone()
                }],
                ..request()
            },
            "paths[0].address",
        ),
    ];
    for (request, part) in cases {
        let status = client.attach(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(part), "{part}: {status}");
    }
    let other = v1::AttachRequest {
        method: "magic".into(),
        ..request()
    };
    let status = client.attach(other).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let rdma_alone = v1::AttachRequest {
        method: "fuse".into(),
        paths: vec![rdma],
        ..request()
    };
    let status = client.attach(rdma_alone).await.unwrap_err();
    // Machines with an RDMA device try it.
    let wanted = [Code::FailedPrecondition, Code::Unavailable];
    assert!(wanted.contains(&status.code()), "{status}");
    assert!(status.message().to_lowercase().contains("rdma"), "{status}");
    assert_eq!(daemon.report().await.attachments, []);
}

#[tokio::test]
async fn what_is_not_attached_is_detached_and_cannot_be_rescanned() {
    let dir = temporary();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let mut client = daemon.client().await;
    client
        .detach(v1::DetachRequest { id: "a".into() })
        .await
        .unwrap();
    let status = client
        .rescan(v1::RescanRequest { id: "a".into() })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}
