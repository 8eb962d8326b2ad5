//! The CRDs as YAML, the way they lie in the chart.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;

use crate::{NVMeAttachment, NVMeHost, NVMeNamespace, Target, TransportPolicy};

/// One file of `charts/roadstead/crds`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Name of the file, without a folder.
    pub file_name: String,
    /// Its whole content.
    pub yaml: String,
}

/// Why the YAML could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the CRD {name} as YAML: {source}")]
pub struct ManifestError {
    name: String,
    source: serde_yaml::Error,
}

/// Every CRD, in the order of their names.
pub fn manifests() -> Result<Vec<Manifest>, ManifestError> {
    [
        NVMeAttachment::crd(),
        NVMeHost::crd(),
        NVMeNamespace::crd(),
        Target::crd(),
        TransportPolicy::crd(),
    ]
    .into_iter()
    .map(|mut crd| {
        drop_status_defaults(&mut crd);
        let plural = crd.spec.names.plural.clone();
        let yaml = serde_yaml::to_string(&crd).map_err(|source| ManifestError {
            name: plural.clone(),
            source,
        })?;
        Ok(Manifest {
            file_name: format!("{plural}.yaml"),
            yaml: format!(
                "# Generated from crds/: cargo run -p roadstead-crds --bin crdgen\n{yaml}"
            ),
        })
    })
    .collect()
}

/// A status is what was seen: nothing is filled in by the API server, which also refuses a default that the field's own
/// limits forbid.
fn drop_status_defaults(crd: &mut CustomResourceDefinition) {
    for version in &mut crd.spec.versions {
        let schema = version
            .schema
            .as_mut()
            .and_then(|s| s.open_api_v3_schema.as_mut());
        if let Some(status) = schema.and_then(|s| s.properties.as_mut()?.get_mut("status")) {
            drop_defaults(status);
        }
    }
}

fn drop_defaults(schema: &mut JSONSchemaProps) {
    schema.default = None;
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        drop_defaults(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &mut schema.items {
        drop_defaults(item);
        // What tells the items of a list apart must be there.
        for key in schema.x_kubernetes_list_map_keys.iter().flatten() {
            let required = item.required.get_or_insert_default();
            if !required.contains(key) {
                required.push(key.clone());
            }
        }
    }
}
