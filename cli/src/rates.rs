//! What goes on now: two readings of the daemons' metrics, a second apart, through the API server's proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use roadstead_crds::quantity::for_people;

use crate::inventory::{APPLIANCE, Inventory};

/// Pods with the daemon.
const DAEMONS: &str = "app.kubernetes.io/name=roadstead,app.kubernetes.io/component=node";

/// The daemon's port for metrics.
const PORT: u16 = 7421;

/// Between the readings.
const PAUSE: Duration = Duration::from_secs(1);

/// Operations and bytes in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} reads/s of {}B/s, {} writes/s of {}B/s",
            self.reads,
            for_people(self.read_bytes),
            self.writes,
            for_people(self.written_bytes)
        )
    }
}

/// Counters by what they belong to: a volume, or the path of an attachment.
type Counters = BTreeMap<(String, String), Rate>;

/// Fills in the rates of the volume `name` and of the paths to it.
///
/// # Errors
/// When a daemon's metrics cannot be read.
pub(crate) async fn fill(client: &Client, inventory: &mut Inventory, name: &str) -> Result<()> {
    let users = inventory.attachments.iter().filter(|a| a.volume == name);
    let home = inventory.volumes.iter().filter(|v| v.name == name);
    let mut nodes: BTreeSet<String> = users.map(|a| a.node.clone()).collect();
    let is_ours = |node: &String| !node.is_empty() && node != APPLIANCE;
    nodes.extend(home.map(|v| v.node.clone()).filter(is_ours));
    let before = read(client, &nodes).await?;
    tokio::time::sleep(PAUSE).await;
    let after = read(client, &nodes).await?;
    let rate = |key: (String, String)| Some(difference(*before.get(&key)?, *after.get(&key)?));
    for volume in inventory.volumes.iter_mut().filter(|v| v.name == name) {
        volume.rate = rate((name.to_owned(), String::new()));
    }
    for attachment in inventory
        .attachments
        .iter_mut()
        .filter(|a| a.volume == name)
    {
        for path in &mut attachment.paths {
            path.rate = rate((name.to_owned(), path.portal.clone()));
        }
    }
    Ok(())
}

fn difference(before: Rate, after: Rate) -> Rate {
    // A daemon that was started between the readings counts from nothing.
    Rate {
        reads: after.reads.saturating_sub(before.reads),
        writes: after.writes.saturating_sub(before.writes),
        read_bytes: after.read_bytes.saturating_sub(before.read_bytes),
        written_bytes: after.written_bytes.saturating_sub(before.written_bytes),
    }
}

async fn read(client: &Client, nodes: &BTreeSet<String>) -> Result<Counters> {
    let mut all = Counters::new();
    for node in nodes {
        let text = metrics(client, node).await;
        all.extend(parse(
            &text.with_context(|| format!("the daemon of {node}"))?,
        ));
    }
    Ok(all)
}

async fn metrics(client: &Client, node: &str) -> Result<String> {
    let on_node = ListParams::default()
        .labels(DAEMONS)
        .fields(&format!("spec.nodeName={node}"));
    let pods = Api::<Pod>::all(client.clone()).list(&on_node).await?;
    let pod = pods.items.first().context("no pod of it runs")?;
    let namespace = pod.namespace().unwrap_or_default();
    let name = pod.name_any();
    let pods = kube::core::Request::new(format!("/api/v1/namespaces/{namespace}/pods"));
    let request = pods.get_subresource("proxy/metrics", &format!("{name}:{PORT}"))?;
    Ok(client.request_text(request).await?)
}

/// The counters of volumes (second part of the key empty) and of paths in Prometheus' text format.
fn parse(text: &str) -> Counters {
    let mut all = Counters::new();
    for line in text.lines() {
        let Some((name, labels, value)) = split(line) else {
            continue;
        };
        let (of_path, what) = match (
            name.strip_prefix("roadstead_volume_"),
            name.strip_prefix("roadstead_path_"),
        ) {
            (Some(what), _) => (false, what),
            (None, Some(what)) => (true, what),
            (None, None) => continue,
        };
        let key = match of_path {
            false => label(labels, "volume").map(|volume| (volume, String::new())),
            true => label(labels, "attachment").zip(path(labels)),
        };
        let Some(key) = key else { continue };
        let rate = all.entry(key).or_default();
        match what {
            "reads_total" => rate.reads = value,
            "writes_total" => rate.writes = value,
            "read_bytes_total" => rate.read_bytes = value,
            "written_bytes_total" => rate.written_bytes = value,
            _ => {}
        }
    }
    all
}

/// A line as name, labels and value.
fn split(line: &str) -> Option<(&str, &str, u64)> {
    let (name, rest) = line.split_once('{')?;
    let (labels, value) = rest.rsplit_once("} ")?;
    Some((name, labels, value.trim().parse().ok()?))
}

/// A path as it is shown: `tcp 10.0.0.1:4420`.
fn path(labels: &str) -> Option<String> {
    let (transport, portal) = (label(labels, "transport")?, label(labels, "portal")?);
    Some(format!("{transport} {portal}"))
}

/// The value of a label; ours have no quotes in them.
fn label(labels: &str, name: &str) -> Option<String> {
    let start = labels.find(&format!("{name}=\""))? + name.len() + 2;
    let rest = labels.get(start..)?;
    rest.split_once('"').map(|(value, _)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_volumes_and_paths() {
        let text = "# HELP roadstead_volume_reads_total Reads done.\n\
            roadstead_volume_reads_total{volume=\"v\",drive=\"t/d\"} 7\n\
            roadstead_volume_written_bytes_total{drive=\"t/d\",volume=\"v\"} 4096\n\
            roadstead_path_writes_total{attachment=\"v\",transport=\"tcp\",portal=\"10.0.0.1:4420\"} 3\n\
            roadstead_info{version=\"1\"} 1\nroadstead_connections 2\n";
        let counters = parse(text);
        let volume = counters[&("v".to_owned(), String::new())];
        assert_eq!((volume.reads, volume.written_bytes), (7, 4096));
        let path = counters[&("v".to_owned(), "tcp 10.0.0.1:4420".to_owned())];
        assert_eq!(path.writes, 3);
        assert_eq!(counters.len(), 2);
        let rate = difference(volume, volume);
        assert_eq!(rate.to_string(), "0 reads/s of 0B/s, 0 writes/s of 0B/s");
    }
}
