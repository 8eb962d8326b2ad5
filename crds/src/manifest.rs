//! The CRDs as YAML, the way they lie in the chart.

use kube::CustomResourceExt;

use crate::{NVMeAttachment, NVMeHost, NVMeNamespace, Target};

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
    ]
    .into_iter()
    .map(|crd| {
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
