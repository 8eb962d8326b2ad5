//! Letting nodes in and shutting them out.

use roadstead_csi::proto::csi::volume_capability::access_mode::Mode;
use roadstead_csi::request::PublishContext;
use serde_json::json;
use tonic::Code;

use crate::bench::{ATTACHMENTS, LITTLE_PATIENCE, MIB, PATIENCE, bench, create_request, willing};
use crate::fake_api::Does;

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
    let mut bench = bench().await;
    bench.create(create_request("v", MIB, &[])).await.unwrap();
    bench
        .publish("v", "node1", Mode::SingleNodeWriter)
        .await
        .unwrap();
    bench.api.operator(|_, _| Does::Nothing);
    bench.wait_at_most(LITTLE_PATIENCE);
    let error = bench.unpublish("v", "node1").await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    let early = bench
        .publish("v", "node1", Mode::SingleNodeWriter)
        .await
        .unwrap_err();
    assert_eq!(early.code(), Code::Aborted, "{early:?}");
    bench.wait_at_most(PATIENCE);
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
