//! What is said of foreign NVMe-oF appliances: where one is, and which of its namespaces is meant.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Portal;

/// A foreign NVMe-oF appliance: what its discovery services tell, or one subsystem at known portals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.discovery) != has(self.portals)",
        "message": "an external Target needs exactly one of discovery (where discovery services answer) and portals (where the subsystem nqn answers)"
    },
    {
        "rule": "!has(self.portals) || has(self.nqn)",
        "message": "portals are those of one subsystem: give its nqn, too"
    },
    {
        "rule": "has(self.nqn) == has(oldSelf.nqn) && (!has(self.nqn) || self.nqn == oldSelf.nqn)",
        "message": "an external Target stays with its subsystem: create another Target for another nqn"
    }
]))]
pub struct ExternalSource {
    /// Where its discovery services answer. What they tell is used; of it only the subsystem `nqn` if that is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub discovery: Vec<ExternalAddress>,
    /// NQN of the subsystem. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 12, max = 223), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^nqn[.][0-9]{4}-[0-9]{2}[.][^, ]+$') && self != 'nqn.2014-08.org.nvmexpress.discovery'",
        "message": "nqn is the name of an NVM subsystem, such as nqn.2014-08.com.example:array1"
    }]))]
    pub nqn: Option<String>,
    /// Where the subsystem `nqn` answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub portals: Vec<ExternalAddress>,
    /// A Secret in Roadstead's namespace that says whom the nodes are to the appliance: `hostNqn` and
    /// `hostId`, a UUID, and by what they authenticate themselves, if that is demanded: `dhchapKey`, and
    /// `dhchapCtrlKey` for what the appliance has to prove. Without it each node is itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretRef")]
    pub secret_ref: Option<SecretRef>,
}

/// A Secret in the namespace that Roadstead is installed in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// An address of an appliance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalAddress {
    /// IP address.
    #[schemars(length(min = 2, max = 45), extend("x-kubernetes-validations" = [{
        "rule": "isIP(self)",
        "message": "address is an IP address, such as 192.0.2.10"
    }]))]
    pub address: String,
    /// Port; if not given 8009 of a discovery service and 4420 of a subsystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::port")]
    pub port: Option<u16>,
    /// `tcp`, if not given, or `rdma`.
    #[serde(default = "default_transport")]
    #[schemars(schema_with = "crate::schema::wire_transport")]
    pub transport: String,
}

/// The port of a discovery service that names none, as IANA has it.
const DISCOVERY_PORT: u16 = 8009;

/// The port of a subsystem that names none.
const SUBSYSTEM_PORT: u16 = 4420;

fn default_transport() -> String {
    "tcp".into()
}

impl ExternalAddress {
    fn portal(&self, port: u16) -> Portal {
        Portal {
            transport: self.transport.clone(),
            address: self.address.clone(),
            port: self.port.unwrap_or(port),
        }
    }
}

impl ExternalSource {
    /// Its discovery services.
    pub fn services(&self) -> Vec<Portal> {
        let all = self.discovery.iter();
        all.map(|a| a.portal(DISCOVERY_PORT)).collect()
    }

    /// The portals that are given.
    pub fn given_portals(&self) -> Vec<Portal> {
        let all = self.portals.iter();
        all.map(|a| a.portal(SUBSYSTEM_PORT)).collect()
    }
}

/// A namespace of an external Target: exactly one of `uuid`, `nguid` and `nsid`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "[has(self.uuid), has(self.nguid), has(self.nsid)].filter(x, x).size() == 1",
        "message": "external names a namespace by exactly one of uuid, nguid and nsid"
    },
    {
        "rule": "self == oldSelf",
        "message": "external cannot be changed: delete this NVMeNamespace, which leaves the data where it is, and create another one"
    }
]))]
pub struct ExternalNamespace {
    /// Its UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 36, max = 36), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$')",
        "message": "uuid is such as 6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f31"
    }]))]
    pub uuid: Option<String>,
    /// Its NGUID, 32 hexadecimal digits, also with dashes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 32, max = 36), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^[0-9a-fA-F]{32}$') || self.matches('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$')",
        "message": "nguid has 32 hexadecimal digits"
    }]))]
    pub nguid: Option<String>,
    /// Its identifier in the subsystem. What the appliance shows there when it is first seen is recorded and stays what is
    /// meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::nsid")]
    pub nsid: Option<u32>,
    /// The subsystem, where the Target has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 12, max = 223))]
    pub nqn: Option<String>,
}

/// A subsystem of an external Target, as the nodes see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["nqn"]))] // a list map's key must be there
pub struct ExternalSubsystemStatus {
    /// Its NQN.
    pub nqn: String,
    /// Where it answers, those that no node reaches included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub portals: Vec<ExternalPortalStatus>,
    /// How many namespaces it has.
    #[schemars(schema_with = "crate::schema::count")]
    pub namespace_count: u32,
    /// The first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub namespaces: Vec<ExternalNamespaceStatus>,
}

/// A portal of a subsystem of an external Target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalPortalStatus {
    /// `tcp` or `rdma`.
    pub transport: String,
    /// IP address.
    pub address: String,
    /// Port.
    #[schemars(schema_with = "crate::schema::port")]
    pub port: u16,
    /// `Reached`, `Failed`, or `Unknown`.
    pub state: String,
    /// Why a node does not reach it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A namespace of a subsystem of an external Target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalNamespaceStatus {
    /// Its identifier in the subsystem.
    #[schemars(schema_with = "crate::schema::count")]
    pub nsid: u32,
    /// Its UUID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uuid: String,
    /// Its NGUID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nguid: String,
    /// Its size in bytes.
    #[schemars(schema_with = "crate::schema::bytes")]
    pub size_bytes: u64,
    /// `sizeBytes` for people.
    pub size: String,
    /// Bytes of a block.
    #[schemars(schema_with = "crate::schema::count")]
    pub block_size: u32,
    /// The NVMeNamespace that is bound to it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bound: String,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}
