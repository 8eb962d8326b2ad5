//! Calls that only look.

use roadstead_csi::proto::csi;
use roadstead_csi::proto::csi::controller_server::Controller as _;
use roadstead_csi::proto::csi::volume_capability::access_mode::Mode;
use tonic::{Code, Request};

use crate::bench::{MIB, bench, capability, create_request};

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
