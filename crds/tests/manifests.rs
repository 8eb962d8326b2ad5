//! The YAML in the chart is what the types say, and what the API server will take.

use std::path::Path;

use roadstead_crds::manifests;
use serde_json::Value;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/roadstead/crds");

#[test]
fn the_chart_has_the_newest_yaml() {
    let manifests = manifests().expect("YAML");
    for manifest in &manifests {
        let path = Path::new(FOLDER).join(&manifest.file_name);
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == manifest.yaml,
            "{} is stale: run `cargo run -p roadstead-crds --bin crdgen`",
            path.display()
        );
    }
    let files = std::fs::read_dir(FOLDER).expect("the folder").count();
    assert_eq!(
        files,
        manifests.len(),
        "{FOLDER} has a file that no type makes: remove it"
    );
}

/// Goes through every part of a schema.
fn walk(schema: &Value, at: &str, f: &mut impl FnMut(&Value, &str)) {
    f(schema, at);
    if let Some(properties) = schema["properties"].as_object() {
        for (name, part) in properties {
            walk(part, &format!("{at}.{name}"), f);
        }
    }
    if schema["items"].is_object() {
        walk(&schema["items"], &format!("{at}[]"), f);
    }
}

#[test]
fn schemas_are_structural_described_and_bounded() {
    for manifest in manifests().expect("YAML") {
        let crd: Value = serde_yaml::from_str(&manifest.yaml).expect("YAML");
        let version = &crd["spec"]["versions"][0];
        assert!(version["subresources"]["status"].is_object());
        assert_eq!(crd["spec"]["scope"], "Cluster");
        let schema = &version["schema"]["openAPIV3Schema"];
        walk(schema, &manifest.file_name, &mut |part, at| {
            assert!(part["type"].is_string(), "{at} has no type");
            assert!(
                part["$ref"].is_null() && part["anyOf"].is_null(),
                "{at} is not structural"
            );
            let format = part["format"].as_str().unwrap_or("int64");
            assert!(
                ["int32", "int64", "date-time"].contains(&format),
                "{at}: Kubernetes knows no format {format}"
            );
            let described = at.ends_with("[]") || part["description"].is_string();
            assert!(
                described || !at.contains('.') || at.ends_with(".yaml"),
                "{at} says nothing"
            );
            keys_are_required(part, at);
            for rule in part["x-kubernetes-validations"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let message = rule["message"].as_str().unwrap_or_default();
                assert!(message.len() > 20, "{at}: a rule without a sentence");
            }
        });
        // Rules over unbounded strings or lists cost more than the API server allows.
        walk(
            &schema["properties"]["spec"],
            "spec",
            &mut |part, at| match part["type"].as_str() {
                Some("string") => assert!(part["maxLength"].is_u64(), "{at} has no bound"),
                Some("array") => assert!(part["maxItems"].is_u64(), "{at} has no bound"),
                _ => {}
            },
        );
    }
}

/// A list map's keys must be required in its items.
fn keys_are_required(part: &Value, at: &str) {
    for key in part["x-kubernetes-list-map-keys"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let required = part["items"]["required"].as_array();
        let required = required.is_some_and(|r| r.contains(key));
        assert!(required, "{at}: its items need not have {key}");
    }
}

#[test]
fn columns_lead_to_fields() {
    for manifest in manifests().expect("YAML") {
        let crd: Value = serde_yaml::from_str(&manifest.yaml).expect("YAML");
        let version = &crd["spec"]["versions"][0];
        for column in version["additionalPrinterColumns"]
            .as_array()
            .expect("columns")
        {
            let path = column["jsonPath"].as_str().expect("a path");
            if path.contains("conditions") || path.starts_with(".metadata") {
                continue;
            }
            let mut schema = &version["schema"]["openAPIV3Schema"];
            for name in path.trim_start_matches('.').split('.') {
                schema = &schema["properties"][name];
            }
            assert!(
                schema.is_object(),
                "{}: {path} leads nowhere",
                manifest.file_name
            );
        }
    }
}
