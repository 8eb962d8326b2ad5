//! StorageClass parameters.

use std::collections::BTreeMap;

use super::transport::{POLICY, WORDS};
use super::{FileSystem, RequestError, TransportNeeds};

/// Name of the Target that the volume must live on.
const TARGET: &str = "target";
/// Logical block size in bytes.
const BLOCK_SIZE: &str = "blockSize";
/// The file system; the provisioner takes it out and gives it as a volume capability.
const FS_TYPE: &str = "csi.storage.k8s.io/fstype";
/// What a provisioner with --extra-create-metadata adds for people.
const CLAIM_NAME: &str = "csi.storage.k8s.io/pvc/name";
const CLAIM_NAMESPACE: &str = "csi.storage.k8s.io/pvc/namespace";
const PV_NAME: &str = "csi.storage.k8s.io/pv/name";

/// The parameters of a volume, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// The Target to live on.
    pub target: Option<String>,
    /// Logical block size in bytes: 512 or 4096.
    pub block_size: Option<u32>,
    /// The claim as `NAMESPACE/NAME`, for people.
    pub claim: Option<String>,
    /// What is asked of the transport.
    pub transport: TransportNeeds,
}

impl Parameters {
    /// Parses all of them.
    ///
    /// # Errors
    /// [`RequestError::UnknownParameter`] or [`RequestError::BadParameter`].
    pub fn parse(raw: &BTreeMap<String, String>) -> Result<Self, RequestError> {
        let mut parsed = Self::default();
        for (name, value) in raw {
            match name.as_str() {
                TARGET => parsed.target = Some(object_name(TARGET, value)?),
                BLOCK_SIZE => parsed.block_size = Some(block_size(value)?),
                FS_TYPE => check_file_system(value)?,
                CLAIM_NAME | CLAIM_NAMESPACE | PV_NAME => {}
                POLICY => parsed.transport.policy = Some(object_name(POLICY, value)?),
                _ => {
                    let place = format!("parameter {name}");
                    if !parsed.transport.set(name, &place, value)? {
                        return Err(unknown(name));
                    }
                }
            }
        }
        parsed.claim = raw
            .get(CLAIM_NAMESPACE)
            .zip(raw.get(CLAIM_NAME))
            .map(|(namespace, name)| format!("{namespace}/{name}"));
        Ok(parsed)
    }
}

fn unknown(name: &str) -> RequestError {
    let mut known = vec![BLOCK_SIZE, FS_TYPE, TARGET, POLICY];
    known.extend(WORDS);
    known.sort_unstable();
    RequestError::UnknownParameter {
        name: name.to_owned(),
        known: known.join(", "),
    }
}

fn object_name(name: &'static str, value: &str) -> Result<String, RequestError> {
    let ok = !value.is_empty()
        && value.len() <= 253
        && value
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
    if ok {
        return Ok(value.to_owned());
    }
    Err(RequestError::BadParameter {
        name,
        value: value.to_owned(),
        expected: match name {
            POLICY => "the name of a TransportPolicy",
            _ => "the name of a Target",
        },
    })
}

fn block_size(value: &str) -> Result<u32, RequestError> {
    match value {
        "512" => Ok(512),
        "4096" => Ok(4096),
        _ => Err(RequestError::BadParameter {
            name: BLOCK_SIZE,
            value: value.to_owned(),
            expected: "512 or 4096",
        }),
    }
}

fn check_file_system(value: &str) -> Result<(), RequestError> {
    if FileSystem::parse(value).is_some() {
        return Ok(());
    }
    Err(RequestError::BadParameter {
        name: FS_TYPE,
        value: value.to_owned(),
        expected: "ext4 or xfs",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadstead_crds::transport::Workload;

    fn parse(pairs: &[(&str, &str)]) -> Result<Parameters, RequestError> {
        Parameters::parse(
            &pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn known_parameters() {
        assert_eq!(parse(&[]), Ok(Parameters::default()));
        assert_eq!(
            parse(&[
                ("target", "rack-1.a"),
                ("blockSize", "512"),
                ("workload", "capacity"),
                ("transportPolicy", "strict"),
                ("csi.storage.k8s.io/fstype", "xfs"),
                ("csi.storage.k8s.io/pvc/name", "data"),
                ("csi.storage.k8s.io/pvc/namespace", "shop"),
                ("csi.storage.k8s.io/pv/name", "pvc-1"),
            ]),
            Ok(Parameters {
                target: Some("rack-1.a".into()),
                block_size: Some(512),
                claim: Some("shop/data".into()),
                transport: TransportNeeds {
                    workload: Some(Workload::Capacity),
                    policy: Some("strict".into()),
                    ..TransportNeeds::default()
                },
            })
        );
    }

    #[test]
    fn bad_ones_are_refused_with_a_hint() {
        for (name, value, hint) in [
            (
                "blocksize",
                "512",
                "known are: blockSize, csi.storage.k8s.io/fstype, fallback, needs, target, transport, transportPolicy, workload",
            ),
            ("replicas", "2", "unknown parameter 'replicas'"),
            ("blockSize", "1024", "must be 512 or 4096"),
            ("blockSize", "", "must be 512 or 4096"),
            ("target", "", "the name of a Target"),
            ("target", "Rack 1", "the name of a Target"),
            ("transportPolicy", "My own", "the name of a TransportPolicy"),
            (
                "transport",
                "rdma",
                "parameter transport: 'rdma' is no transport; known are: auto, tcp, roce",
            ),
            ("csi.storage.k8s.io/fstype", "zfs", "ext4 or xfs"),
        ] {
            let error = parse(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(hint), "{name}={value}: {error}");
        }
    }
}
