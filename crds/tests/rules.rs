//! The CEL rules, evaluated without an API server: what they refuse, and in which words.

#![allow(clippy::expect_used)] // the helpers of the tests are test code

use kube::CustomResourceExt;
use kube::core::cel::Validator;
use roadstead_crds::transport::{Need, Workload};
use roadstead_crds::{NVMeAttachment, NVMeNamespace, Target, TransportPolicy, TransportPolicySpec};
use serde_json::{Value, json};

/// What the rules of `K` say of a change from `old` to `new`.
fn judge<K: CustomResourceExt>(new: &Value, old: Option<&Value>) -> String {
    let schema = serde_json::to_value(&K::crd().spec.versions[0].schema).expect("a schema");
    let schema = &schema["openAPIV3Schema"];
    match Validator::new().validate(schema, new, old) {
        Ok(()) => String::new(),
        Err(errors) => errors.to_string(),
    }
}

fn target(drives: Value) -> Value {
    json!({"metadata": {"name": "t"}, "spec": {"node": "n", "drives": drives}})
}

fn volume(spec: Value) -> Value {
    json!({"metadata": {"name": "v"}, "spec": spec})
}

#[test]
fn what_a_drive_may_be() {
    let refused = [
        (json!({"name": "a"}), "exactly one of"),
        (
            json!({"name": "a", "path": "/dev/sda", "serial": "S"}),
            "exactly one of",
        ),
        (json!({"name": "A", "serial": "S"}), "lower-case"),
        (json!({"name": "-a", "serial": "S"}), "lower-case"),
        (json!({"name": "a", "path": "sda"}), "starts with /dev/"),
        (
            json!({"name": "a", "file": {"path": "f", "size": "1Gi"}}),
            "is absolute",
        ),
        (
            json!({"name": "a", "file": {"path": "/a/../b", "size": "1Gi"}}),
            "no '..'",
        ),
        (
            json!({"name": "a", "file": {"path": "/dev/sda", "size": "1Gi"}}),
            "use 'path'",
        ),
        (
            json!({"name": "a", "file": {"path": "/f", "size": "1G b"}}),
            "quantity such as",
        ),
        (
            json!({"name": "a", "file": {"path": "/f", "size": "63Mi"}}),
            "at least 64Mi",
        ),
        (
            json!({"name": "a", "memory": {"size": "-1Gi"}}),
            "at least 64Mi",
        ),
    ];
    for (drive, words) in refused {
        let verdict = judge::<Target>(&target(json!([drive])), None);
        assert!(verdict.contains(words), "{drive}: {verdict}");
    }
    let accepted = [
        json!({"name": "a-1", "path": "/dev/disk/by-id/nvme-x"}),
        json!({"name": "a", "serial": "S"}),
        json!({"name": "a", "model": "M", "force": true}),
        json!({"name": "a", "file": {"path": "/var/lib/f", "size": "64Mi"}}),
        json!({"name": "a", "memory": {"size": "1Gi"}}),
    ];
    for drive in accepted {
        assert_eq!(
            judge::<Target>(&target(json!([drive])), None),
            "",
            "{drive}"
        );
    }
}

#[test]
fn what_may_become_of_a_drive() {
    let file = |size| json!({"name": "a", "file": {"path": "/f", "size": size}});
    let path = |path| json!({"name": "a", "path": path});
    let rows = [
        (path("/dev/sda"), path("/dev/sdb"), "cannot be changed"),
        (
            path("/dev/sda"),
            json!({"name": "a", "serial": "S"}),
            "cannot be changed",
        ),
        (file("1Gi"), file("1023Mi"), "cannot shrink"),
        (
            file("1Gi"),
            json!({"name": "a", "file": {"path": "/g", "size": "1Gi"}}),
            "cannot be changed",
        ),
        (file("1Gi"), file("1025Mi"), ""),
        (file("1Gi"), file("1024Mi"), ""),
        (
            path("/dev/sda"),
            json!({"name": "a", "path": "/dev/sda", "force": true}),
            "",
        ),
    ];
    for (old, new, words) in rows {
        let verdict = judge::<Target>(&target(json!([new])), Some(&target(json!([old]))));
        assert_eq!(
            verdict.is_empty(),
            words.is_empty(),
            "{old} to {new}: {verdict}"
        );
        assert!(verdict.contains(words), "{old} to {new}: {verdict}");
    }
    let mut moved = target(json!([]));
    moved["spec"]["node"] = "other".into();
    assert!(judge::<Target>(&moved, Some(&target(json!([])))).contains("stays on its node"));
}

#[test]
fn what_a_volume_may_be_and_become() {
    for size in ["", "10 Gi", "Gi", "0", "-1Gi", "0.5", "100m"] {
        let verdict =
            judge::<NVMeNamespace>(&volume(json!({"size": size, "blockSize": 4096})), None);
        assert!(verdict.contains("quantity such as"), "{size}: {verdict}");
    }
    let old = volume(json!({"size": "1Gi", "blockSize": 4096, "target": "t"}));
    let rows = [
        (
            json!({"size": "1024Mi", "blockSize": 4096, "target": "t"}),
            "",
        ),
        (
            json!({"size": "2Gi", "blockSize": 4096, "target": "t", "allowedNodes": ["n"]}),
            "",
        ),
        (
            json!({"size": "1023Mi", "blockSize": 4096, "target": "t"}),
            "cannot shrink",
        ),
        (
            json!({"size": "1Gi", "blockSize": 512, "target": "t"}),
            "blockSize cannot be changed",
        ),
        (
            json!({"size": "1Gi", "blockSize": 4096, "target": "u"}),
            "target cannot be changed",
        ),
        (
            json!({"size": "1Gi", "blockSize": 4096}),
            "target cannot be changed",
        ),
    ];
    for (spec, words) in rows {
        let verdict = judge::<NVMeNamespace>(&volume(spec.clone()), Some(&old));
        assert_eq!(verdict.is_empty(), words.is_empty(), "{spec}: {verdict}");
        assert!(verdict.contains(words), "{spec}: {verdict}");
    }
}

#[test]
fn a_placed_volume_stays_where_it_is() {
    let with = |status: Value| {
        let mut volume = volume(json!({"size": "1Gi", "blockSize": 4096}));
        volume["status"] = status;
        volume
    };
    let placed = json!({"uuid": "u", "target": "t", "drive": "d", "node": "n"});
    let unplaced = json!({"capacityBytes": 0});
    assert_eq!(
        judge::<NVMeNamespace>(&with(placed.clone()), Some(&with(unplaced))),
        ""
    );
    for field in ["uuid", "target", "drive", "node"] {
        let mut moved = placed.clone();
        moved[field] = "x".into();
        let verdict = judge::<NVMeNamespace>(&with(moved), Some(&with(placed.clone())));
        assert!(verdict.contains("does not move"), "{field}: {verdict}");
    }
}

#[test]
fn an_attachment_never_changes() {
    let attachment = |node| json!({"metadata": {"name": "a"}, "spec": {"namespace": "v", "node": node, "readOnly": false}});
    let verdict = judge::<NVMeAttachment>(&attachment("m"), Some(&attachment("n")));
    assert!(
        verdict.contains("delete it and create another"),
        "{verdict}"
    );
    assert_eq!(
        judge::<NVMeAttachment>(&attachment("n"), Some(&attachment("n"))),
        ""
    );
}

#[test]
fn a_row_of_a_policy_fits_something() {
    let policy = |tcp, roce| {
        let row = json!({"need": "direct-connect", "tcp": tcp, "roce": roce, "local": true});
        json!({"metadata": {"name": "p"}, "spec": {"rows": [row], "local": true}})
    };
    let verdict = judge::<TransportPolicy>(&policy(false, false), None);
    assert!(verdict.contains("a row must fit tcp or roce"), "{verdict}");
    assert_eq!(judge::<TransportPolicy>(&policy(false, true), None), "");
}

/// The words that a part of a schema allows.
fn words<K: CustomResourceExt>(pointer: &str) -> Value {
    let crd = serde_json::to_value(K::crd()).expect("a CRD");
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    crd.pointer(&format!("{spec}/{pointer}/enum"))
        .expect("words")
        .clone()
}

#[test]
fn unknown_words_are_refused_by_the_schema() {
    assert_eq!(
        words::<NVMeNamespace>("transport"),
        json!(["auto", "tcp", "roce"])
    );
    assert_eq!(words::<NVMeNamespace>("fallback"), json!(["tcp", "none"]));
    let workloads: Vec<&str> = Workload::ALL.iter().map(|w| w.word()).collect();
    assert_eq!(words::<NVMeNamespace>("workload"), json!(workloads));
    let needs: Vec<&str> = Need::ALL.iter().map(|n| n.word()).collect();
    assert_eq!(words::<NVMeNamespace>("needs/items"), json!(needs));
    assert_eq!(
        words::<TransportPolicy>("rows/items/properties/need"),
        json!(needs)
    );
    let error = "speed".parse::<Need>().expect_err("no need").to_string();
    assert!(
        error.starts_with("'speed' is no need; known are: standard-driver-and-nic, "),
        "{error}"
    );
}

#[test]
fn the_default_policy_has_every_row_and_every_workload() {
    let spec = TransportPolicySpec::default();
    let rows: Vec<Need> = spec.rows.iter().map(|row| row.need).collect();
    assert_eq!(rows, Need::ALL);
    let workloads: Vec<Workload> = spec.workloads.iter().map(|row| row.workload).collect();
    assert_eq!(workloads, Workload::ALL);
}
