//! Creating, deleting and growing.

use roadstead_csi::proto::csi;
use roadstead_csi::proto::csi::volume_capability::access_mode::Mode;
use serde_json::json;
use tonic::Code;

use crate::bench::{
    LITTLE_PATIENCE, MIB, PATIENCE, VOLUMES, bench, capability, create_request, idle, willing,
};
use crate::fake_api::{CLAIMS, Does, NAMESPACES, ready};

#[tokio::test]
async fn the_same_name_is_the_same_volume() {
    let bench = bench().await;
    let request = || create_request("pvc-1", 5 * MIB + 1, &[("blockSize", "512")]);
    let first = bench.create(request()).await.unwrap();
    assert_eq!(
        (first.volume_id.as_str(), first.capacity_bytes),
        ("pvc-1", 6 * MIB)
    );
    let made = bench.api.get(VOLUMES, "pvc-1").unwrap();
    assert_eq!(
        made["spec"],
        json!({"size": "6Mi", "blockSize": 512, "transport": "auto", "workload": "general"})
    );
    assert_eq!(bench.create(request()).await.unwrap(), first);
    assert_eq!(
        bench.api.get(VOLUMES, "pvc-1").unwrap(),
        made,
        "written again"
    );

    for other in [
        create_request("pvc-1", 7 * MIB, &[("blockSize", "512")]),
        create_request("pvc-1", 6 * MIB, &[]),
        create_request("pvc-1", 6 * MIB, &[("blockSize", "512"), ("target", "t1")]),
    ] {
        assert_eq!(
            bench.create(other).await.unwrap_err().code(),
            Code::AlreadyExists
        );
    }
}

/// The request of a claim `data` in namespace `shop`.
fn of_claim(name: &str, parameters: &[(&str, &str)]) -> csi::CreateVolumeRequest {
    let claim = [
        ("csi.storage.k8s.io/pvc/name", "data"),
        ("csi.storage.k8s.io/pvc/namespace", "shop"),
    ];
    create_request(name, MIB, &[parameters, &claim].concat())
}

#[tokio::test]
async fn the_claim_and_its_namespace_have_a_say_in_the_transport() {
    let bench = bench().await;
    let class = [
        ("workload", "capacity"),
        ("needs", "direct-connect"),
        ("transportPolicy", "a"),
    ];
    let spec = |name: &str| bench.api.get(VOLUMES, name).unwrap()["spec"].clone();
    bench.create(of_claim("v1", &class)).await.unwrap();
    assert_eq!(spec("v1")["workload"], "capacity");
    assert_eq!(spec("v1")["needs"], json!(["direct-connect"]));
    assert_eq!(spec("v1")["transportPolicy"], "a");

    let annotations = json!({"roadstead.io/transport": "roce", "roadstead.io/fallback": "tcp",
        "roadstead.io/workload": "low-latency", "example.org/else": "x"});
    bench.api.put(
        CLAIMS,
        "data",
        json!({"metadata": {"annotations": annotations}}),
    );
    let around = json!({"metadata": {"annotations": {"roadstead.io/transport-policy": "b"}}});
    bench.api.put(NAMESPACES, "shop", around);
    bench.create(of_claim("v2", &class)).await.unwrap();
    assert_eq!(spec("v2")["transport"], "roce");
    assert_eq!(spec("v2")["fallback"], "tcp");
    assert_eq!(spec("v2")["workload"], "low-latency");
    assert_eq!(spec("v2")["needs"], json!(["direct-connect"]));
    assert_eq!(spec("v2")["transportPolicy"], "b");

    let annotations = json!({"roadstead.io/workload": "fast"});
    bench.api.put(
        CLAIMS,
        "data",
        json!({"metadata": {"annotations": annotations}}),
    );
    let refused = bench.create(of_claim("v3", &class)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let says = "annotation roadstead.io/workload: 'fast' is no workload; known are: general, ";
    assert!(refused.message().contains(says), "{}", refused.message());
    assert!(bench.api.get(VOLUMES, "v3").is_none());
}

#[tokio::test]
async fn any_name_that_csi_allows_is_possible() {
    let bench = bench().await;
    let long = "n".repeat(128);
    for name in ["UPPER case", "ä/ö", "-", long.as_str()] {
        let volume = bench.create(create_request(name, MIB, &[])).await.unwrap();
        assert!(
            bench.api.get(VOLUMES, &volume.volume_id).is_some(),
            "{name}"
        );
        bench
            .publish(&volume.volume_id, "node1", Mode::SingleNodeWriter)
            .await
            .unwrap();
        bench.unpublish(&volume.volume_id, "").await.unwrap();
        assert!(bench.attachments().is_empty());
        bench.delete(&volume.volume_id).await.unwrap();
        assert!(
            bench.api.get(VOLUMES, &volume.volume_id).is_none(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn bad_requests_make_nothing() {
    let bench = bench().await;
    let mut shared = create_request("v", MIB, &[]);
    shared.volume_capabilities = vec![capability(Mode::MultiNodeMultiWriter)];
    let mut clone = create_request("v", MIB, &[]);
    clone.volume_content_source = Some(csi::VolumeContentSource {});
    let mut mutable = create_request("v", MIB, &[]);
    mutable.mutable_parameters.insert("iops".into(), "7".into());
    for (request, hint) in [
        (create_request("", MIB, &[]), "name is missing"),
        (
            create_request("v", MIB, &[("replicas", "3")]),
            "known are: blockSize",
        ),
        (
            create_request("v", MIB, &[("target", "none")]),
            "there is no such Target",
        ),
        (create_request("v", -1, &[]), "no range"),
        (shared, "written on one node at a time"),
        (clone, "snapshot"),
        (mutable, "iops"),
    ] {
        let error = bench.create(request).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
        assert!(error.message().contains(hint), "{error:?}");
    }
    assert!(
        bench
            .api
            .names()
            .iter()
            .all(|(plural, _)| plural != VOLUMES)
    );
}

#[tokio::test]
async fn a_volume_without_room_leaves_nothing() {
    let bench = idle().await;
    bench.api.operator(|plural, object| match plural {
        _ if !object["metadata"]["deletionTimestamp"].is_null() => Does::LetGo,
        VOLUMES => Does::Status(json!({"conditions": ready(object, "False", "NoRoom")})),
        _ => Does::Nothing,
    });
    let error = bench
        .create(create_request("v", MIB, &[]))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().contains("because of NoRoom"), "{error:?}");
    assert!(bench.api.get(VOLUMES, "v").is_none());
    // Somebody made room.
    bench.api.operator(willing);
    bench.create(create_request("v", MIB, &[])).await.unwrap();
}

#[tokio::test]
async fn a_slow_operator_is_waited_for_and_found_again() {
    let mut bench = idle().await;
    bench.wait_at_most(LITTLE_PATIENCE);
    bench.api.operator(|plural, object| match plural {
        VOLUMES => Does::Status(json!({"conditions": ready(object, "False", "DriveOffline")})),
        _ => Does::Nothing,
    });
    let request = || create_request("v", MIB, &[]);
    let error = bench.create(request()).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(
        error.message().contains("because of DriveOffline"),
        "{error:?}"
    );
    let uid = bench.api.get(VOLUMES, "v").unwrap()["metadata"]["uid"].clone();

    let (one, two) = tokio::join!(bench.create(request()), bench.create(request()));
    let mut codes = [one, two].map(|result| result.unwrap_err().code());
    codes.sort_by_key(|code| *code as i32);
    assert_eq!(
        codes,
        [Code::DeadlineExceeded, Code::Aborted],
        "one at a time"
    );
    bench.wait_at_most(PATIENCE);
    bench.api.operator(willing);
    bench.create(request()).await.unwrap();
    assert_eq!(bench.api.get(VOLUMES, "v").unwrap()["metadata"]["uid"], uid);
}

#[tokio::test]
async fn deletion_waits_until_the_volume_is_gone() {
    let mut bench = bench().await;
    bench.delete("none").await.unwrap();
    bench.delete("No Object/Name").await.unwrap();
    bench.create(create_request("v", MIB, &[])).await.unwrap();
    bench
        .publish("v", "node1", Mode::SingleNodeWriter)
        .await
        .unwrap();
    let error = bench.delete("v").await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("node1"), "{error:?}");
    let kept = bench.api.get(VOLUMES, "v").unwrap();
    assert!(
        kept["metadata"]["deletionTimestamp"].is_null(),
        "deletion was begun"
    );
    bench.unpublish("v", "node1").await.unwrap();

    bench.api.operator(|_, _| Does::Nothing);
    bench.wait_at_most(LITTLE_PATIENCE);
    assert_eq!(
        bench.delete("v").await.unwrap_err().code(),
        Code::DeadlineExceeded
    );
    let again = bench
        .create(create_request("v", MIB, &[]))
        .await
        .unwrap_err();
    assert_eq!(again.code(), Code::Aborted, "{again:?}");
    let late = bench
        .publish("v", "node1", Mode::SingleNodeWriter)
        .await
        .unwrap_err();
    assert_eq!(late.code(), Code::Aborted, "{late:?}");
    bench.wait_at_most(PATIENCE);
    bench.api.operator(willing);
    bench.delete("v").await.unwrap();
    assert!(bench.api.get(VOLUMES, "v").is_none());
}

#[tokio::test]
async fn growth() {
    let bench = bench().await;
    bench
        .create(create_request("v", 10 * MIB, &[]))
        .await
        .unwrap();
    for (required, size) in [
        (20 * MIB - 5, 20 * MIB),
        (20 * MIB, 20 * MIB),
        (1, 20 * MIB),
    ] {
        assert_eq!(bench.expand("v", required, 0).await.unwrap(), size);
    }
    // Drive a has 60 MiB left; a size in the spec could not be taken back.
    for (required, limit) in [(81 * MIB, 0), (1, 15 * MIB)] {
        let error = bench.expand("v", required, limit).await.unwrap_err();
        assert_eq!(error.code(), Code::OutOfRange, "{error:?}");
        assert_eq!(bench.api.get(VOLUMES, "v").unwrap()["spec"]["size"], "20Mi");
    }
    bench.api.operator(|plural, object| match plural {
        VOLUMES => Does::Status(json!({
            "conditions": ready(object, "False", "NoRoomToGrow"), "capacityBytes": 20 * MIB,
        })),
        _ => Does::Nothing,
    });
    let error = bench.expand("v", 30 * MIB, 0).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange, "{error:?}");
}
