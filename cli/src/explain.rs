//! `roadstead explain`: all about one volume, with a drawing of its paths.

use std::fmt::Write;

use anyhow::{Result, bail};
use roadstead_crds::quantity::for_people;

use crate::inventory::{Attachment, Inventory, Volume};

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
    writeln!(
        out,
        "volume {}: {}, {} used, {}",
        volume.name,
        for_people(volume.size_bytes),
        for_people(volume.allocated_bytes),
        if volume.ready { "Ready" } else { "not ready" }
    )?;
    if !volume.message.is_empty() {
        writeln!(out, "  state   {}", volume.message)?;
    }
    if volume.drive.is_empty() {
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
    Ok(())
}

/// One node that uses it: each path as an arrow from the node to the target.
fn drawing(out: &mut String, volume: &Volume, a: &Attachment) -> Result<()> {
    let device = if a.device.is_empty() {
        "no device yet".to_owned()
    } else {
        format!("{} by {}", a.device, a.method)
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
            "    {branch}{line} {} ({state}) {line}> {}/{}",
            path.portal, volume.target, volume.drive
        )?;
        if !path.message.is_empty() {
            writeln!(out, "       {}", path.message)?;
        }
    }
    if !a.reason.is_empty() {
        writeln!(out, "    why     {}", a.reason)?;
    }
    if !a.ready {
        writeln!(out, "    problem {}", a.message)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Drive, Path};

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
                reason: "TCP is the only transport".into(),
                paths: vec![Path {
                    portal: "tcp 10.0.0.1:4420".into(),
                    state: "Live".into(),
                    ana_state: "optimized".into(),
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
            "why     TCP is the only transport",
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
