//! Volumes from staging to unstaging.

use std::fs;
use std::process::Command;

use roadstead_csi::proto::csi::node_server::Node as _;
use roadstead_csi::proto::csi::volume_capability::access_mode::Mode;
use roadstead_csi::proto::csi::volume_usage::Unit;
use roadstead_csi::proto::csi::{CapacityRange, NodeExpandVolumeRequest};
use tonic::{Code, Request};

use crate::MIB;
use crate::loops::{Bench, bench, can_grow_ext4, is_mounted, run};

#[tokio::test]
async fn ext4_lives_through_it_all_with_every_call_repeated() {
    let Some(bench) = bench() else { return };
    life(&bench, "ext4", 64 * MIB).await;
}

#[tokio::test]
async fn xfs_lives_through_it_all_with_every_call_repeated() {
    let Some(bench) = bench() else { return };
    life(&bench, "xfs", 320 * MIB).await;
}

async fn life(bench: &Bench, fs_type: &str, size: u64) {
    bench.image("v", size);
    for pod in ["first", "second"] {
        for _ in 0..2 {
            bench.stage("v", fs_type).await.unwrap();
        }
        for _ in 0..2 {
            bench.publish("v", pod, fs_type, false).await.unwrap();
        }
        let file = bench.target(pod).join("kept");
        if pod == "first" {
            fs::write(&file, "data").unwrap();
        }
        assert_eq!(fs::read(&file).unwrap(), b"data", "formatted again");

        let usage = bench.stats("v", pod).await.unwrap();
        assert_eq!(
            (usage[0].unit(), usage[1].unit()),
            (Unit::Bytes, Unit::Inodes)
        );
        assert!(usage[0].total > 0 && usage[0].available > 0 && usage[0].used >= 0);

        for _ in 0..2 {
            bench.unpublish("v", pod).await.unwrap();
        }
        assert!(!bench.target(pod).exists());
        assert_eq!(
            bench.stats("v", pod).await.unwrap_err().code(),
            Code::NotFound
        );
        for _ in 0..2 {
            bench.unstage("v").await.unwrap();
        }
        assert!(!is_mounted(&bench.staging("v")));
        assert!(bench.device("v").is_none());
    }
}

#[tokio::test]
async fn grows_while_mounted() {
    let Some(bench) = bench() else { return };
    for (volume, fs_type, size) in [("e", "ext4", 64 * MIB), ("x", "xfs", 320 * MIB)] {
        if fs_type == "ext4" && !can_grow_ext4() {
            eprintln!("skipped for ext4: needs CAP_SYS_RESOURCE, which this machine withholds");
            continue;
        }
        bench.image(volume, size);
        bench.stage(volume, fs_type).await.unwrap();
        bench.publish(volume, volume, fs_type, false).await.unwrap();
        let before = bench.stats(volume, volume).await.unwrap()[0].total;

        let request = || NodeExpandVolumeRequest {
            volume_id: volume.into(),
            volume_path: bench.target(volume).display().to_string(),
            capacity_range: Some(CapacityRange {
                required_bytes: i64::try_from(size * 2).unwrap(),
                limit_bytes: 0,
            }),
            ..Default::default()
        };
        let expand = || bench.node.node_expand_volume(Request::new(request()));
        assert_eq!(
            expand().await.unwrap_err().code(),
            Code::Aborted,
            "the target did not grow yet"
        );
        bench.image(volume, size * 2);
        for _ in 0..2 {
            let grown = expand().await.unwrap().into_inner();
            assert_eq!(u64::try_from(grown.capacity_bytes).unwrap(), size * 2);
        }
        let after = bench.stats(volume, volume).await.unwrap()[0].total;
        assert!(
            after > before * 3 / 2,
            "{fs_type}: {before} to {after} bytes"
        );
    }
    let absent = NodeExpandVolumeRequest {
        volume_id: "none".into(),
        volume_path: "/".into(),
        ..Default::default()
    };
    let error = bench
        .node
        .node_expand_volume(Request::new(absent))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn ext4_grows_at_the_next_staging() {
    let Some(bench) = bench() else { return };
    bench.image("v", 64 * MIB);
    bench.stage("v", "ext4").await.unwrap();
    bench.publish("v", "first", "ext4", false).await.unwrap();
    fs::write(bench.target("first").join("kept"), "data").unwrap();
    let before = bench.stats("v", "first").await.unwrap()[0].total;
    bench.unpublish("v", "first").await.unwrap();
    bench.unstage("v").await.unwrap();
    bench.image("v", 256 * MIB);
    for _ in 0..2 {
        bench.stage("v", "ext4").await.unwrap();
    }
    bench.publish("v", "second", "ext4", false).await.unwrap();
    let after = bench.stats("v", "second").await.unwrap()[0].total;
    assert!(after > before * 3, "{before} to {after} bytes");
    let kept = fs::read(bench.target("second").join("kept")).unwrap();
    assert_eq!(kept, b"data");
}

#[tokio::test]
async fn raw_block() {
    let Some(bench) = bench() else { return };
    bench.image("raw", 8 * MIB);
    for _ in 0..2 {
        bench.stage("raw", "").await.unwrap();
    }
    for _ in 0..2 {
        bench.publish("raw", "pod", "", false).await.unwrap();
    }
    let usage = bench.stats("raw", "pod").await.unwrap();
    assert_eq!(usage[0].total, 8 << 20);
    let target = bench.target("pod");
    run(Command::new("dd")
        .arg("if=/dev/urandom")
        .arg(format!("of={}", target.display()))
        .args([
            "bs=1M",
            "count=8",
            "oflag=direct",
            "conv=notrunc",
            "status=none",
        ]));
    let error = bench.unstage("raw").await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
    for _ in 0..2 {
        bench.unpublish("raw", "pod").await.unwrap();
    }
    assert!(!target.exists());
    bench.unstage("raw").await.unwrap();
    // The volume has data now: not for a file system any more.
    let error = bench.stage("raw", "ext4").await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
}

#[tokio::test]
async fn read_only() {
    let Some(bench) = bench() else { return };
    bench.image("v", 64 * MIB);
    let error = bench
        .stage_as("v", "ext4", Mode::MultiNodeReaderOnly)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
    bench.unstage("v").await.unwrap();

    bench.stage("v", "ext4").await.unwrap();
    bench.publish("v", "writer", "ext4", false).await.unwrap();
    fs::write(bench.target("writer").join("file"), "x").unwrap();
    bench.publish("v", "reader", "ext4", true).await.unwrap();
    let denied = fs::write(bench.target("reader").join("file"), "y").unwrap_err();
    assert_eq!(denied.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    // An earlier call that was killed before the mount became read-only.
    bench.unpublish("v", "reader").await.unwrap();
    bench.publish("v", "reader", "ext4", false).await.unwrap();
    bench.publish("v", "reader", "ext4", true).await.unwrap();
    assert!(fs::write(bench.target("reader").join("file"), "y").is_err());
    let error = bench
        .publish("v", "reader", "ext4", false)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists, "{error:?}");
    for pod in ["reader", "writer"] {
        bench.unpublish("v", pod).await.unwrap();
    }
    bench.unstage("v").await.unwrap();

    let mode = Mode::MultiNodeReaderOnly;
    for _ in 0..2 {
        bench.stage_as("v", "ext4", mode).await.unwrap();
        bench
            .publish_as("v", "reader", "ext4", false, mode)
            .await
            .unwrap();
    }
    assert_eq!(fs::read(bench.target("reader").join("file")).unwrap(), b"x");
    assert!(fs::write(bench.target("reader").join("file"), "y").is_err());
}
