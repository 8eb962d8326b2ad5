//! The cluster as the operator watches it: caches of every kind, and what is parsed from nodes and pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher;
use kube::{Api, Client};
use roadstead_crds::{NVMeAttachment, NVMeHost, NVMeNamespace, Target, TransportPolicy};
use roadstead_nvme::dhchap;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::cache::{Cache, watch};
use crate::snapshot::{CREDENTIALS_TYPE, Credentials, Dataplane, HostIdentity, NodeInfo, Snapshot};

/// Pods with this label are dataplanes.
const DATAPLANE_LABEL: &str = "app.kubernetes.io/component=node";

/// The taint of a node that an administrator calls off.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Every cache.
#[derive(Clone)]
pub struct Cluster {
    /// Targets.
    pub targets: Cache<Target>,
    /// Volumes.
    pub namespaces: Cache<NVMeNamespace>,
    /// Attachments.
    pub attachments: Cache<NVMeAttachment>,
    /// Hosts.
    pub hosts: Cache<NVMeHost>,
    /// Transport policies.
    pub policies: Cache<TransportPolicy>,
    credentials: Cache<Credentials>,
    nodes: Cache<NodeInfo>,
    pods: Cache<Option<DataplanePod>>,
}

/// A running pod of a dataplane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataplanePod {
    /// Its node.
    pub node: String,
    /// Its address.
    pub address: IpAddr,
    /// Its UID.
    pub uid: String,
    created: Option<Time>,
}

impl Cluster {
    /// Starts a watch of every kind in `tasks`; pods in `own_namespace`.
    pub fn start(
        client: &Client,
        own_namespace: &str,
        wake: &Arc<Notify>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let cluster = Cluster {
            targets: Cache::new(wake.clone()),
            namespaces: Cache::new(wake.clone()),
            attachments: Cache::new(wake.clone()),
            hosts: Cache::new(wake.clone()),
            policies: Cache::new(wake.clone()),
            credentials: Cache::new(wake.clone()),
            nodes: Cache::new(wake.clone()),
            pods: Cache::new(wake.clone()),
        };
        let all = watcher::Config::default;
        tasks.spawn(watch(
            cluster.targets.clone(),
            Api::all(client.clone()),
            all(),
            Target::clone,
        ));
        tasks.spawn(watch(
            cluster.namespaces.clone(),
            Api::all(client.clone()),
            all(),
            NVMeNamespace::clone,
        ));
        tasks.spawn(watch(
            cluster.attachments.clone(),
            Api::all(client.clone()),
            all(),
            NVMeAttachment::clone,
        ));
        tasks.spawn(watch(
            cluster.hosts.clone(),
            Api::all(client.clone()),
            all(),
            NVMeHost::clone,
        ));
        tasks.spawn(watch(
            cluster.policies.clone(),
            Api::all(client.clone()),
            all(),
            TransportPolicy::clone,
        ));
        tasks.spawn(watch(
            cluster.credentials.clone(),
            Api::namespaced(client.clone(), own_namespace),
            all().fields(&format!("type={CREDENTIALS_TYPE}")),
            credentials,
        ));
        tasks.spawn(watch(
            cluster.nodes.clone(),
            Api::all(client.clone()),
            all(),
            node_info,
        ));
        tasks.spawn(watch(
            cluster.pods.clone(),
            Api::namespaced(client.clone(), own_namespace),
            all().labels(DATAPLANE_LABEL),
            dataplane_pod,
        ));
        cluster
    }

    /// Every kind was listed: a plan sees the whole cluster.
    pub fn is_listed(&self) -> bool {
        self.targets.is_listed()
            && self.namespaces.is_listed()
            && self.attachments.is_listed()
            && self.hosts.is_listed()
            && self.policies.is_listed()
            && self.credentials.is_listed()
            && self.nodes.is_listed()
            && self.pods.is_listed()
    }

    /// Objects that cannot be parsed.
    pub fn invalid_count(&self) -> usize {
        self.targets.invalid_count()
            + self.namespaces.invalid_count()
            + self.attachments.invalid_count()
            + self.hosts.invalid_count()
            + self.policies.invalid_count()
    }

    /// The dataplane pods by node: the newest where an old one is still going.
    pub fn dataplane_pods(&self) -> BTreeMap<String, DataplanePod> {
        let mut pods: Vec<DataplanePod> = self
            .pods
            .all()
            .into_values()
            .filter_map(|pod| pod.as_ref().clone())
            .collect();
        pods.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.uid.cmp(&b.uid)));
        pods.into_iter()
            .map(|pod| (pod.node.clone(), pod))
            .collect()
    }

    /// Names of the cluster's nodes.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.all().contains_key(name)
    }

    /// Everything at this moment, with what is known of the dataplanes.
    pub fn snapshot(&self, dataplanes: BTreeMap<String, Dataplane>) -> Snapshot {
        let nodes = self.nodes.all();
        Snapshot {
            now: Timestamp::now(),
            targets: self.targets.all(),
            namespaces: self.namespaces.all(),
            attachments: self.attachments.all(),
            hosts: self.hosts.all(),
            policies: self.policies.all(),
            credentials: self.credentials.all(),
            nodes: nodes
                .into_iter()
                .map(|(name, node)| (name, (*node).clone()))
                .collect(),
            dataplanes,
        }
    }
}

/// What matters of a Secret with credentials.
fn credentials(secret: &Secret) -> Credentials {
    let data = secret.data.as_ref();
    let value = |key: &str| -> Option<&ByteString> { data?.get(key) };
    let text = |key: &str| {
        let bytes = value(key).ok_or_else(|| format!("it has no {key}"))?;
        let text = std::str::from_utf8(&bytes.0).map_err(|_| format!("{key} is no text"))?;
        Ok::<_, String>(text.trim().to_owned())
    };
    // What is wrong with a key does not show it.
    let secret = |key: &str| {
        let parsed = dhchap::Secret::parse(&text(key)?);
        parsed.map_err(|error| format!("{key} cannot be used: {error}"))
    };
    let keys = || match (value(DHCHAP_KEY), value(DHCHAP_CTRL_KEY)) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(format!(
            "it has {DHCHAP_CTRL_KEY}, but no {DHCHAP_KEY}: an appliance proves itself to a host that does"
        )),
        (Some(_), controller) => Ok(Some(dhchap::Keys {
            host: secret(DHCHAP_KEY)?,
            controller: controller.map(|_| secret(DHCHAP_CTRL_KEY)).transpose()?,
        })),
    };
    let host = || {
        let (nqn, id) = (text(HOST_NQN)?, text(HOST_ID)?);
        if !nqn.starts_with("nqn.") || nqn.len() > NQN_LENGTH_MAX || nqn.contains(',') {
            return Err(format!("{HOST_NQN} is no NQN"));
        }
        let id = Uuid::try_parse(&id).map_err(|_| format!("{HOST_ID} is no UUID"))?;
        let id = id.to_string();
        let keys = keys()?;
        Ok(HostIdentity { nqn, id, keys })
    };
    Credentials { host: host() }
}

/// Keys of such a Secret.
const HOST_NQN: &str = "hostNqn";
const HOST_ID: &str = "hostId";
const DHCHAP_KEY: &str = "dhchapKey";
const DHCHAP_CTRL_KEY: &str = "dhchapCtrlKey";

/// Longest NQN in bytes.
const NQN_LENGTH_MAX: usize = 223;

/// What matters of a node.
fn node_info(node: &Node) -> NodeInfo {
    let status = node.status.as_ref();
    let addresses = status
        .and_then(|s| s.addresses.as_ref())
        .into_iter()
        .flatten();
    let conditions = status
        .and_then(|s| s.conditions.as_ref())
        .into_iter()
        .flatten();
    let taints = node
        .spec
        .as_ref()
        .and_then(|s| s.taints.as_ref())
        .into_iter()
        .flatten();
    NodeInfo {
        uid: node.metadata.uid.clone().unwrap_or_default(),
        internal_ip: addresses
            .filter(|a| a.type_ == "InternalIP")
            .map(|a| a.address.clone())
            .next(),
        ready: conditions
            .into_iter()
            .any(|c| c.type_ == "Ready" && c.status == "True"),
        out_of_service: taints.into_iter().any(|t| t.key == OUT_OF_SERVICE),
    }
}

/// The dataplane in a pod, if it runs.
fn dataplane_pod(pod: &Pod) -> Option<DataplanePod> {
    let status = pod.status.as_ref()?;
    let running =
        status.phase.as_deref() == Some("Running") && pod.metadata.deletion_timestamp.is_none();
    if !running {
        return None;
    }
    Some(DataplanePod {
        node: pod.spec.as_ref()?.node_name.clone()?,
        address: status.pod_ip.as_ref()?.parse().ok()?,
        uid: pod.metadata.uid.clone()?,
        created: pod.metadata.creation_timestamp.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_host_or_says_what_is_wrong() {
        let secret = |pairs: &[(&str, &str)]| {
            let data = pairs.iter();
            let data = data.map(|(k, v)| ((*k).into(), ByteString(v.as_bytes().to_vec())));
            credentials(&Secret {
                data: Some(data.collect()),
                ..Secret::default()
            })
        };
        let nqn = ("hostNqn", "nqn.2014-08.com.example:h\n");
        let id = ("hostId", "6F1C2B4E-8a55-4f0e-9a57-0d6e2d6f4f31");
        let good = secret(&[nqn, id]).host.unwrap();
        assert_eq!(good.nqn, "nqn.2014-08.com.example:h");
        assert_eq!(good.id, "6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f31");
        assert_eq!(format!("{good:?}"), "HostIdentity");
        let key = "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
        let ended = format!("{key}\n");
        let both = secret(&[
            nqn,
            id,
            ("dhchapKey", ended.as_str()),
            ("dhchapCtrlKey", key),
        ]);
        let keys = both.host.unwrap().keys.unwrap();
        assert_eq!(
            (keys.host.text(), keys.controller),
            (key, Some(keys.host.clone()))
        );
        assert_eq!(
            secret(&[nqn, id, ("dhchapKey", key)])
                .host
                .unwrap()
                .keys
                .unwrap()
                .controller,
            None
        );
        let cut = &key[..key.len() - 8];
        let changed = key.replace("iaR:", "iaQ:");
        for (pairs, words) in [
            (vec![nqn], "it has no hostId"),
            (vec![id], "it has no hostNqn"),
            (vec![nqn, ("hostId", "x")], "hostId is no UUID"),
            (vec![("hostNqn", "nqn.a,b"), id], "hostNqn is no NQN"),
            (
                vec![nqn, id, ("dhchapKey", cut)],
                "dhchapKey cannot be used: it does not have the form",
            ),
            (
                vec![nqn, id, ("dhchapKey", changed.as_str())],
                "dhchapKey cannot be used: its checksum is wrong",
            ),
            (
                vec![
                    nqn,
                    id,
                    ("dhchapKey", key),
                    ("dhchapCtrlKey", changed.as_str()),
                ],
                "dhchapCtrlKey cannot be used: its checksum",
            ),
            (
                vec![nqn, id, ("dhchapCtrlKey", key)],
                "it has dhchapCtrlKey, but no dhchapKey",
            ),
        ] {
            let why = secret(&pairs).host.unwrap_err();
            assert!(why.contains(words) && !why.contains("AAEC"), "{why}");
        }
    }
}
