//! One machine's daemon: its report as an inventory, and the commands that only it can do.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use roadstead_api::v1::{
    self, AnaState, AttachRequest, AttachmentReport, DetachRequest, DriveReport, DriveState,
    GetReportRequest, NodeReport, PathState, RescanRequest, VolumeReport, VolumeState,
};
use roadstead_api::{NVME_TCP_PORT, connect_unix};
use roadstead_bench::KeyFiles;
use roadstead_initiator::{Identity, Keys, Nqn, Portal, Secret, Transport, portals};

use crate::discover::service;
use crate::inventory::{self, Inventory};
use crate::rates::Rate;
use crate::say;

/// How long a discovery service has for its answer.
const DISCOVERY_TIME: Duration = Duration::from_secs(5);
/// What stands where a cluster has a target's name: a drive's name on a stand-alone machine has no slash.
const THIS_MACHINE: &str = "local";

/// Arguments of `roadstead attach`.
#[derive(Args)]
pub(crate) struct AttachArgs {
    /// A name for the attachment, for detach and rescan.
    id: String,
    /// NQN of the subsystem.
    #[arg(long)]
    nqn: String,
    /// Address of the target, with its port unless that is 4420, `rdma:` before it for NVMe/RDMA; repeat it for more paths.
    /// `local`: this machine's daemon serves the subsystem itself.
    #[arg(long = "address", required_unless_present = "discover", value_parser = address, value_name = "IP[:PORT]|local")]
    addresses: Vec<Portal>,
    /// Take the addresses from this discovery service, with its port unless that is 8009; repeat it for more.
    #[arg(long, conflicts_with = "addresses", value_parser = service, value_name = "IP[:PORT]")]
    discover: Vec<Portal>,
    /// UUID of the namespace.
    #[arg(long)]
    uuid: String,
    /// How the device is made; the best that the machine has unless given.
    #[arg(long, value_enum)]
    method: Option<Method>,
    /// Refuse writes.
    #[arg(long)]
    read_only: bool,
    /// Seconds that I/O waits for a lost connection before it fails; 0: the daemon's default.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    ctrl_loss_timeout: u32,
    #[command(flatten)]
    keys: KeyFiles,
}

#[derive(Clone, Copy, ValueEnum)]
enum Method {
    Kernel,
    Ublk,
    Nbd,
    Fuse,
}

/// A portal of a target, or `local`.
fn address(text: &str) -> Result<Portal, String> {
    match text {
        "local" => Ok(Portal::LOCAL),
        _ => parse_portal(text, NVME_TCP_PORT),
    }
}

/// `10.0.0.1`, `10.0.0.1:4420`, `fd00::1` or `[fd00::1]:4420`; `rdma:` before it for NVMe/RDMA.
pub(crate) fn parse_portal(text: &str, default_port: u16) -> Result<Portal, String> {
    let (transport, address) = match text.strip_prefix("rdma:") {
        Some(rest) => (Transport::Rdma, rest),
        None => (Transport::Tcp, text),
    };
    let address = match address.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, default_port),
        Err(_) => address.parse().map_err(|_| {
            format!("'{text}' is not IP, IP:PORT or [IPv6]:PORT, or one of these after 'rdma:'")
        })?,
    };
    Ok(Portal { transport, address })
}

/// `roadstead attach`: prints the device.
pub(crate) async fn attach(socket: &Path, args: AttachArgs) -> Result<()> {
    let keys = args.keys.read()?;
    let addresses = match args.discover.as_slice() {
        [] => args.addresses,
        services => {
            let identity = Identity {
                keys: keys.clone(),
                ..identity(socket).await?
            };
            let found = portals(services, &identity, &args.nqn, DISCOVERY_TIME)?;
            ensure!(
                !found.is_empty(),
                "no discovery service tells the host {} of {}",
                identity.nqn,
                args.nqn
            );
            found
        }
    };
    let request = AttachRequest {
        id: args.id,
        subsystem_nqn: args.nqn,
        volume_uuid: args.uuid,
        paths: addresses.into_iter().map(message).collect(),
        read_only: args.read_only,
        method: match args.method {
            None => "",
            Some(Method::Kernel) => "kernel",
            Some(Method::Ublk) => "ublk",
            Some(Method::Nbd) => "nbd",
            Some(Method::Fuse) => "fuse",
        }
        .into(),
        ctrl_loss_timeout_s: args.ctrl_loss_timeout,
        keys: keys.as_ref().map(host_keys),
        ..AttachRequest::default()
    };
    let reply = connect_unix(socket).await?.attach(request).await;
    let attachment = reply
        .map_err(said)?
        .into_inner()
        .attachment
        .context("the daemon answered without an attachment")?;
    say(&attachment.device)
}

/// A path in the words of the control API.
fn message(path: Portal) -> v1::Portal {
    let (transport, address) = match path.transport {
        Transport::Tcp => (v1::Transport::Tcp, path.address.ip().to_string()),
        Transport::Rdma => (v1::Transport::Rdma, path.address.ip().to_string()),
        Transport::Local => (v1::Transport::Local, String::new()),
    };
    v1::Portal {
        transport: transport.into(),
        address,
        port: path.address.port().into(),
        ..v1::Portal::default()
    }
}

fn host_keys(keys: &Keys) -> v1::HostKeys {
    let controller = keys.controller.as_ref().map_or("", Secret::text);
    v1::HostKeys {
        host: keys.host.text().into(),
        controller: controller.into(),
    }
}

/// Who the daemon is as a host.
async fn identity(socket: &Path) -> Result<Identity> {
    let report = report(socket).await?;
    let host = report.host.context("the daemon does not say who it is")?;
    Ok(Identity {
        nqn: Nqn::new(&host.host_nqn)?,
        id: host.host_id.parse()?,
        keys: None,
    })
}

/// `roadstead detach`.
pub(crate) async fn detach(socket: &Path, id: String) -> Result<()> {
    let reply = connect_unix(socket)
        .await?
        .detach(DetachRequest { id })
        .await;
    reply.map(|_| ()).map_err(said)
}

/// `roadstead rescan`: prints the size in bytes.
pub(crate) async fn rescan(socket: &Path, id: String) -> Result<()> {
    let reply = connect_unix(socket)
        .await?
        .rescan(RescanRequest { id })
        .await;
    say(&reply.map_err(said)?.into_inner().size_bytes.to_string())
}

/// The daemon's own sentence, without the wrapping of the protocol.
fn said(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}

/// Reads the daemon's report.
pub(crate) async fn inventory(socket: &Path) -> Result<Inventory> {
    let report = report(socket).await?;
    if report.host.is_none() {
        bail!("the daemon's report says nothing of the machine: is it of another version?");
    }
    Ok(from_report(&report))
}

async fn report(socket: &Path) -> Result<NodeReport> {
    let mut client = connect_unix(socket).await?;
    let report = client.get_report(GetReportRequest {}).await;
    Ok(report.map_err(said)?.into_inner())
}

fn portal(p: &v1::Portal) -> String {
    let transport = match p.transport() {
        v1::Transport::Tcp => "tcp",
        v1::Transport::Rdma => "rdma",
        v1::Transport::Local => "local",
        v1::Transport::Unspecified => "?",
    };
    match p.transport() {
        v1::Transport::Local => transport.into(),
        _ => format!("{transport} {}:{}", p.address, p.port),
    }
}

/// A drive's name is TARGET/DRIVE under an operator, and just a name on a stand-alone machine.
fn split_drive(name: &str) -> (String, String) {
    let (target, drive) = name.rsplit_once('/').unwrap_or((THIS_MACHINE, name));
    (target.into(), drive.into())
}

fn from_report(report: &NodeReport) -> Inventory {
    let mut drives: Vec<inventory::Drive> = report.drives.iter().map(drive).collect();
    let unused = report.host.iter().flat_map(|h| &h.unused_drives);
    drives.extend(unused.map(|d| inventory::Drive {
        path: d.path.clone(),
        serial: d.serial.clone(),
        state: inventory::UNUSED.into(),
        capacity_bytes: d.size_bytes,
        ..inventory::Drive::default()
    }));
    Inventory {
        targets: targets(report, &drives),
        volumes: report.volumes.iter().map(|v| volume(v, report)).collect(),
        attachments: report.attachments.iter().map(attachment).collect(),
        drives,
    }
}

/// A row for each target name among the drives.
fn targets(report: &NodeReport, drives: &[inventory::Drive]) -> Vec<inventory::Target> {
    let silent: Vec<String> = report
        .portals
        .iter()
        .filter(|p| !p.listening)
        .map(|p| p.message.clone())
        .collect();
    let portals: Vec<String> = report
        .portals
        .iter()
        .filter_map(|p| p.portal.as_ref().map(portal))
        .collect();
    let mut out: Vec<inventory::Target> = Vec::new();
    for d in drives.iter().filter(|d| !d.unused()) {
        let at = out.iter().position(|t| t.name == d.target);
        let at = at.unwrap_or_else(|| {
            out.push(inventory::Target {
                name: d.target.clone(),
                ready: silent.is_empty(),
                message: silent.join("; "),
                portals: portals.clone(),
                ..inventory::Target::default()
            });
            out.len() - 1
        });
        if let Some(t) = out.get_mut(at) {
            t.capacity_bytes += d.capacity_bytes;
            t.free_bytes += d.free_bytes;
            if d.state != "Online" {
                t.ready = false;
                t.message = d.message.clone();
            }
        }
    }
    out
}

fn drive(d: &DriveReport) -> inventory::Drive {
    let (target, name) = split_drive(&d.name);
    let state = match d.state() {
        DriveState::Online => "Online",
        DriveState::Refused => "Refused",
        DriveState::Missing => "Missing",
        DriveState::Failed => "Failed",
        DriveState::Unspecified => "Unknown",
    };
    inventory::Drive {
        target,
        name,
        node: String::new(),
        path: d.path.clone(),
        serial: d.serial.clone(),
        state: state.into(),
        message: d.message.clone(),
        capacity_bytes: d.capacity_bytes,
        free_bytes: d.free_bytes,
    }
}

fn volume(v: &VolumeReport, report: &NodeReport) -> inventory::Volume {
    let (target, drive) = split_drive(&v.drive);
    let nqn = report
        .subsystems
        .iter()
        .find(|s| s.nqn.ends_with(&v.uuid))
        .map_or_else(String::new, |s| s.nqn.clone());
    let message = match v.state() {
        VolumeState::Orphan => "it exists, but nothing asks for it: kept, not served".into(),
        _ => v.message.clone(),
    };
    inventory::Volume {
        name: if v.name.is_empty() { &v.uuid } else { &v.name }.clone(),
        uuid: v.uuid.clone(),
        nqn,
        target,
        drive,
        node: String::new(),
        nsid: 0,
        ready: v.state() == VolumeState::Online,
        message,
        size_bytes: v.size_bytes,
        allocated_bytes: v.allocated_bytes,
        rate: None,
    }
}

fn attachment(a: &AttachmentReport) -> inventory::Attachment {
    let path = |p: &roadstead_api::v1::PathReport| inventory::Path {
        portal: p.portal.as_ref().map_or_else(String::new, portal),
        state: match p.state() {
            PathState::Live => "Live",
            PathState::Connecting => "Connecting",
            PathState::Failed => "Failed",
            PathState::Unspecified => "Unknown",
        }
        .into(),
        ana_state: ana_word(p.ana_state()).into(),
        message: p.message.clone(),
        rate: rate(p),
    };
    let paths: Vec<inventory::Path> = a.paths.iter().map(path).collect();
    let live = paths.iter().find(|p| p.state == "Live");
    inventory::Attachment {
        name: a.id.clone(),
        volume: a.subsystem_nqn.clone(),
        node: THIS_MACHINE.into(),
        ready: live.is_some(),
        message: paths
            .iter()
            .map(|p| p.message.clone())
            .collect::<Vec<_>>()
            .join("; "),
        transport: live
            .and_then(|p| p.portal.split(' ').next())
            .unwrap_or_default()
            .into(),
        method: a.method.clone(),
        device: a.device.clone(),
        paths,
        ..inventory::Attachment::default()
    }
}

/// The name of an ANA state; empty when it is not known.
fn ana_word(state: AnaState) -> &'static str {
    match state {
        AnaState::Unspecified => "",
        AnaState::Optimized => "optimized",
        AnaState::NonOptimized => "non-optimized",
        AnaState::Inaccessible => "inaccessible",
        AnaState::PersistentLoss => "persistent-loss",
        AnaState::Change => "change",
    }
}

/// What goes on on a path; a daemon that does not measure says nothing but zeros.
fn rate(p: &roadstead_api::v1::PathReport) -> Option<Rate> {
    let rate = Rate {
        reads: p.read_iops,
        writes: p.write_iops,
        read_bytes: p.read_bytes_per_s,
        written_bytes: p.write_bytes_per_s,
    };
    (rate != Rate::default()).then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadstead_api::v1::{HostReport, PortalReport, UnusedDrive};

    #[test]
    fn addresses_have_a_default_port_and_a_clear_refusal() {
        let shown = |text| address(text).map(|address| address.to_string());
        assert_eq!(shown("10.0.0.1"), Ok("10.0.0.1:4420".into()));
        assert_eq!(shown("10.0.0.1:9"), Ok("10.0.0.1:9".into()));
        assert_eq!(shown("fd00::1"), Ok("[fd00::1]:4420".into()));
        assert_eq!(shown("[fd00::1]:9"), Ok("[fd00::1]:9".into()));
        assert_eq!(shown("rdma:10.0.0.1"), Ok("rdma:10.0.0.1:4420".into()));
        assert_eq!(shown("local"), Ok("local".into()));
        assert!(service("local").is_err(), "no discovery service is there");
        let port = service("10.0.0.1").map(|portal| portal.address.port());
        assert_eq!(port, Ok(8009));
        assert!(address("node1:4420").unwrap_err().contains("'node1:4420'"));
    }

    #[test]
    fn the_local_path_has_no_address_both_ways() {
        let sent = message(Portal::LOCAL);
        assert_eq!(sent.transport(), v1::Transport::Local);
        assert_eq!((sent.address.as_str(), sent.port), ("", 0));
        let tcp = message(Portal::tcp(([10, 0, 0, 1], 4420).into()));
        let shown = |portal: v1::Portal| {
            let report = AttachmentReport {
                paths: vec![v1::PathReport {
                    portal: Some(portal),
                    state: PathState::Live.into(),
                    ..v1::PathReport::default()
                }],
                ..AttachmentReport::default()
            };
            let shown = attachment(&report);
            (shown.transport, shown.paths[0].portal.clone())
        };
        assert_eq!(shown(sent), ("local".into(), "local".into()));
        assert_eq!(shown(tcp), ("tcp".into(), "tcp 10.0.0.1:4420".into()));
    }

    fn report() -> NodeReport {
        NodeReport {
            host: Some(HostReport {
                unused_drives: vec![UnusedDrive {
                    path: "/dev/sdz".into(),
                    ..UnusedDrive::default()
                }],
                ..HostReport::default()
            }),
            drives: vec![
                DriveReport {
                    name: "t/a".into(),
                    state: DriveState::Online.into(),
                    capacity_bytes: 10,
                    ..DriveReport::default()
                },
                DriveReport {
                    name: "t/b".into(),
                    state: DriveState::Missing.into(),
                    message: "gone".into(),
                    ..DriveReport::default()
                },
            ],
            portals: vec![PortalReport {
                listening: true,
                ..PortalReport::default()
            }],
            ..NodeReport::default()
        }
    }

    #[test]
    fn a_target_with_a_missing_drive_is_not_ready() {
        let inventory = from_report(&report());
        assert_eq!(inventory.targets.len(), 1);
        assert!(!inventory.targets[0].ready);
        assert_eq!(inventory.targets[0].capacity_bytes, 10);
        assert_eq!(inventory.drives.len(), 3);
        assert!(inventory.drives[2].unused());
        let problems = inventory.problems();
        assert!(
            problems
                .iter()
                .any(|p| p.contains("t/b") && p.contains("gone")),
            "{problems:?}"
        );
        assert!(!problems.iter().any(|p| p.contains("sdz")), "{problems:?}");
    }
}
