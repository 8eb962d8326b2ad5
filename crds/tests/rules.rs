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

fn appliance(external: Value) -> Value {
    json!({"metadata": {"name": "t"}, "spec": {"external": external}})
}

#[test]
fn what_an_appliance_may_be() {
    let nqn = "nqn.2014-08.com.example:array";
    let portal = json!([{"address": "192.0.2.1", "port": 4420, "transport": "tcp"}]);
    let accepted = [
        json!({"discovery": portal}),
        json!({"discovery": portal, "nqn": nqn}),
        json!({"nqn": nqn, "portals": [{"address": "2001:db8::1", "port": 4420, "transport": "rdma"}]}),
        json!({"nqn": nqn, "portals": portal, "secretRef": {"name": "s"}}),
    ];
    for external in accepted {
        let verdict = judge::<Target>(&appliance(external.clone()), None);
        assert_eq!(verdict, "", "{external}");
    }
    let refused = [
        (json!({"nqn": nqn}), "exactly one of discovery"),
        (
            json!({"nqn": nqn, "portals": portal, "discovery": portal}),
            "exactly one of discovery",
        ),
        (json!({"portals": portal}), "give its nqn"),
        (
            json!({"nqn": "iqn.2014-08.com.example:array", "portals": portal}),
            "name of an NVM subsystem",
        ),
        (
            json!({"nqn": "nqn.2014-08.org.nvmexpress.discovery", "portals": portal}),
            "name of an NVM subsystem",
        ),
        (
            json!({"discovery": [{"address": "array.example", "port": 4420, "transport": "tcp"}]}),
            "is an IP address",
        ),
    ];
    for (external, words) in refused {
        let verdict = judge::<Target>(&appliance(external.clone()), None);
        assert!(verdict.contains(words), "{external}: {verdict}");
    }
    let mut both = appliance(json!({"discovery": portal}));
    both["spec"]["node"] = "n".into();
    assert!(judge::<Target>(&both, None).contains("either the drives"));
    let neither = json!({"metadata": {"name": "t"}, "spec": {}});
    assert!(judge::<Target>(&neither, None).contains("either the drives"));
    let mut drives = appliance(json!({"discovery": portal}));
    drives["spec"]["drives"] = json!([{"name": "a", "serial": "S"}]);
    assert!(judge::<Target>(&drives, None).contains("has no drives"));

    let old = appliance(json!({"nqn": nqn, "portals": portal}));
    let other = appliance(json!({"nqn": format!("{nqn}2"), "portals": portal}));
    assert!(judge::<Target>(&other, Some(&old)).contains("stays with its subsystem"));
    let more = json!([portal[0], {"address": "192.0.2.2", "port": 4420, "transport": "tcp"}]);
    let more = appliance(json!({"nqn": nqn, "portals": more}));
    assert_eq!(judge::<Target>(&more, Some(&old)), "");
    let verdict = judge::<Target>(&target(json!([])), Some(&old));
    assert!(verdict.contains("nor the reverse"), "{verdict}");
}

#[test]
fn what_a_namespace_of_an_appliance_may_be() {
    let uuid = "6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f31";
    let with =
        |external: Value| volume(json!({"blockSize": 4096, "target": "t", "external": external}));
    let nguid = "6f1c2b4e8a554f0e9a570d6e2d6f4f31";
    for external in [
        json!({"uuid": uuid}),
        json!({"nguid": nguid}),
        json!({"nguid": uuid}),
        json!({"nsid": 3, "nqn": "nqn.2014-08.com.example:array"}),
    ] {
        let verdict = judge::<NVMeNamespace>(&with(external.clone()), None);
        assert_eq!(verdict, "", "{external}");
    }
    for (external, words) in [
        (json!({}), "exactly one of uuid"),
        (json!({"uuid": uuid, "nsid": 1}), "exactly one of uuid"),
        (json!({"uuid": nguid}), "uuid is such as"),
        (json!({"nguid": "6f1c"}), "32 hexadecimal digits"),
    ] {
        let verdict = judge::<NVMeNamespace>(&with(external.clone()), None);
        assert!(verdict.contains(words), "{external}: {verdict}");
    }
    let old = with(json!({"nsid": 1}));
    let rows = [
        (json!({"blockSize": 4096, "target": "t"}), "size is needed"),
        (
            json!({"blockSize": 4096, "external": {"nsid": 1}}),
            "target says of which one",
        ),
        (
            json!({"size": "1Gi", "blockSize": 4096, "target": "t", "external": {"nsid": 1}}),
            "the size of an appliance's namespace is the appliance's",
        ),
        (
            json!({"blockSize": 4096, "target": "t", "external": {"nsid": 2}}),
            "external cannot be changed",
        ),
    ];
    for (spec, words) in rows {
        let verdict = judge::<NVMeNamespace>(&volume(spec.clone()), Some(&old));
        assert!(verdict.contains(words), "{spec}: {verdict}");
    }
}

#[test]
fn what_was_bound_stays_bound() {
    let with = |status: Value| {
        let mut volume = volume(json!({"blockSize": 4096, "target": "t", "external": {"nsid": 1}}));
        volume["status"] = status;
        volume
    };
    let nguid = "6f1c2b4e8a554f0e9a570d6e2d6f4f31";
    let bound = json!({"target": "t", "nqn": "q", "nsid": 1, "uuid": "u", "nguid": nguid, "capacityBytes": 1});
    let unbound = json!({"capacityBytes": 0});
    assert_eq!(
        judge::<NVMeNamespace>(&with(bound.clone()), Some(&with(unbound))),
        ""
    );
    let mut grown = bound.clone();
    grown["capacityBytes"] = 2.into();
    assert_eq!(
        judge::<NVMeNamespace>(&with(grown), Some(&with(bound.clone()))),
        ""
    );
    for (field, value) in [
        ("target", json!("x")),
        ("nqn", json!("x")),
        ("nsid", json!(2)),
        ("uuid", json!("x")),
        ("nguid", json!("x")),
        ("node", json!("x")),
        ("drive", json!("x")),
        ("uuid", Value::Null),
    ] {
        let mut other = bound.clone();
        match value.is_null() {
            true => drop(other.as_object_mut().expect("a map").remove(field)),
            false => other[field] = value,
        }
        let verdict = judge::<NVMeNamespace>(&with(other), Some(&with(bound.clone())));
        assert!(verdict.contains("was bound to"), "{field}: {verdict}");
    }
}
