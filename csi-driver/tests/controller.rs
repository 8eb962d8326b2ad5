//! The controller service against an API server in memory.

// A failed helper of a test is a failed test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod fake_api;

use std::collections::BTreeMap;
use std::time::Duration;

use fake_api::{Does, FakeApi, ready};
use roadstead_csi::controller::Controller;
use roadstead_csi::proto::csi;
use roadstead_csi::proto::csi::controller_server::Controller as _;
use roadstead_csi::proto::csi::volume_capability::access_mode::Mode;
use roadstead_csi::proto::csi::volume_capability::{AccessMode, AccessType, MountVolume};
use roadstead_csi::request::PublishContext;
use roadstead_csi::rpc::Rpc;
use serde_json::{Value, json};
use tonic::{Code, Request, Status};

const MIB: i64 = 1 << 20;
const VOLUMES: &str = "nvmenamespaces";
const ATTACHMENTS: &str = "nvmeattachments";

struct Bench {
    api: FakeApi,
    controller: Controller,
}

/// A cluster with two nodes and a Target with 100 MiB left; the operator does nothing.
async fn idle() -> Bench {
    let (api, client) = FakeApi::start().await;
    for node in ["node1", "node2"] {
        api.put("nvmehosts", node, json!({"spec": {}}));
    }
    let drive = |name: &str, state: &str, free: i64| json!({"name": name, "state": state, "freeBytes": free});
    let drives = [
        drive("a", "Online", 60 * MIB + 5),
        drive("b", "Online", 40 * MIB),
        drive("c", "Missing", 900 * MIB),
    ];
    let target = json!({"spec": {"node": "node1", "drives": []}, "status": {"drives": drives}});
    api.put("targets", "t1", target);
    let wait_max = Duration::from_millis(300);
    let controller = Controller::new(client, wait_max, Rpc::default());
    Bench { api, controller }
}

/// The same with an operator that makes everything true at once.
async fn bench() -> Bench {
    let bench = idle().await;
    bench.api.operator(willing);
    bench
}

fn willing(plural: &str, object: &Value) -> Does {
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return Does::LetGo;
    }
    match plural {
        VOLUMES => {
            let size = object["spec"]["size"].as_str().unwrap();
            let size = roadstead_crds::quantity::parse_bytes(size).unwrap();
            Does::Status(json!({
                "conditions": ready(object, "True", "Online"), "capacityBytes": size,
                "target": "t1", "drive": "a", "nqn": "nqn.x", "uuid": "uuid-x",
            }))
        }
        ATTACHMENTS => Does::Status(json!({
            "conditions": ready(object, "True", "Allowed"),
            "paths": [{"transport": "tcp", "address": "10.0.0.1", "port": 4420, "state": "Available"}],
        })),
        _ => Does::Nothing,
    }
}

fn capability(mode: Mode) -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume::default())),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}

fn create_request(name: &str, size: i64, parameters: &[(&str, &str)]) -> csi::CreateVolumeRequest {
    let parameters = parameters.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    csi::CreateVolumeRequest {
        name: name.into(),
        capacity_range: Some(csi::CapacityRange {
            required_bytes: size,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![capability(Mode::SingleNodeWriter)],
        parameters: parameters.collect(),
        ..Default::default()
    }
}

impl Bench {
    async fn create(&self, request: csi::CreateVolumeRequest) -> Result<csi::Volume, Status> {
        let response = self.controller.create_volume(Request::new(request)).await?;
        Ok(response.into_inner().volume.unwrap())
    }

    async fn delete(&self, volume: &str) -> Result<(), Status> {
        let request = csi::DeleteVolumeRequest {
            volume_id: volume.into(),
        };
        self.controller
            .delete_volume(Request::new(request))
            .await
            .map(|_| ())
    }

    async fn publish(
        &self,
        volume: &str,
        node: &str,
        mode: Mode,
    ) -> Result<BTreeMap<String, String>, Status> {
        let request = csi::ControllerPublishVolumeRequest {
            volume_id: volume.into(),
            node_id: node.into(),
            volume_capability: Some(capability(mode)),
            ..Default::default()
        };
        let response = self
            .controller
            .controller_publish_volume(Request::new(request))
            .await?;
        Ok(response.into_inner().publish_context)
    }

    async fn unpublish(&self, volume: &str, node: &str) -> Result<(), Status> {
        let request = csi::ControllerUnpublishVolumeRequest {
            volume_id: volume.into(),
            node_id: node.into(),
        };
        let done = self
            .controller
            .controller_unpublish_volume(Request::new(request))
            .await;
        done.map(|_| ())
    }

    async fn expand(&self, volume: &str, required: i64, limit: i64) -> Result<i64, Status> {
        let request = csi::ControllerExpandVolumeRequest {
            volume_id: volume.into(),
            capacity_range: Some(csi::CapacityRange {
                required_bytes: required,
                limit_bytes: limit,
            }),
            ..Default::default()
        };
        let done = self
            .controller
            .controller_expand_volume(Request::new(request))
            .await?;
        Ok(done.into_inner().capacity_bytes)
    }

    async fn list(&self, max: i32, token: &str) -> Result<csi::ListVolumesResponse, Status> {
        let request = csi::ListVolumesRequest {
            max_entries: max,
            starting_token: token.into(),
        };
        let done = self.controller.list_volumes(Request::new(request)).await;
        done.map(tonic::Response::into_inner)
    }

    fn attachments(&self) -> Vec<String> {
        let names = self.api.names().into_iter();
        names
            .filter(|(plural, _)| plural == ATTACHMENTS)
            .map(|(_, name)| name)
            .collect()
    }
}

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
    assert_eq!(made["spec"], json!({"size": "6Mi", "blockSize": 512}));
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
    let bench = idle().await;
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
    bench.api.operator(willing);
    bench.create(request()).await.unwrap();
    assert_eq!(bench.api.get(VOLUMES, "v").unwrap()["metadata"]["uid"], uid);
}

#[tokio::test]
async fn deletion_waits_until_the_volume_is_gone() {
    let bench = bench().await;
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
    bench.api.operator(willing);
    bench.delete("v").await.unwrap();
    assert!(bench.api.get(VOLUMES, "v").is_none());
}

#[tokio::test]
async fn a_writer_has_the_volume_alone() {
    let bench = bench().await;
    bench.create(create_request("v", MIB, &[])).await.unwrap();
    let writer = Mode::SingleNodeWriter;
    for _ in 0..2 {
        let context = bench.publish("v", "node1", writer).await.unwrap();
        let context = PublishContext::from_map(&context).unwrap();
        assert_eq!(
            (context.nqn.as_str(), context.uuid.as_str()),
            ("nqn.x", "uuid-x")
        );
        assert_eq!(context.paths[0].port, 4420);
        assert!(!context.read_only);
    }
    assert_eq!(bench.attachments(), ["v"]);
    for mode in [writer, Mode::MultiNodeReaderOnly] {
        let error = bench.publish("v", "node2", mode).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
    }
    let error = bench
        .publish("v", "node1", Mode::SingleNodeReaderOnly)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);

    bench.unpublish("v", "node2").await.unwrap();
    assert_eq!(
        bench.attachments(),
        ["v"],
        "another node's attachment was taken"
    );
    for _ in 0..2 {
        bench.unpublish("v", "node1").await.unwrap();
    }
    bench.publish("v", "node2", writer).await.unwrap();
}

#[tokio::test]
async fn readers_share() {
    let bench = bench().await;
    bench.create(create_request("v", MIB, &[])).await.unwrap();
    for node in ["node1", "node2"] {
        let context = bench
            .publish("v", node, Mode::MultiNodeReaderOnly)
            .await
            .unwrap();
        assert!(PublishContext::from_map(&context).unwrap().read_only);
    }
    let error = bench
        .publish("v", "node2", Mode::SingleNodeWriter)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    let page = bench.list(0, "").await.unwrap();
    let mut nodes = page.entries[0].status.clone().unwrap().published_node_ids;
    nodes.sort();
    assert_eq!(nodes, ["node1", "node2"]);
    bench.unpublish("v", "node1").await.unwrap();
    assert_eq!(bench.attachments(), ["v.node2"]);
    bench.unpublish("v", "").await.unwrap();
    assert!(bench.attachments().is_empty());
}

#[tokio::test]
async fn two_nodes_cannot_both_win() {
    let bench = bench().await;
    bench.create(create_request("v", MIB, &[])).await.unwrap();
    // The other node's attachment appears after the look and before the write: its label is not there yet to be seen.
    let other = json!({"spec": {"namespace": "v", "node": "node2", "readOnly": false}});
    bench.api.put(ATTACHMENTS, "v", other);
    let error = bench
        .publish("v", "node1", Mode::SingleNodeWriter)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
}

#[tokio::test]
async fn unpublishing_waits_until_the_node_is_shut_out() {
    let bench = bench().await;
    bench.create(create_request("v", MIB, &[])).await.unwrap();
    bench
        .publish("v", "node1", Mode::SingleNodeWriter)
        .await
        .unwrap();
    bench.api.operator(|_, _| Does::Nothing);
    let error = bench.unpublish("v", "node1").await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    let early = bench
        .publish("v", "node1", Mode::SingleNodeWriter)
        .await
        .unwrap_err();
    assert_eq!(early.code(), Code::Aborted, "{early:?}");
    bench.api.operator(willing);
    bench.unpublish("v", "node1").await.unwrap();
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let bench = bench().await;
    let writer = Mode::SingleNodeWriter;
    bench.create(create_request("v", MIB, &[])).await.unwrap();
    for (volume, node) in [
        ("none", "node1"),
        ("No Object", "node1"),
        ("v", "node9"),
        ("v", "No Node"),
    ] {
        let error = bench.publish(volume, node, writer).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{volume} {node}: {error:?}");
    }
    assert!(bench.attachments().is_empty());
    bench.unpublish("none", "node1").await.unwrap();
    bench.unpublish("No Object", "").await.unwrap();
    assert_eq!(
        bench.expand("none", MIB, 0).await.unwrap_err().code(),
        Code::NotFound
    );
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

#[tokio::test]
async fn capacity() {
    let bench = bench().await;
    for (parameters, all, largest) in [
        (vec![], 100 * MIB, 60 * MIB),
        (vec![("target", "t1")], 100 * MIB, 60 * MIB),
        (vec![("target", "t2")], 0, 0),
    ] {
        let request = csi::GetCapacityRequest {
            parameters: create_request("", 0, &parameters).parameters,
            ..Default::default()
        };
        let answer = bench
            .controller
            .get_capacity(Request::new(request))
            .await
            .unwrap();
        let answer = answer.into_inner();
        assert_eq!(
            (answer.available_capacity, answer.maximum_volume_size),
            (all, Some(largest))
        );
    }
}

#[tokio::test]
async fn pages() {
    let bench = bench().await;
    for name in ["a", "b", "c"] {
        bench.create(create_request(name, MIB, &[])).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = bench.list(2, &token).await.unwrap();
        seen.extend(
            page.entries
                .into_iter()
                .map(|e| e.volume.unwrap().volume_id),
        );
        token = page.next_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["a", "b", "c"]);
    assert_eq!(
        bench.list(0, "nonsense").await.unwrap_err().code(),
        Code::Aborted
    );
    assert_eq!(
        bench.list(-1, "").await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn capabilities_are_confirmed_or_explained() {
    let bench = bench().await;
    bench.create(create_request("v", MIB, &[])).await.unwrap();
    for (volume, mode, expected) in [
        ("v", Mode::SingleNodeWriter, Ok(true)),
        ("v", Mode::MultiNodeMultiWriter, Ok(false)),
        ("none", Mode::SingleNodeWriter, Err(Code::NotFound)),
    ] {
        let request = csi::ValidateVolumeCapabilitiesRequest {
            volume_id: volume.into(),
            volume_capabilities: vec![capability(mode)],
            ..Default::default()
        };
        let answer = bench
            .controller
            .validate_volume_capabilities(Request::new(request))
            .await;
        let answer = answer
            .map(tonic::Response::into_inner)
            .map_err(|e| e.code());
        assert_eq!(
            answer
                .as_ref()
                .map(|a| a.confirmed.is_some())
                .map_err(|c| *c),
            expected
        );
        assert!(answer.is_err() || expected == Ok(true) || !answer.unwrap().message.is_empty());
    }
}

#[tokio::test]
async fn calls_that_are_not_served_are_unimplemented() {
    let bench = bench().await;
    let asked = Request::new(csi::Unserved {});
    let error = bench.controller.create_snapshot(asked).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
}
