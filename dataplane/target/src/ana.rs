//! Asymmetric namespace access: the states of the ANA groups at a portal, and what a controller makes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use roadstead_nvme::log::{AnaGroup, AnaHeader};
use roadstead_nvme::{AnaState, Status};
use zerocopy::IntoBytes;

use crate::limits;
use crate::table::{Namespace, Namespaces};

/// The states of all ANA groups at one portal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnaStates {
    /// Of every group that `groups` does not name.
    pub others: AnaState,
    /// By group identifier.
    pub groups: BTreeMap<u32, AnaState>,
}

impl AnaStates {
    /// The same, with no group optimized.
    pub(crate) fn resting(&self) -> Self {
        let rest = |state| match state {
            AnaState::Optimized => AnaState::NonOptimized,
            other => other,
        };
        let groups = self.groups.iter();
        Self {
            others: rest(self.others),
            groups: groups.map(|(id, state)| (*id, rest(*state))).collect(),
        }
    }

    /// The state of a group.
    #[must_use]
    pub fn of(&self, group: u32) -> AnaState {
        self.groups.get(&group).copied().unwrap_or(self.others)
    }
}

/// What a controller shows: namespaces, and the states of the paths to them. Cheap to copy.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct View {
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) ana: Arc<AnaStates>,
}

/// A group as the log shows it.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    state: AnaState,
    namespaces: Vec<u32>,
}

impl View {
    /// What a host is shown; while its path rests, that is as good as another at best.
    pub(crate) fn shown(&self, rests: bool) -> Self {
        match rests {
            false => self.clone(),
            true => Self {
                namespaces: Arc::clone(&self.namespaces),
                ana: Arc::new(self.ana.resting()),
            },
        }
    }

    /// The namespace of an I/O command, if this path leads to it now.
    pub(crate) fn find(&self, nsid: u32) -> Result<&Namespace, Status> {
        let namespace = self
            .namespaces
            .get(&nsid)
            .ok_or(Status::INVALID_NAMESPACE.dnr())?;
        match self.state(namespace).refusal() {
            None => Ok(namespace),
            Some(status) => Err(status),
        }
    }

    /// The state of the path to a namespace.
    pub(crate) fn state(&self, namespace: &Namespace) -> AnaState {
        self.ana.of(namespace.ana_group)
    }

    /// The groups that have namespaces here.
    fn groups(&self) -> BTreeMap<u32, Group> {
        let mut groups = BTreeMap::new();
        for (&nsid, namespace) in self.namespaces.iter() {
            let group = groups.entry(namespace.ana_group).or_insert_with(|| Group {
                state: self.state(namespace),
                namespaces: Vec::new(),
            });
            group.namespaces.push(nsid);
        }
        groups
    }

    /// The namespaces that came, went or have other attributes in `new`. Another group or state is no such change.
    pub(crate) fn changed(&self, new: &Self) -> Vec<u32> {
        let attributes = |view: &Self, nsid: u32| {
            let namespace = view.namespaces.get(&nsid)?;
            Some(Namespace {
                ana_group: 0,
                ..*namespace
            })
        };
        let gone = self.namespaces.keys();
        let gone = gone.filter(|nsid| !new.namespaces.contains_key(nsid));
        let other = new.namespaces.keys();
        let other = other.filter(|&&nsid| attributes(self, nsid) != attributes(new, nsid));
        gone.chain(other).copied().collect()
    }

    /// Whether a namespace that stays has another group or state in `new`.
    pub(crate) fn has_other_paths(&self, new: &Self) -> bool {
        let path = |view: &Self, nsid: &u32| {
            let namespace = view.namespaces.get(nsid)?;
            Some((namespace.ana_group, view.state(namespace)))
        };
        self.namespaces
            .keys()
            .filter(|nsid| new.namespaces.contains_key(nsid))
            .any(|nsid| path(self, nsid) != path(new, nsid))
    }
}

/// Counts the changes of a controller's ANA log since its last reset.
#[derive(Debug, Default)]
pub(crate) struct AnaCounts {
    log: u64,
    groups: BTreeMap<u32, u64>,
}

impl AnaCounts {
    /// The view changes.
    pub(crate) fn count(&mut self, old: &View, new: &View) {
        let (old, new) = (old.groups(), new.groups());
        if old == new {
            return;
        }
        self.log += 1;
        for (id, group) in &new {
            if old.get(id) != Some(group) {
                *self.groups.entry(*id).or_default() += 1;
            }
        }
    }

    /// The log page, whole. It always has the bytes of the longest one: hosts reckon with these, and read it in parts.
    pub(crate) fn log(&self, view: &View, groups_only: bool) -> Vec<u8> {
        let groups = view.groups();
        let mut log = AnaHeader::new(self.log, u16::try_from(groups.len()).unwrap_or(u16::MAX))
            .as_bytes()
            .to_vec();
        for (id, group) in groups {
            let namespaces = if groups_only {
                &[]
            } else {
                group.namespaces.as_slice()
            };
            let count = u32::try_from(namespaces.len()).unwrap_or(u32::MAX);
            let changes = self.groups.get(&id).copied().unwrap_or(0);
            let head = AnaGroup::new(id, count, changes, group.state);
            log.extend_from_slice(head.as_bytes());
            log.extend(namespaces.iter().flat_map(|nsid| nsid.to_le_bytes()));
        }
        log.resize(limits::ANA_LOG_BYTES, 0);
        log
    }
}
