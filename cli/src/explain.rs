//! `roadstead explain`: all about one volume, with a drawing of its paths.

use std::fmt::Write;

use anyhow::{Result, bail};
use roadstead_crds::quantity::for_people;

use crate::inventory::{APPLIANCE, Attachment, Inventory, Volume};

/// The text for the volume that `name` names: its name, UUID or NQN.
///
/// # Errors
/// When there is no such volume.
pub(crate) fn explain(inventory: &Inventory, name: &str) -> Result<String> {
    let Some(volume) = inventory
        .volumes
        .iter()
        .find(|v| [&v.name, &v.uuid, &v.nqn].iter().any(|n| *n == name))
    else {
        bail!("there is no volume {name}; `roadstead volumes` lists them");
    };
    let mut out = String::new();
    about(&mut out, inventory, volume)?;
    let users: Vec<&Attachment> = inventory
        .attachments
        .iter()
        .filter(|a| a.volume == volume.name || (!volume.nqn.is_empty() && a.volume == volume.nqn))
        .collect();
    if users.is_empty() {
        writeln!(out, "\nNo node uses it now.")?;
    }
    for attachment in users {
        drawing(&mut out, volume, attachment)?;
    }
    Ok(out)
}

/// The volume itself.
fn about(out: &mut String, inventory: &Inventory, volume: &Volume) -> Result<()> {
    // Of what an appliance's namespace holds nothing is known.
    let used = match volume.node == APPLIANCE {
        true => String::new(),
        false => format!("{} used, ", for_people(volume.allocated_bytes)),
    };
    writeln!(
        out,
        "volume {}: {}, {used}{}",
        volume.name,
        for_people(volume.size_bytes),
        if volume.ready { "Ready" } else { "not ready" }
    )?;
    if !volume.message.is_empty() {
        writeln!(out, "  state   {}", volume.message)?;
    }
    if volume.node == APPLIANCE && !volume.nqn.is_empty() {
        writeln!(
            out,
            "  lives   on appliance {}, namespace {}",
            volume.target, volume.nsid
        )?;
    } else if volume.drive.is_empty() {
        writeln!(out, "  lives   nowhere yet")?;
    } else {
        let drive = inventory
            .drives
            .iter()
            .find(|d| d.target == volume.target && d.name == volume.drive);
        let shown = drive.map_or(String::new(), |d| format!(" ({}, {})", d.path, d.state));
        writeln!(
            out,
            "  lives   on node {}, target {}, drive {}{shown}",
            volume.node, volume.target, volume.drive
        )?;
    }
    if !volume.nqn.is_empty() {
        writeln!(out, "  served  as {}", volume.nqn)?;
    }
    if let Some(rate) = &volume.rate {
        writeln!(out, "  now     {rate}")?;
    }
    Ok(())
}

/// One node that uses it: each path as an arrow from the node to the target.
fn drawing(out: &mut String, volume: &Volume, a: &Attachment) -> Result<()> {
    let device = if a.device.is_empty() {
        "no device yet".to_owned()
    } else {
        format!("{} by {}", a.device, a.method)
    };
    let end = match volume.node == APPLIANCE {
        true => format!("{}, namespace {}", volume.target, volume.nsid),
        false => format!("{}/{}", volume.target, volume.drive),
    };
    writeln!(out, "\n  {} [{device}]", a.node)?;
    for (i, path) in a.paths.iter().enumerate() {
        let branch = if i + 1 == a.paths.len() { '└' } else { '├' };
        let line = if path.state == "Live" { "══" } else { "--" };
        let mut state = path.state.clone();
        if !path.ana_state.is_empty() {
            write!(state, ", {}", path.ana_state)?;
        }
        writeln!(
            out,
            "    {branch}{line} {} ({state}) {line}> {end}",
            path.portal
        )?;
        if let Some(rate) = &path.rate {
            writeln!(out, "       {rate}")?;
        }
        if !path.message.is_empty() {
            writeln!(out, "       {}", path.message)?;
        }
    }
    decision(out, a)?;
    if !a.ready {
        writeln!(out, "    problem {}", a.message)?;
    }
    Ok(())
}

/// What the policy chose, why, and what else there was.
fn decision(out: &mut String, a: &Attachment) -> Result<()> {
    let used = match a.transport.as_str() {
        "" => "nothing carries I/O now",
        transport => transport,
    };
    match (a.chosen.as_str(), a.policy.as_str()) {
        ("", _) => writeln!(out, "    uses    {used}")?,
        (chosen, policy) => writeln!(out, "    uses    {used} (policy {policy} chose {chosen})")?,
    }
    if !a.reason.is_empty() {
        writeln!(out, "    why     {}", a.reason)?;
    }
    for candidate in &a.candidates {
        let mark = if candidate.accepted { '+' } else { '-' };
        writeln!(out, "          {mark} {}", candidate.reason)?;
    }
    if !a.superseded.is_empty() {
        writeln!(out, "    but     {}", a.superseded)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Candidate, Drive, Path};
    use crate::rates::Rate;

    fn inventory() -> Inventory {
        Inventory {
            drives: vec![Drive {
                target: "t".into(),
                name: "d".into(),
                path: "/dev/nvme0n1".into(),
                state: "Online".into(),
                ..Drive::default()
            }],
            volumes: vec![Volume {
                name: "pvc-1".into(),
                uuid: "u".into(),
                nqn: "nqn.x:u".into(),
                target: "t".into(),
                drive: "d".into(),
                node: "node1".into(),
                ready: true,
                size_bytes: 1 << 30,
                ..Volume::default()
            }],
            attachments: vec![Attachment {
                volume: "pvc-1".into(),
                node: "node2".into(),
                ready: true,
                method: "fuse".into(),
                device: "/dev/loop3".into(),
                transport: "tcp".into(),
                chosen: "tcp".into(),
                policy: "default".into(),
                reason: "TCP is the only transport".into(),
                candidates: vec![Candidate {
                    accepted: false,
                    reason: "RoCE rejected: node2 has no RDMA device".into(),
                }],
                superseded: "a new attachment would wait".into(),
                paths: vec![Path {
                    portal: "tcp 10.0.0.1:4420".into(),
                    state: "Live".into(),
                    ana_state: "optimized".into(),
                    rate: Some(Rate {
                        reads: 5,
                        read_bytes: 20 << 10,
                        ..Rate::default()
                    }),
                    ..Path::default()
                }],
                ..Attachment::default()
            }],
            ..Inventory::default()
        }
    }

    #[test]
    fn draws_who_serves_whom() {
        let text = explain(&inventory(), "pvc-1").unwrap();
        for part in [
            "1Gi, 0 used, Ready",
            "node node1, target t, drive d (/dev/nvme0n1, Online)",
            "node2 [/dev/loop3 by fuse]",
            "└══ tcp 10.0.0.1:4420 (Live, optimized) ══> t/d",
            "uses    tcp (policy default chose tcp)",
            "why     TCP is the only transport",
            "- RoCE rejected: node2 has no RDMA device",
            "but     a new attachment would wait",
            "       5 reads/s of 20KiB/s, 0 writes/s of 0B/s",
        ] {
            assert!(text.contains(part), "no '{part}' in:\n{text}");
        }
    }

    #[test]
    fn an_appliance_is_called_one() {
        let mut inventory = inventory();
        inventory.volumes[0] = Volume {
            drive: String::new(),
            node: APPLIANCE.into(),
            nsid: 3,
            ..inventory.volumes[0].clone()
        };
        let text = explain(&inventory, "pvc-1").unwrap();
        for part in [
            "volume pvc-1: 1Gi, Ready",
            "lives   on appliance t, namespace 3",
            "└══ tcp 10.0.0.1:4420 (Live, optimized) ══> t, namespace 3",
        ] {
            assert!(text.contains(part), "no '{part}' in:\n{text}");
        }
    }

    #[test]
    fn finds_by_uuid_and_nqn_and_names_what_is_missing() {
        assert!(explain(&inventory(), "u").is_ok());
        assert!(explain(&inventory(), "nqn.x:u").is_ok());
        let error = explain(&inventory(), "other").unwrap_err().to_string();
        assert!(error.contains("no volume other"), "{error}");
    }
}
