//! The publish context: how the controller tells the node where a volume is.

use std::collections::BTreeMap;

use roadstead_api::v1::{Portal, Transport};
use serde::{Deserialize, Serialize};

use super::RequestError;

const NQN: &str = "nqn";
const UUID: &str = "uuid";
const READ_ONLY: &str = "readOnly";
const PATHS: &str = "paths";
const METHOD: &str = "method";
const NGUID: &str = "nguid";
const NSID: &str = "nsid";
const EXTERNAL: &str = "external";

/// One path to a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathSpec {
    /// `tcp`, `rdma`, or `local` for the one without the network.
    pub transport: String,
    /// IP address of the target; empty for `local`.
    pub address: String,
    /// Its port; 0 for `local`.
    pub port: u16,
    /// Paths with the smallest number carry the I/O.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub preference: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's interface
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl PathSpec {
    /// The path in the words of the control API.
    fn portal(&self) -> Result<Portal, RequestError> {
        let transport = match self.transport.as_str() {
            "tcp" => Transport::Tcp,
            "rdma" => Transport::Rdma,
            "local" => Transport::Local,
            other => {
                return Err(RequestError::Context(format!(
                    "transport '{other}' of a path is unknown"
                )));
            }
        };
        Ok(Portal {
            transport: transport.into(),
            address: self.address.clone(),
            port: self.port.into(),
            preference: self.preference,
            ..Portal::default()
        })
    }
}

/// Where a volume is and how it may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishContext {
    /// NQN of the volume's subsystem.
    pub nqn: String,
    /// UUID of the volume; empty for an appliance's namespace that has none.
    pub uuid: String,
    /// NGUID of an appliance's namespace that has no UUID.
    pub nguid: String,
    /// Identifier of an appliance's namespace that has neither; else 0.
    pub nsid: u32,
    /// The Target, if that is an appliance.
    pub external: String,
    /// The node must not write.
    pub read_only: bool,
    /// At least one, the best first.
    pub paths: Vec<PathSpec>,
    /// How the device is to be made; empty: the best that the node has.
    pub method: String,
}

impl PublishContext {
    /// As the map that Kubernetes keeps.
    ///
    /// # Errors
    /// Never in practice: the paths are plain data.
    pub fn to_map(&self) -> Result<BTreeMap<String, String>, serde_json::Error> {
        let mut map = BTreeMap::from([
            (NQN.to_owned(), self.nqn.clone()),
            (READ_ONLY.to_owned(), self.read_only.to_string()),
            (PATHS.to_owned(), serde_json::to_string(&self.paths)?),
            (METHOD.to_owned(), self.method.clone()),
        ]);
        let nsid = match self.nsid {
            0 => String::new(),
            nsid => nsid.to_string(),
        };
        let names = [
            (UUID, &self.uuid),
            (NGUID, &self.nguid),
            (NSID, &nsid),
            (EXTERNAL, &self.external),
        ];
        let given = names.into_iter().filter(|(_, value)| !value.is_empty());
        map.extend(given.map(|(key, value)| (key.to_owned(), value.clone())));
        Ok(map)
    }

    /// From the map that Kubernetes kept. Keys that a newer controller added are ignored.
    ///
    /// # Errors
    /// [`RequestError::Context`].
    pub fn from_map(map: &BTreeMap<String, String>) -> Result<Self, RequestError> {
        let get = |key: &str| {
            map.get(key)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| RequestError::Context(format!("'{key}' is missing")))
        };
        let paths: Vec<PathSpec> = serde_json::from_str(get(PATHS)?).map_err(|error| {
            RequestError::Context(format!("'{PATHS}' is no list of paths: {error}"))
        })?;
        if paths.is_empty() {
            return Err(RequestError::Context(format!("'{PATHS}' is empty")));
        }
        let read_only = get(READ_ONLY)?;
        let read_only = read_only.parse().map_err(|_| {
            RequestError::Context(format!("'{READ_ONLY}' is '{read_only}', not true or false"))
        })?;
        let given = |key: &str| map.get(key).cloned().unwrap_or_default();
        let nsid = match given(NSID) {
            none if none.is_empty() => 0,
            text => text.parse().map_err(|_| {
                RequestError::Context(format!("'{NSID}' is '{text}', not an identifier"))
            })?,
        };
        let nguid = given(NGUID);
        Ok(Self {
            nqn: get(NQN)?.clone(),
            uuid: match nguid.is_empty() && nsid == 0 {
                true => get(UUID)?.clone(),
                false => String::new(),
            },
            nguid,
            nsid,
            external: given(EXTERNAL),
            read_only,
            paths,
            // Controllers before the policy wrote none.
            method: map.get(METHOD).cloned().unwrap_or_default(),
        })
    }

    /// The paths in the words of the control API.
    ///
    /// # Errors
    /// [`RequestError::Context`] for a transport that the node does not know.
    pub fn portals(&self) -> Result<Vec<Portal>, RequestError> {
        self.paths.iter().map(PathSpec::portal).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> PublishContext {
        PublishContext {
            nqn: "nqn.2026-11.io.roadstead:u".into(),
            uuid: "u".into(),
            nguid: String::new(),
            nsid: 0,
            external: String::new(),
            read_only: false,
            paths: vec![PathSpec {
                transport: "tcp".into(),
                address: "10.0.0.1".into(),
                port: 4420,
                preference: 0,
            }],
            method: "fuse".into(),
        }
    }

    #[test]
    fn round_trip_and_exact_words() {
        let map = example().to_map().unwrap();
        assert_eq!(
            map.get("paths").unwrap(),
            r#"[{"transport":"tcp","address":"10.0.0.1","port":4420}]"#
        );
        assert_eq!(PublishContext::from_map(&map), Ok(example()));
        assert_eq!(example().portals().unwrap()[0].port, 4420);
    }

    #[test]
    fn a_namespace_of_an_appliance_has_one_name() {
        let external = |nguid: &str, nsid| PublishContext {
            uuid: String::new(),
            nguid: nguid.into(),
            nsid,
            external: "array".into(),
            ..example()
        };
        for context in [external("08", 0), external("", 3)] {
            let map = context.to_map().unwrap();
            assert!(!map.contains_key("uuid") && map["external"] == "array");
            assert_eq!(PublishContext::from_map(&map), Ok(context));
        }
        let map = external("", 0).to_map().unwrap();
        assert!(PublishContext::from_map(&map).is_err(), "no name at all");
    }

    #[test]
    fn broken_maps_are_refused() {
        for (key, value) in [
            ("nqn", None),
            ("uuid", Some("")),
            ("readOnly", Some("maybe")),
            ("paths", Some("[]")),
            ("paths", Some("[{}]")),
            ("paths", None),
        ] {
            let mut map = example().to_map().unwrap();
            match value {
                Some(value) => map.insert(key.into(), value.into()),
                None => map.remove(key),
            };
            let error = PublishContext::from_map(&map).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        let mut old = example().to_map().unwrap();
        old.remove("method");
        assert_eq!(PublishContext::from_map(&old).unwrap().method, "");
        let mut other = example();
        other.paths[0].transport = "fc".into();
        assert!(other.portals().is_err());
    }
}
