//! What is refused, and what gives way.

use std::fs;
use std::process::Command;

use roadstead_csi::proto::csi::node_server::Node as _;
use roadstead_csi::proto::csi::volume_capability::access_mode::Mode;
use roadstead_csi::proto::csi::{
    NodeGetVolumeHealthRequest, NodeGetVolumeStatsRequest, NodeStageVolumeRequest,
};
use tonic::{Code, Request};

use crate::MIB;
use crate::loops::{bench, is_mounted, run};

#[tokio::test]
async fn a_published_volume_is_not_detached() {
    let Some(bench) = bench() else { return };
    bench.image("v", 64 * MIB);
    bench.stage("v", "ext4").await.unwrap();
    bench.publish("v", "pod", "ext4", false).await.unwrap();
    let error = bench.unstage("v").await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
    fs::write(bench.target("pod").join("file"), "still there").unwrap();
    bench.unpublish("v", "pod").await.unwrap();
    bench.unstage("v").await.unwrap();
}

#[tokio::test]
async fn nothing_is_published_that_is_not_staged() {
    let Some(bench) = bench() else { return };
    bench.image("v", 64 * MIB);
    for fs_type in ["ext4", ""] {
        let error = bench.publish("v", "pod", fs_type, false).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
    }
    // What was never there can be taken away.
    bench.unpublish("v", "pod").await.unwrap();
    bench.unstage("v").await.unwrap();
}

#[tokio::test]
async fn another_file_system_than_staged_is_not_published() {
    let Some(bench) = bench() else { return };
    bench.image("v", 64 * MIB);
    bench.stage("v", "ext4").await.unwrap();
    let error = bench.publish("v", "p", "xfs", false).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("ext4"), "{}", error.message());
    assert!(error.message().contains("xfs"), "{}", error.message());
    bench.publish("v", "p", "ext4", false).await.unwrap();
}

#[tokio::test]
async fn one_pod_alone() {
    let Some(bench) = bench() else { return };
    for fs_type in ["ext4", ""] {
        let volume = format!("v{fs_type}");
        let mode = Mode::SingleNodeSingleWriter;
        bench.image(&volume, 64 * MIB);
        bench.stage_as(&volume, fs_type, mode).await.unwrap();
        for _ in 0..2 {
            bench
                .publish_as(&volume, "one", fs_type, false, mode)
                .await
                .unwrap();
        }
        let second = bench.publish_as(&volume, "two", fs_type, false, mode).await;
        assert_eq!(second.unwrap_err().code(), Code::FailedPrecondition);
        bench.unpublish(&volume, "one").await.unwrap();
        bench
            .publish_as(&volume, "two", fs_type, false, mode)
            .await
            .unwrap();
        bench.unpublish(&volume, "two").await.unwrap();
        bench.unstage(&volume).await.unwrap();
    }
}

#[tokio::test]
async fn one_operation_a_volume() {
    let Some(bench) = bench() else { return };
    bench.image("v", 64 * MIB);
    let hold = bench.loops.hold();
    let node = bench.node.clone();
    let request = bench.stage_request("v", "ext4", Mode::SingleNodeWriter);
    let first = tokio::spawn(async move { node.node_stage_volume(Request::new(request)).await });
    bench.loops.until_waiting().await;
    assert_eq!(bench.unstage("v").await.unwrap_err().code(), Code::Aborted);
    assert_eq!(
        bench.stage("v", "ext4").await.unwrap_err().code(),
        Code::Aborted
    );
    // The caller hangs up: the operation goes on, and its repetition finds it done or running.
    first.abort();
    assert_eq!(
        bench.stage("v", "ext4").await.unwrap_err().code(),
        Code::Aborted
    );
    drop(hold);
    while let Err(error) = bench.stage("v", "ext4").await {
        assert_eq!(error.code(), Code::Aborted);
        tokio::task::yield_now().await;
    }
    assert!(is_mounted(&bench.staging("v")));
}

#[tokio::test]
async fn a_stale_mount_gives_way() {
    let Some(bench) = bench() else { return };
    bench.image("v", 64 * MIB);
    bench.stage("v", "ext4").await.unwrap();
    // The attachment ended without its unstaging and was made again with another device.
    let old = bench.loops.forget("v");
    bench.stage("v", "ext4").await.unwrap();
    let new = bench.device("v").unwrap();
    assert_ne!(old, new);
    bench.unstage("v").await.unwrap();
    assert!(!is_mounted(&bench.staging("v")));
    run(Command::new("losetup").arg("-d").arg(old));
}

#[tokio::test]
async fn data_below_a_mount_is_not_removed() {
    let Some(bench) = bench() else { return };
    let target = bench.target("pod");
    fs::create_dir_all(&target).unwrap();
    fs::write(target.join("file"), "not ours").unwrap();
    let error = bench.unpublish("v", "pod").await.unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error:?}");
    assert!(target.join("file").exists());
}

#[tokio::test]
async fn bad_requests() {
    let Some(bench) = bench() else { return };
    let stats = NodeGetVolumeStatsRequest {
        volume_id: "v".into(),
        ..Default::default()
    };
    let error = bench
        .node
        .node_get_volume_stats(Request::new(stats))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    for change in [
        |r: &mut NodeStageVolumeRequest| r.volume_id.clear(),
        |r: &mut NodeStageVolumeRequest| r.staging_target_path.clear(),
        |r: &mut NodeStageVolumeRequest| r.staging_target_path = "relative".into(),
        |r: &mut NodeStageVolumeRequest| r.volume_capability = None,
        |r: &mut NodeStageVolumeRequest| r.publish_context.clear(),
        |r: &mut NodeStageVolumeRequest| r.volume_id = "v".repeat(129),
    ] {
        let mut request = bench.stage_request("v", "ext4", Mode::SingleNodeWriter);
        change(&mut request);
        let error = bench
            .node
            .node_stage_volume(Request::new(request))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    }
    let health = NodeGetVolumeHealthRequest {
        volume_id: "v".into(),
        ..Default::default()
    };
    let health = bench
        .node
        .node_get_volume_health(Request::new(health))
        .await
        .unwrap();
    assert_eq!(
        health
            .into_inner()
            .volume_health
            .unwrap()
            .health_statuses
            .len(),
        1
    );
}
