//! Lists as aligned columns.

use roadstead_crds::quantity::for_people;

use crate::discover::Line;
use crate::inventory::{Inventory, UNUSED};

/// Rows under a header, columns as wide as their widest cell, two spaces between.
fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return "none".into();
    }
    let width = |i: usize| {
        rows.iter()
            .filter_map(|r| r.get(i))
            .map(|c| c.chars().count())
            .chain(header.get(i).map(|h| h.len()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let header = header.iter().map(|h| (*h).to_owned()).collect();
    let mut out = String::new();
    for row in std::iter::once(header).chain(rows) {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, w)| format!("{cell:<w$}"))
            .collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A dash for nothing, so that columns stay readable and cuttable.
fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.into()
}

fn yes_no(ready: bool) -> String {
    if ready { "True" } else { "False" }.into()
}

/// The list of `roadstead targets`.
pub(crate) fn targets(inventory: &Inventory) -> String {
    let rows = inventory.targets.iter().map(|t| {
        vec![
            t.name.clone(),
            yes_no(t.ready),
            or_dash(&t.node),
            for_people(t.capacity_bytes),
            for_people(t.free_bytes),
            or_dash(&t.portals.join(", ")),
            or_dash(if t.ready { "" } else { &t.message }),
        ]
    });
    table(
        &[
            "NAME", "READY", "NODE", "CAPACITY", "FREE", "PORTALS", "PROBLEM",
        ],
        rows.collect(),
    )
}

/// The list of `roadstead discover`.
pub(crate) fn discovered(lines: &[Line]) -> String {
    let row = |line: &Line| {
        vec![
            line.subsystem_nqn.clone(),
            line.transport.into(),
            line.address.to_string(),
        ]
    };
    table(
        &["SUBSYSTEM", "TRANSPORT", "ADDRESS"],
        lines.iter().map(row).collect(),
    )
}

/// The list of `roadstead drives`.
pub(crate) fn drives(inventory: &Inventory) -> String {
    let rows = inventory.drives.iter().map(|d| {
        vec![
            or_dash(&d.target),
            or_dash(&d.name),
            or_dash(&d.node),
            d.state.clone(),
            for_people(d.capacity_bytes),
            if d.state == UNUSED {
                "-".into()
            } else {
                for_people(d.free_bytes)
            },
            or_dash(&d.path),
            or_dash(&d.serial),
            or_dash(&d.message),
        ]
    });
    table(
        &[
            "TARGET", "DRIVE", "NODE", "STATE", "CAPACITY", "FREE", "PATH", "SERIAL", "PROBLEM",
        ],
        rows.collect(),
    )
}

/// The list of `roadstead volumes`.
pub(crate) fn volumes(inventory: &Inventory) -> String {
    let rows = inventory.volumes.iter().map(|v| {
        vec![
            v.name.clone(),
            yes_no(v.ready),
            for_people(v.size_bytes),
            for_people(v.allocated_bytes),
            or_dash(&v.target),
            or_dash(&v.drive),
            or_dash(&v.node),
            or_dash(if v.ready { "" } else { &v.message }),
        ]
    });
    table(
        &[
            "NAME", "READY", "SIZE", "USED", "TARGET", "DRIVE", "NODE", "PROBLEM",
        ],
        rows.collect(),
    )
}

/// The list of `roadstead attachments`.
pub(crate) fn attachments(inventory: &Inventory) -> String {
    let rows = inventory.attachments.iter().map(|a| {
        let paths: Vec<String> = a
            .paths
            .iter()
            .map(|p| format!("{} {}", p.portal, p.state))
            .collect();
        vec![
            or_dash(&a.volume),
            or_dash(&a.node),
            yes_no(a.ready),
            or_dash(&a.method),
            or_dash(&a.device),
            or_dash(&paths.join(", ")),
            or_dash(if a.ready { "" } else { &a.message }),
        ]
    });
    table(
        &[
            "VOLUME", "NODE", "READY", "METHOD", "DEVICE", "PATHS", "PROBLEM",
        ],
        rows.collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Target;

    #[test]
    fn columns_align_and_lines_have_no_trailing_space() {
        let inventory = Inventory {
            targets: vec![
                Target {
                    name: "a".into(),
                    node: "node1".into(),
                    ready: true,
                    capacity_bytes: 1 << 30,
                    ..Target::default()
                },
                Target {
                    name: "a-long-name".into(),
                    message: "no drive".into(),
                    ..Target::default()
                },
            ],
            ..Inventory::default()
        };
        let text = targets(&inventory);
        let lines: Vec<&str> = text.lines().collect();
        let column = |line: &str, word: &str| line.find(word);
        assert_eq!(column(lines[0], "READY"), column(lines[1], "True"));
        assert_eq!(column(lines[0], "READY"), column(lines[2], "False"));
        assert_eq!(column(lines[0], "PROBLEM"), column(lines[2], "no drive"));
        assert!(lines.iter().all(|l| l.trim_end() == *l));
    }

    #[test]
    fn an_empty_list_says_so() {
        assert_eq!(volumes(&Inventory::default()), "none");
    }
}
