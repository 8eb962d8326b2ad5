//! What there is, in the words that are printed: filled from a cluster or from one daemon, read by the rest.

use serde::Serialize;

use crate::rates::Rate;

/// A source of capacity: a Target, or the one machine that was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Target {
    /// Its name.
    pub(crate) name: String,
    /// The node with the drives; [`APPLIANCE`] for a foreign one.
    pub(crate) node: String,
    /// Whether it serves with all its drives.
    pub(crate) ready: bool,
    /// Why, or why not.
    pub(crate) message: String,
    /// Room for volumes.
    pub(crate) capacity_bytes: u64,
    /// Room for new volumes.
    pub(crate) free_bytes: u64,
    /// Where hosts connect: `tcp 10.0.0.1:4420`.
    pub(crate) portals: Vec<String>,
}

/// What stands for a node where there is none, because it is a foreign appliance.
pub(crate) const APPLIANCE: &str = "(appliance)";

/// The state of a drive that no target uses.
pub(crate) const UNUSED: &str = "Unused";

/// A drive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Drive {
    /// The target; empty for an unused drive.
    pub(crate) target: String,
    /// Its name in the target; empty for an unused drive.
    pub(crate) name: String,
    /// The node.
    pub(crate) node: String,
    /// The device or file.
    pub(crate) path: String,
    /// Serial number of the device.
    pub(crate) serial: String,
    /// `Online`, `Refused`, `Missing`, `Failed` or [`UNUSED`].
    pub(crate) state: String,
    /// Why it is not online.
    pub(crate) message: String,
    /// Room for volumes.
    pub(crate) capacity_bytes: u64,
    /// Room for new volumes.
    pub(crate) free_bytes: u64,
}

impl Drive {
    /// Whether no target uses it.
    pub(crate) fn unused(&self) -> bool {
        self.state == UNUSED
    }
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Volume {
    /// Its name.
    pub(crate) name: String,
    /// Its UUID.
    pub(crate) uuid: String,
    /// NQN of its subsystem.
    pub(crate) nqn: String,
    /// Where it lives: target.
    pub(crate) target: String,
    /// Where it lives: drive of the target.
    pub(crate) drive: String,
    /// Where it lives: node; [`APPLIANCE`] for a foreign one.
    pub(crate) node: String,
    /// Its identifier in the subsystem; 0 when it is not known.
    pub(crate) nsid: u32,
    /// Whether it is served.
    pub(crate) ready: bool,
    /// Why, or why not.
    pub(crate) message: String,
    /// Its size.
    pub(crate) size_bytes: u64,
    /// Space that its data takes.
    pub(crate) allocated_bytes: u64,
    /// What goes on now; only `explain` looks.
    #[serde(skip)]
    pub(crate) rate: Option<Rate>,
}

/// A volume on a node that uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Attachment {
    /// Its name.
    pub(crate) name: String,
    /// The volume's name; its NQN where the name is not known.
    pub(crate) volume: String,
    /// The node that uses it.
    pub(crate) node: String,
    /// Whether it works.
    pub(crate) ready: bool,
    /// Why, or why not.
    pub(crate) message: String,
    /// What carries the I/O; empty while no path is live.
    pub(crate) transport: String,
    /// The transport that the policy chose.
    pub(crate) chosen: String,
    /// The policy.
    pub(crate) policy: String,
    /// Why this transport.
    pub(crate) reason: String,
    /// What was considered.
    pub(crate) candidates: Vec<Candidate>,
    /// Why another transport, which would be chosen now, is not used.
    pub(crate) superseded: String,
    /// How the device is made.
    pub(crate) method: String,
    /// The block device on the node.
    pub(crate) device: String,
    /// The paths.
    pub(crate) paths: Vec<Path>,
}

/// A way to a volume that was considered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Candidate {
    /// Whether it is one of the paths.
    pub(crate) accepted: bool,
    /// Why, or why not.
    pub(crate) reason: String,
}

/// A way to a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Path {
    /// `tcp 10.0.0.1:4420`.
    pub(crate) portal: String,
    /// `Live`, `Connecting`, `Failed`, ...
    pub(crate) state: String,
    /// ANA state.
    pub(crate) ana_state: String,
    /// Why it does not work.
    pub(crate) message: String,
    /// What goes on now, where it is known.
    #[serde(skip)]
    pub(crate) rate: Option<Rate>,
}

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inventory {
    /// Sources of capacity.
    pub(crate) targets: Vec<Target>,
    /// Drives, used and unused.
    pub(crate) drives: Vec<Drive>,
    /// Volumes.
    pub(crate) volumes: Vec<Volume>,
    /// Volumes in use.
    pub(crate) attachments: Vec<Attachment>,
}

impl Inventory {
    /// A line for everything that does not work; empty when all does.
    pub(crate) fn problems(&self) -> Vec<String> {
        let line = |what: &str, name: &str, message: &str| format!("{what} {name}: {message}");
        let mut out = Vec::new();
        if self.targets.is_empty() {
            out.push("there is no target yet: apply a Target that names a node's drives".into());
        }
        for t in self.targets.iter().filter(|t| !t.ready) {
            out.push(line("target", &t.name, &t.message));
        }
        for d in &self.drives {
            if d.state != "Online" && !d.unused() {
                out.push(line(
                    "drive",
                    &format!("{}/{}", d.target, d.name),
                    &format!("{}: {}", d.state, d.message),
                ));
            }
        }
        for v in self.volumes.iter().filter(|v| !v.ready) {
            out.push(line("volume", &v.name, &v.message));
        }
        for a in self.attachments.iter().filter(|a| !a.ready) {
            out.push(line("attachment", &a.name, &a.message));
        }
        out
    }
}
