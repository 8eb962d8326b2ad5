//! A controller, its API server, and the calls with few words.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Client;
use roadstead_csi::controller::Controller;
use roadstead_csi::proto::csi;
use roadstead_csi::proto::csi::controller_server::Controller as _;
use roadstead_csi::proto::csi::volume_capability::access_mode::Mode;
use roadstead_csi::proto::csi::volume_capability::{AccessMode, AccessType, MountVolume};
use roadstead_csi::rpc::Rpc;
use serde_json::{Value, json};
use tonic::{Request, Status};

use crate::fake_api::{Does, FakeApi, ready};

pub(crate) const MIB: i64 = 1 << 20;
pub(crate) const VOLUMES: &str = "nvmenamespaces";
pub(crate) const ATTACHMENTS: &str = "nvmeattachments";

/// How long a call waits for the operator. Generous: other tests share the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The same where the operator never answers.
pub(crate) const LITTLE_PATIENCE: Duration = Duration::from_secs(1);

pub(crate) struct Bench {
    pub(crate) api: FakeApi,
    pub(crate) controller: Controller,
    client: Client,
}

/// A cluster with two nodes and a Target with 100 MiB left; the operator does nothing.
pub(crate) async fn idle() -> Bench {
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
    Bench {
        api,
        controller: Controller::new(client.clone(), PATIENCE, Rpc::default()),
        client,
    }
}

/// The same with an operator that makes everything true at once.
pub(crate) async fn bench() -> Bench {
    let bench = idle().await;
    bench.api.operator(willing);
    bench
}

pub(crate) fn willing(plural: &str, object: &Value) -> Does {
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

pub(crate) fn capability(mode: Mode) -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume::default())),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}

pub(crate) fn create_request(
    name: &str,
    size: i64,
    parameters: &[(&str, &str)],
) -> csi::CreateVolumeRequest {
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
    /// The calls that follow wait at most this long for the operator.
    pub(crate) fn wait_at_most(&mut self, wait_max: Duration) {
        self.controller = Controller::new(self.client.clone(), wait_max, Rpc::default());
    }

    pub(crate) async fn create(
        &self,
        request: csi::CreateVolumeRequest,
    ) -> Result<csi::Volume, Status> {
        let response = self.controller.create_volume(Request::new(request)).await?;
        Ok(response.into_inner().volume.unwrap())
    }

    pub(crate) async fn delete(&self, volume: &str) -> Result<(), Status> {
        let request = csi::DeleteVolumeRequest {
            volume_id: volume.into(),
        };
        self.controller
            .delete_volume(Request::new(request))
            .await
            .map(|_| ())
    }

    pub(crate) async fn publish(
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

    pub(crate) async fn unpublish(&self, volume: &str, node: &str) -> Result<(), Status> {
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

    pub(crate) async fn expand(
        &self,
        volume: &str,
        required: i64,
        limit: i64,
    ) -> Result<i64, Status> {
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

    pub(crate) async fn list(
        &self,
        max: i32,
        token: &str,
    ) -> Result<csi::ListVolumesResponse, Status> {
        let request = csi::ListVolumesRequest {
            max_entries: max,
            starting_token: token.into(),
        };
        let done = self.controller.list_volumes(Request::new(request)).await;
        done.map(tonic::Response::into_inner)
    }

    pub(crate) fn attachments(&self) -> Vec<String> {
        let names = self.api.names().into_iter();
        names
            .filter(|(plural, _)| plural == ATTACHMENTS)
            .map(|(_, name)| name)
            .collect()
    }
}
