//! The inventory of a cluster, from the status of its objects.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config, ResourceExt};
use roadstead_crds::condition::{self, READY};
use roadstead_crds::{
    Condition, NVMeAttachment, NVMeHost, NVMeNamespace, PortalStatus, Target, quantity,
};

use crate::inventory::{self, Inventory};

/// Name of the CSI driver, as it stands in PersistentVolumes.
const DRIVER: &str = "csi.roadstead.io";

/// A client by the kubeconfig (or, in a pod, by its service account).
pub(crate) async fn client(context: Option<&str>) -> Result<Client> {
    let config = match context {
        None => Config::infer().await?,
        Some(name) => {
            let options = KubeConfigOptions {
                context: Some(name.into()),
                ..KubeConfigOptions::default()
            };
            Config::from_kubeconfig(&options).await?
        }
    };
    Ok(Client::try_from(config)?)
}

/// The volume behind `pvc/NAME`, `pv/NAME` or a plain name.
///
/// # Errors
/// When the claim is not bound or not one of ours.
pub(crate) async fn volume_name(
    client: &Client,
    what: &str,
    namespace: Option<&str>,
) -> Result<String> {
    let pv = match what.split_once('/') {
        None => return Ok(what.into()),
        Some(("pv" | "persistentvolume", name)) => name.to_owned(),
        Some(("pvc" | "persistentvolumeclaim", name)) => {
            let claims: Api<PersistentVolumeClaim> = match namespace {
                Some(ns) => Api::namespaced(client.clone(), ns),
                None => Api::default_namespaced(client.clone()),
            };
            let claim = claims
                .get(name)
                .await
                .with_context(|| format!("pvc {name}"))?;
            claim.spec.and_then(|s| s.volume_name).with_context(|| {
                format!("pvc {name} is not bound yet: `kubectl describe pvc {name}` says why")
            })?
        }
        Some((kind, _)) => bail!("{kind}/...? write pvc/NAME, pv/NAME or a volume's name"),
    };
    let volume = Api::<PersistentVolume>::all(client.clone())
        .get(&pv)
        .await
        .with_context(|| format!("pv {pv}"))?;
    match volume.spec.and_then(|s| s.csi) {
        Some(csi) if csi.driver == DRIVER => Ok(csi.volume_handle),
        _ => bail!("pv {pv} is not a Roadstead volume: its driver is not {DRIVER}"),
    }
}

/// Reads all objects.
pub(crate) async fn inventory(client: Client) -> Result<Inventory> {
    let all = kube::api::ListParams::default();
    let missing = "cannot list Roadstead's objects: is it installed in this cluster?";
    let targets = Api::<Target>::all(client.clone())
        .list(&all)
        .await
        .context(missing)?;
    let volumes = Api::<NVMeNamespace>::all(client.clone())
        .list(&all)
        .await
        .context(missing)?;
    let attached = Api::<NVMeAttachment>::all(client.clone())
        .list(&all)
        .await
        .context(missing)?;
    let hosts = Api::<NVMeHost>::all(client)
        .list(&all)
        .await
        .context(missing)?;
    let mut drives: Vec<_> = targets.iter().flat_map(target_drives).collect();
    drives.extend(hosts.iter().flat_map(unused_drives));
    Ok(Inventory {
        targets: targets.iter().map(target).collect(),
        drives,
        volumes: volumes.iter().map(volume).collect(),
        attachments: attached.iter().map(attachment).collect(),
    })
}

/// The Ready condition's sentence.
fn message(conditions: &[Condition]) -> String {
    condition::find(conditions, READY).map_or_else(
        || "the operator has not looked at it yet".into(),
        |c| c.message.clone(),
    )
}

fn portal(p: &PortalStatus) -> String {
    at(&p.transport, &p.address, p.port)
}

/// `tcp 10.0.0.1:4420`; just `local` for the path that has no address.
fn at(transport: &str, address: &str, port: u16) -> String {
    match address.contains(':') {
        _ if address.is_empty() => transport.into(),
        true => format!("{transport} [{address}]:{port}"),
        false => format!("{transport} {address}:{port}"),
    }
}

fn target(t: &Target) -> inventory::Target {
    let status = t.status.clone().unwrap_or_default();
    inventory::Target {
        name: t.name_any(),
        node: match t.spec.external {
            None => t.spec.node.clone(),
            Some(_) => inventory::APPLIANCE.into(),
        },
        ready: condition::is_true(&status.conditions, READY),
        message: message(&status.conditions),
        capacity_bytes: status.capacity_bytes,
        free_bytes: status.free_bytes,
        portals: status.portals.iter().map(portal).collect(),
    }
}

fn target_drives(t: &Target) -> Vec<inventory::Drive> {
    let status = t.status.clone().unwrap_or_default();
    let drive = |d: roadstead_crds::DriveStatus| inventory::Drive {
        target: t.name_any(),
        name: d.name,
        node: t.spec.node.clone(),
        path: d.path,
        serial: d.serial,
        state: d.state,
        message: d.message,
        capacity_bytes: d.capacity_bytes,
        free_bytes: d.free_bytes,
    };
    status.drives.into_iter().map(drive).collect()
}

fn unused_drives(h: &NVMeHost) -> Vec<inventory::Drive> {
    let status = h.status.clone().unwrap_or_default();
    let drive = |d: roadstead_crds::UnusedDrive| inventory::Drive {
        node: h.name_any(),
        path: d.path,
        serial: d.serial,
        state: inventory::UNUSED.into(),
        capacity_bytes: d.size_bytes,
        ..inventory::Drive::default()
    };
    status.unused_drives.into_iter().map(drive).collect()
}

fn volume(v: &NVMeNamespace) -> inventory::Volume {
    let status = v.status.clone().unwrap_or_default();
    let asked = quantity::parse_bytes(&v.spec.size).unwrap_or(0);
    inventory::Volume {
        name: v.name_any(),
        ready: condition::is_true(&status.conditions, READY),
        message: message(&status.conditions),
        uuid: status.uuid.unwrap_or_default(),
        nqn: status.nqn.unwrap_or_default(),
        target: status.target.unwrap_or_default(),
        drive: status.drive.unwrap_or_default(),
        node: match v.spec.external {
            None => status.node.unwrap_or_default(),
            Some(_) => inventory::APPLIANCE.into(),
        },
        nsid: status.nsid.unwrap_or_default(),
        size_bytes: status.capacity_bytes.max(asked),
        allocated_bytes: status.allocated_bytes,
        rate: None,
    }
}

fn attachment(a: &NVMeAttachment) -> inventory::Attachment {
    let status = a.status.clone().unwrap_or_default();
    let path = |p: &roadstead_crds::PathStatus| inventory::Path {
        portal: at(&p.transport, &p.address, p.port),
        state: p.state.clone(),
        ana_state: p.ana_state.clone(),
        message: p.message.clone(),
        rate: None,
    };
    let candidate = |c: &roadstead_crds::CandidateStatus| inventory::Candidate {
        accepted: c.accepted,
        reason: c.reason.clone(),
    };
    inventory::Attachment {
        name: a.name_any(),
        volume: a.spec.namespace.clone(),
        node: a.spec.node.clone(),
        ready: condition::is_true(&status.conditions, READY),
        message: message(&status.conditions),
        paths: status.paths.iter().map(path).collect(),
        candidates: status.candidates.iter().map(candidate).collect(),
        transport: status.transport.unwrap_or_default(),
        chosen: status.chosen_transport.map_or("", |t| t.word()).into(),
        policy: status.policy.unwrap_or_default(),
        superseded: status.superseded.unwrap_or_default(),
        reason: status.reason.unwrap_or_default(),
        method: status.attach_method.unwrap_or_default(),
        device: status.device.unwrap_or_default(),
    }
}
