//! Namespaces of foreign appliances as static volumes.

use roadstead_csi::proto::csi::volume_capability::access_mode::Mode;
use roadstead_csi::request::PublishContext;
use serde_json::{Value, json};
use tonic::Code;

use crate::bench::{Bench, MIB, VOLUMES, create_request, idle, willing};
use crate::fake_api::{Does, ready};

const NGUID: &str = "6f1c2b4e8a554f0e9a570d6e2d6f4f32";

/// An operator that finds namespaces of 5 MiB and a half: `u` has a UUID and an NGUID, `g` an NGUID, `n` neither.
fn finds(plural: &str, object: &Value) -> Does {
    let is_external = plural == VOLUMES && object["spec"]["external"].is_object();
    if !is_external || !object["metadata"]["deletionTimestamp"].is_null() {
        return willing(plural, object);
    }
    let mut status = json!({
        "conditions": ready(object, "True", "Online"), "capacityBytes": 5 * MIB + MIB / 2,
        "target": "x", "nqn": "nqn.x", "nsid": 3,
    });
    let name = object["metadata"]["name"].as_str().unwrap();
    if name == "u" {
        status["uuid"] = "uuid-u".into();
    }
    if name != "n" {
        status["nguid"] = NGUID.into();
    }
    Does::Status(status)
}

async fn cluster() -> Bench {
    let bench = idle().await;
    bench.api.operator(finds);
    let external = json!({"discovery": [{"address": "192.0.2.1"}]});
    bench
        .api
        .put("targets", "x", json!({"spec": {"external": external}}));
    for name in ["u", "g", "n"] {
        let spec = json!({"target": "x", "external": {"nsid": 3}});
        bench.api.put(VOLUMES, name, json!({"spec": spec}));
    }
    bench
}

#[tokio::test]
async fn the_node_is_told_the_name_that_was_recorded() {
    let bench = cluster().await;
    for (name, uuid, nguid, nsid) in [
        ("u", "uuid-u", "", 0),
        ("g", "", NGUID, 0),
        ("n", "", "", 3),
    ] {
        let map = bench
            .publish(name, "node1", Mode::SingleNodeWriter)
            .await
            .unwrap();
        let context = PublishContext::from_map(&map).unwrap();
        assert_eq!(
            (context.uuid.as_str(), context.nguid.as_str(), context.nsid),
            (uuid, nguid, nsid)
        );
        assert_eq!(
            (context.nqn.as_str(), context.external.as_str()),
            ("nqn.x", "x")
        );
        bench.unpublish(name, "node1").await.unwrap();
    }
    bench.delete("u").await.unwrap();
    assert!(bench.api.get(VOLUMES, "u").is_none());
}

#[tokio::test]
async fn nothing_is_made_or_grown_there() {
    let bench = cluster().await;
    let request = create_request("v", MIB, &[("target", "x")]);
    let error = bench.create(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("foreign appliance"), "{error}");
    assert!(bench.api.get(VOLUMES, "v").is_none());
    let error = bench
        .create(create_request("u", MIB, &[]))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);

    let spec = bench.api.get(VOLUMES, "u").unwrap()["spec"].clone();
    let error = bench.expand("u", 6 * MIB, 0).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("grow it there"), "{error}");
    // What was grown there, the claim may follow.
    let size = 5 * MIB + MIB / 2;
    assert_eq!(bench.expand("u", size, 0).await.unwrap(), size);
    assert_eq!(bench.api.get(VOLUMES, "u").unwrap()["spec"], spec);
    let listed = bench.list(0, "").await.unwrap().entries;
    assert!(
        listed
            .iter()
            .all(|e| e.volume.as_ref().unwrap().capacity_bytes == size)
    );
}
