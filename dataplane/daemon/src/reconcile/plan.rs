//! The pure core: what is, and what should be, give what to do next.
//!
//! `plan` names every step that can be taken now; the rim takes some of them, looks again and asks again,
//! until nothing is left. A step is only named when nothing stands in its way any more (a volume is deleted
//! when no subsystem shows it, a drive is closed when none of its volumes is shown), so the order in which
//! steps end does not matter, and neither does where a crash cuts the sequence.
//!
//! Guaranteed: a volume is deleted only when the state says `absent` and no wanted subsystem shows it; a
//! state that is reached plans nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use roadstead_nvme::Portal;
use roadstead_target::PortalRules;
use uuid::Uuid;

use crate::desired::{Desired, DriveSpec, Hosts, Source, SubsystemSpec, VolumeSpec};

/// What is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// The drives that are open, by name.
    pub(crate) drives: BTreeMap<String, OpenDrive>,
    /// The subsystems that hosts can connect to, by NQN, with the namespaces that they really have.
    pub(crate) subsystems: BTreeMap<String, Export>,
    pub(crate) portals: BTreeSet<Portal>,
    pub(crate) rules: PortalRules,
}

/// A drive with a pool that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenDrive {
    /// What it was opened as.
    pub(crate) spec: DriveSpec,
    pub(crate) volumes: BTreeMap<Uuid, VolumeNow>,
    /// The device went away. It is looked for and opened again; until then hosts get errors from what is
    /// left of it, because taking the namespaces away would make them forget the device.
    pub(crate) gone: bool,
}

/// A volume that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeNow {
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    pub(crate) block_size: u32,
}

/// A subsystem as hosts see it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Export {
    pub(crate) nqn: String,
    pub(crate) serial: String,
    pub(crate) hosts: Hosts,
    /// By namespace identifier.
    pub(crate) namespaces: BTreeMap<u32, Shown>,
    /// ANA groups of the namespaces that are not in group 1, by namespace identifier.
    pub(crate) ana_groups: BTreeMap<u32, u32>,
}

/// A volume that hosts see, on the drive that it is on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Shown {
    pub(crate) drive: String,
    pub(crate) uuid: Uuid,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Unlisten(Portal),
    /// Ends the connections to the subsystem, too.
    Unexport(String),
    CloseDrive(String),
    /// Takes the place of the same drive that is gone, if there is one.
    OpenDrive(DriveSpec),
    /// A file becomes larger while it is used.
    GrowDrive {
        drive: String,
        size_bytes: u64,
    },
    DeleteVolume {
        drive: String,
        uuid: Uuid,
    },
    CreateVolume(VolumeSpec),
    GrowVolume {
        drive: String,
        uuid: Uuid,
        size_bytes: u64,
    },
    /// Makes the subsystem, or gives it other namespaces and hosts.
    Export(Export),
    /// Says what portals are for.
    SetRules(PortalRules),
    Listen(Portal),
}

impl Action {
    /// The drive that the step works on: one step at a time on each.
    pub(crate) fn drive(&self) -> Option<&str> {
        match self {
            Self::OpenDrive(spec) => Some(&spec.name),
            Self::CreateVolume(volume) => Some(&volume.drive),
            Self::CloseDrive(drive)
            | Self::GrowDrive { drive, .. }
            | Self::DeleteVolume { drive, .. }
            | Self::GrowVolume { drive, .. } => Some(drive),
            Self::Unlisten(_)
            | Self::Unexport(_)
            | Self::Export(_)
            | Self::SetRules(_)
            | Self::Listen(_) => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlisten(portal) => write!(f, "stop listening at {portal}"),
            Self::Unexport(nqn) => write!(f, "stop serving {nqn}"),
            Self::CloseDrive(drive) => write!(f, "close drive {drive}"),
            Self::OpenDrive(spec) => write!(f, "open drive {}", spec.name),
            Self::GrowDrive { drive, size_bytes } => {
                write!(f, "grow drive {drive} to {size_bytes} bytes")
            }
            Self::DeleteVolume { drive, uuid } => {
                write!(f, "delete volume {uuid} on drive {drive}")
            }
            Self::CreateVolume(spec) => {
                write!(
                    f,
                    "make volume {} ({}) on drive {}",
                    spec.name, spec.uuid, spec.drive
                )
            }
            Self::GrowVolume {
                drive,
                uuid,
                size_bytes,
            } => {
                write!(
                    f,
                    "grow volume {uuid} on drive {drive} to {size_bytes} bytes"
                )
            }
            Self::Export(subsystem) => write!(f, "serve {}", subsystem.nqn),
            Self::SetRules(_) => write!(f, "set ANA states, discovery portals and referrals"),
            Self::Listen(portal) => write!(f, "listen at {portal}"),
        }
    }
}

/// Every step that can be taken now, the more urgent first.
pub(crate) fn plan(observed: &Observed, desired: &Desired) -> Vec<Action> {
    let view = View::new(observed, desired);
    let mut actions = Vec::new();
    view.stop_listening(&mut actions);
    let wanted = view.exports();
    view.unexport(&wanted, &mut actions);
    view.close_drives(&mut actions);
    view.open_drives(&mut actions);
    view.grow_drives(&mut actions);
    view.change_volumes(&mut actions);
    view.export(wanted, &mut actions);
    if observed.rules != desired.rules {
        actions.push(Action::SetRules(desired.rules.clone()));
    }
    view.listen(&mut actions);
    actions
}

/// Why the volume cannot be what is asked for, known without trying.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "the volume has {size_bytes} bytes and cannot shrink to {asked_bytes}; ask for as much or more"
    )]
    Shrink { size_bytes: u64, asked_bytes: u64 },
    #[error("the volume has blocks of {has} bytes; that cannot change to {asked}")]
    BlockSize { has: u32, asked: u32 },
    #[error("the volume is on drive '{has}' and cannot move to '{asked}'")]
    OtherDrive { has: String, asked: String },
    #[error("subsystem {nqn} still shows the volume; remove it there before the volume is deleted")]
    InUse { nqn: String },
}

impl Refusal {
    /// The word for the report.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Shrink { .. } => "ShrinkRefused",
            Self::BlockSize { .. } => "BlockSizeRefused",
            Self::OtherDrive { .. } => "OnOtherDrive",
            Self::InUse { .. } => "InUse",
        }
    }
}

/// What stands against a wanted volume, if anything does.
pub(crate) fn refusal(
    observed: &Observed,
    desired: &Desired,
    volume: &VolumeSpec,
) -> Option<Refusal> {
    let home = home(observed, volume, |_| true)?;
    let now = observed.drives.get(home)?.volumes.get(&volume.uuid)?;
    if home != volume.drive {
        return Some(Refusal::OtherDrive {
            has: home.to_owned(),
            asked: volume.drive.clone(),
        });
    }
    if volume.absent {
        let shows = |subsystem: &&SubsystemSpec| {
            subsystem
                .namespaces
                .values()
                .any(|uuid| *uuid == volume.uuid)
        };
        let nqn = desired.subsystems.iter().find(shows)?.nqn.clone();
        return Some(Refusal::InUse { nqn });
    }
    if now.block_size != volume.block_size {
        return Some(Refusal::BlockSize {
            has: now.block_size,
            asked: volume.block_size,
        });
    }
    if now.size_bytes > volume.size_bytes {
        let (size_bytes, asked_bytes) = (now.size_bytes, volume.size_bytes);
        return Some(Refusal::Shrink {
            size_bytes,
            asked_bytes,
        });
    }
    None
}

/// The drive that holds the volume: the one that the state names, if it does, else any other. A volume that
/// is on another drive than asked for is refused, but it is kept, and served as it is.
pub(crate) fn home<'a>(
    observed: &'a Observed,
    volume: &VolumeSpec,
    may_be: impl Fn(&str) -> bool,
) -> Option<&'a str> {
    let holds = |(name, open): &(&String, &OpenDrive)| {
        may_be(name) && open.volumes.contains_key(&volume.uuid)
    };
    let named = observed.drives.get_key_value(&volume.drive).filter(holds);
    let (name, _) = named.or_else(|| observed.drives.iter().find(holds))?;
    Some(name)
}

struct View<'a> {
    observed: &'a Observed,
    desired: &'a Desired,
    /// Drives that are open, but must not be as they are.
    closing: BTreeSet<&'a str>,
    /// The drive of every volume that the state speaks of and that can be served.
    homes: HashMap<Uuid, &'a str>,
    /// Volumes that hosts can reach now, with their drives.
    shown: BTreeSet<(&'a str, Uuid)>,
}

impl<'a> View<'a> {
    fn new(observed: &'a Observed, desired: &'a Desired) -> Self {
        let drives: HashMap<&str, &DriveSpec> = desired
            .drives
            .iter()
            .map(|drive| (drive.name.as_str(), drive))
            .collect();
        let closing: BTreeSet<&str> = observed
            .drives
            .iter()
            .filter(|(name, open)| {
                let wanted = drives.get(name.as_str());
                wanted.is_none_or(|wanted| !same_pool(wanted, &open.spec))
            })
            .map(|(name, _)| name.as_str())
            .collect();
        let home = |volume: &VolumeSpec| {
            let home = home(observed, volume, |drive| !closing.contains(drive))?;
            Some((volume.uuid, home))
        };
        let homes = desired.volumes.iter().filter_map(home).collect();
        let exports = observed.subsystems.values();
        let shown = exports
            .flat_map(|export| export.namespaces.values())
            .map(|shown| (shown.drive.as_str(), shown.uuid))
            .collect();
        Self {
            observed,
            desired,
            closing,
            homes,
            shown,
        }
    }

    fn stop_listening(&self, actions: &mut Vec<Action>) {
        let wanted: BTreeSet<&Portal> = self.desired.portals.iter().collect();
        let left = self
            .observed
            .portals
            .iter()
            .filter(|portal| !wanted.contains(portal));
        actions.extend(left.map(|portal| Action::Unlisten(*portal)));
    }

    /// The wanted subsystems, each with the namespaces that can be served. One that has none of those that
    /// it should have is not exported at all: its hosts try again, instead of seeing an empty subsystem.
    fn exports(&self) -> BTreeMap<&'a str, Export> {
        let mut exports = BTreeMap::new();
        for subsystem in &self.desired.subsystems {
            let shown = |(nsid, uuid): (&u32, &Uuid)| {
                let drive = (*self.homes.get(uuid)?).to_owned();
                Some((*nsid, Shown { drive, uuid: *uuid }))
            };
            let namespaces: BTreeMap<u32, Shown> =
                subsystem.namespaces.iter().filter_map(shown).collect();
            if namespaces.is_empty() && !subsystem.namespaces.is_empty() {
                continue;
            }
            let export = Export {
                nqn: subsystem.nqn.clone(),
                serial: subsystem.serial.clone(),
                hosts: subsystem.hosts.clone(),
                namespaces,
                ana_groups: subsystem.ana_groups.clone(),
            };
            exports.insert(subsystem.nqn.as_str(), export);
        }
        exports
    }

    fn unexport(&self, wanted: &BTreeMap<&str, Export>, actions: &mut Vec<Action>) {
        let left = self
            .observed
            .subsystems
            .keys()
            .filter(|nqn| !wanted.contains_key(nqn.as_str()));
        actions.extend(left.map(|nqn| Action::Unexport(nqn.clone())));
    }

    fn close_drives(&self, actions: &mut Vec<Action>) {
        for name in &self.closing {
            let Some(open) = self.observed.drives.get(*name) else {
                continue;
            };
            let is_shown = |uuid: &Uuid| self.shown.contains(&(*name, *uuid));
            if !open.volumes.keys().any(is_shown) {
                actions.push(Action::CloseDrive((*name).to_owned()));
            }
        }
    }

    fn open_drives(&self, actions: &mut Vec<Action>) {
        let lacking = |drive: &&DriveSpec| match self.observed.drives.get(&drive.name) {
            None => true,
            Some(open) => open.gone && !self.closing.contains(drive.name.as_str()),
        };
        actions.extend(
            self.desired
                .drives
                .iter()
                .filter(lacking)
                .cloned()
                .map(Action::OpenDrive),
        );
    }

    fn grow_drives(&self, actions: &mut Vec<Action>) {
        for wanted in &self.desired.drives {
            let Some(open) = self.observed.drives.get(&wanted.name) else {
                continue;
            };
            if open.gone || self.closing.contains(wanted.name.as_str()) {
                continue;
            }
            if let Some(size_bytes) = larger_file(wanted, &open.spec) {
                let drive = wanted.name.clone();
                actions.push(Action::GrowDrive { drive, size_bytes });
            }
        }
    }

    /// Deletions first: they make room.
    fn change_volumes(&self, actions: &mut Vec<Action>) {
        let mut rest = Vec::new();
        for volume in &self.desired.volumes {
            let drive = volume.drive.as_str();
            let Some(open) = self.observed.drives.get(drive) else {
                continue;
            };
            if open.gone || self.closing.contains(drive) {
                continue;
            }
            if refusal(self.observed, self.desired, volume).is_some() {
                continue;
            }
            let (drive, uuid) = (volume.drive.clone(), volume.uuid);
            match open.volumes.get(&uuid) {
                None if volume.absent => {}
                None => rest.push(Action::CreateVolume(volume.clone())),
                Some(_) if volume.absent => {
                    if !self.shown.contains(&(volume.drive.as_str(), uuid)) {
                        actions.push(Action::DeleteVolume { drive, uuid });
                    }
                }
                Some(now) if now.size_bytes < volume.size_bytes => {
                    let size_bytes = volume.size_bytes;
                    rest.push(Action::GrowVolume {
                        drive,
                        uuid,
                        size_bytes,
                    });
                }
                Some(_) => {}
            }
        }
        actions.append(&mut rest);
    }

    fn export(&self, wanted: BTreeMap<&str, Export>, actions: &mut Vec<Action>) {
        for (nqn, subsystem) in wanted {
            if self.observed.subsystems.get(nqn) != Some(&subsystem) {
                actions.push(Action::Export(subsystem));
            }
        }
    }

    fn listen(&self, actions: &mut Vec<Action>) {
        let closed = |portal: &&Portal| !self.observed.portals.contains(portal);
        actions.extend(
            self.desired
                .portals
                .iter()
                .filter(closed)
                .map(|p| Action::Listen(*p)),
        );
    }
}

/// Whether an open drive is the one that is wanted. `force` means something only when it is opened, and so
/// does the size of memory: a new one would lose everything.
fn same_pool(wanted: &DriveSpec, open: &DriveSpec) -> bool {
    let source = match (&wanted.source, &open.source) {
        (Source::File { path: wanted, .. }, Source::File { path: open, .. }) => wanted == open,
        (Source::Memory { .. }, Source::Memory { .. }) => true,
        (wanted, open) => wanted == open,
    };
    source && wanted.owner == open.owner
}

/// The size that an open file should grow to. Files never shrink.
fn larger_file(wanted: &DriveSpec, open: &DriveSpec) -> Option<u64> {
    match (&wanted.source, &open.source) {
        (
            Source::File { size_bytes, .. },
            Source::File {
                size_bytes: now, ..
            },
        ) => (size_bytes > now).then_some(*size_bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
