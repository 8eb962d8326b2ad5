//! What the node should be, parsed once from the control API's messages into values that cannot be
//! wrong by themselves.
//!
//! A state that is malformed is refused as a whole (`parse`). A reference to something that the state
//! does not have is no reason to refuse it, because one removed drive must not stop the others: it shows
//! in the report. A person's file is held to more: `dangling` names such references.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use roadstead_api::v1;
use roadstead_attach::{HostIdentity, PATHS_MAX};
use roadstead_nvme::Portal;
use roadstead_target::{AnaStates, PortalRules};
use uuid::Uuid;

mod portal;
mod spec;
mod value;

use portal::portal;
pub(crate) use portal::{path, portal_message};
pub(crate) use spec::*;
use value::*;
pub(crate) use value::{ana_state_message, keys, nqn, uuid};

/// Most appliances of a state: each has a thread.
const EXTERNALS_MAX: usize = 64;
/// Most addresses of an appliance.
const EXTERNAL_ADDRESSES_MAX: usize = 16;

/// What is said of a value that came from a Secret.
const SECRET: &str = "cannot be used; it is not shown";

/// Largest namespace identifier that a subsystem can have.
pub(crate) const NSID_MAX: u32 = 1024;

/// Parses a state; all that is wrong with it is named at once.
pub(crate) fn parse(state: &v1::NodeState) -> Result<Desired, Vec<Invalid>> {
    let mut parser = Parser::default();
    let desired = Desired {
        revision: state.revision.clone(),
        drives: collect(&state.drives, |i, drive| parser.drive(i, drive)),
        volumes: collect(&state.volumes, |i, volume| parser.volume(i, volume)),
        subsystems: collect(&state.subsystems, |i, subsystem| {
            parser.subsystem(i, subsystem)
        }),
        portals: parser.portals(state),
        attachments: collect(&state.attachments, |i, paths| parser.attachment(i, paths))
            .into_iter()
            .collect(),
        rules: std::mem::take(&mut parser.rules),
        externals: collect(&state.externals, |i, external| parser.external(i, external)),
    };
    if parser.invalid.is_empty() {
        Ok(desired)
    } else {
        Err(parser.invalid)
    }
}

fn collect<T, U>(from: &[T], mut parse: impl FnMut(usize, &T) -> Option<U>) -> Vec<U> {
    from.iter()
        .enumerate()
        .filter_map(|(i, item)| parse(i, item))
        .collect()
}

/// References to drives and volumes that the state does not have.
pub(crate) fn dangling(state: &v1::NodeState) -> Vec<Invalid> {
    let drives: HashSet<&str> = state
        .drives
        .iter()
        .map(|drive| drive.name.as_str())
        .collect();
    let mut found = Vec::new();
    for (i, volume) in state.volumes.iter().enumerate() {
        if !drives.contains(volume.drive.as_str()) {
            let what = format!("there is no drive of the name '{}'", volume.drive);
            found.push(Invalid {
                place: Place::Volume(i),
                field: "drive",
                what,
            });
        }
    }
    found
}

#[derive(Default)]
struct Parser {
    invalid: Vec<Invalid>,
    drives: HashSet<String>,
    volumes: HashSet<Uuid>,
    nqns: HashSet<String>,
    exported: HashSet<Uuid>,
    portals: HashSet<Portal>,
    attachments: HashSet<String>,
    externals: HashSet<String>,
    rules: PortalRules,
}

impl Parser {
    fn wrong(&mut self, place: Place, field: &'static str, what: impl Into<String>) {
        self.invalid.push(Invalid {
            place,
            field,
            what: what.into(),
        });
    }

    /// The value, or `None` with the reason noted.
    fn check<T>(
        &mut self,
        place: Place,
        field: &'static str,
        result: Result<T, String>,
    ) -> Option<T> {
        result.map_err(|what| self.wrong(place, field, what)).ok()
    }

    fn drive(&mut self, i: usize, drive: &v1::Drive) -> Option<DriveSpec> {
        let place = Place::Drive(i);
        let name = self.check(place, "name", name(&drive.name))?;
        if !self.drives.insert(name.clone()) {
            self.wrong(
                place,
                "name",
                format!("another drive has the name '{name}' too"),
            );
            return None;
        }
        let Some(source) = &drive.source else {
            self.wrong(place, "source", "is missing");
            return None;
        };
        let (field, source) = source_of(source);
        let source = self.check(place, field, source)?;
        Some(DriveSpec {
            name,
            owner: drive.owner.clone(),
            source,
            force: drive.force,
        })
    }

    fn volume(&mut self, i: usize, volume: &v1::Volume) -> Option<VolumeSpec> {
        let place = Place::Volume(i);
        let uuid = self.check(place, "uuid", uuid(&volume.uuid))?;
        if !self.volumes.insert(uuid) {
            self.wrong(
                place,
                "uuid",
                format!("another volume has the UUID {uuid} too"),
            );
            return None;
        }
        let spec = VolumeSpec {
            uuid,
            name: if volume.name.is_empty() {
                uuid.to_string()
            } else {
                volume.name.clone()
            },
            drive: volume.drive.clone(),
            size_bytes: volume.size_bytes,
            block_size: volume.block_size,
            absent: volume.absent,
        };
        if !spec.absent {
            self.check(place, "block_size", block_size(spec.block_size))?;
            self.check(
                place,
                "size_bytes",
                volume_size(spec.size_bytes, spec.block_size),
            )?;
        }
        Some(spec)
    }

    fn subsystem(&mut self, i: usize, subsystem: &v1::Subsystem) -> Option<SubsystemSpec> {
        let place = Place::Subsystem(i);
        let nqn = self.check(place, "nqn", nqn(&subsystem.nqn))?;
        if !self.nqns.insert(nqn.clone()) {
            self.wrong(
                place,
                "nqn",
                format!("another subsystem has the NQN '{nqn}' too"),
            );
            return None;
        }
        let serial = self.check(place, "serial", serial(&subsystem.serial, &nqn))?;
        let (mut namespaces, mut ana_groups) = (BTreeMap::new(), BTreeMap::new());
        for (j, namespace) in subsystem.namespaces.iter().enumerate() {
            let place = Place::Namespace(i, j);
            let (nsid, volume) = self.namespace(place, namespace)?;
            let group = self.check(place, "ana_group", ana_group(namespace.ana_group))?;
            if group != ANA_GROUP_DEFAULT {
                ana_groups.insert(nsid, group);
            }
            if namespaces.insert(nsid, volume).is_some() {
                let what = format!("another namespace of the subsystem has {nsid} too");
                self.wrong(Place::Namespace(i, j), "nsid", what);
            }
        }
        let hosts = if subsystem.allow_any_host {
            Hosts::Any
        } else {
            let mut listed = BTreeSet::new();
            for host in &subsystem.allowed_hosts {
                listed.insert(self.check(place, "allowed_hosts", value::nqn(host))?);
            }
            Hosts::Listed(listed)
        };
        Some(SubsystemSpec {
            nqn,
            serial,
            namespaces,
            ana_groups,
            hosts,
        })
    }

    fn namespace(&mut self, place: Place, namespace: &v1::Namespace) -> Option<(u32, Uuid)> {
        let nsid = namespace.nsid;
        if !(1..=NSID_MAX).contains(&nsid) {
            self.wrong(
                place,
                "nsid",
                format!("{nsid} is not a number from 1 to {NSID_MAX}"),
            );
            return None;
        }
        let volume = self.check(place, "volume_uuid", uuid(&namespace.volume_uuid))?;
        if !self.exported.insert(volume) {
            self.wrong(
                place,
                "volume_uuid",
                format!("volume {volume} is exported twice"),
            );
            return None;
        }
        Some((nsid, volume))
    }

    fn portals(&mut self, state: &v1::NodeState) -> Vec<Portal> {
        let mut specs = collect(&state.portals, |i, message| {
            let spec = self.portal(Place::Portal(i), message)?;
            let states = self.ana_states(Place::Portal(i), message)?;
            if states != AnaStates::default() {
                self.rules.ana.insert(spec, states);
            }
            Some(spec)
        });
        let discovery = collect(&state.discovery, |i, message| {
            self.portal(Place::Discovery(i), message)
        });
        self.rules.discovery_only = discovery.iter().copied().collect();
        let referrals = collect(&state.referrals, |i, message| {
            let place = Place::Referral(i);
            let spec = portal(message).map_err(|(field, what)| self.wrong(place, field, what));
            spec.ok()
        });
        self.rules.referrals = referrals.into_iter().collect();
        specs.extend(discovery);
        specs
    }

    /// Without a path that leads to no other node. An empty list says nothing.
    fn attachment(
        &mut self,
        i: usize,
        message: &v1::AttachmentPaths,
    ) -> Option<(String, Vec<Portal>)> {
        if !self.attachments.insert(message.id.clone()) {
            let what = format!("another has the id '{}' too", message.id);
            self.wrong(Place::Attachment(i), "id", what);
            return None;
        }
        if message.paths.len() > PATHS_MAX {
            let what = format!("{} are more than {PATHS_MAX}", message.paths.len());
            self.wrong(Place::Attachment(i), "paths", what);
            return None;
        }
        let mut paths = Vec::new();
        for (j, one) in message.paths.iter().enumerate() {
            if one.transport() == v1::Transport::Local {
                continue;
            }
            let place = Place::AttachmentPath(i, j);
            let path = portal(one).map_err(|(field, what)| self.wrong(place, field, what));
            paths.push(path.ok()?);
        }
        (!paths.is_empty()).then(|| (message.id.clone(), paths))
    }

    fn external(&mut self, i: usize, external: &v1::External) -> Option<ExternalSpec> {
        let place = Place::External(i);
        let name = self.check(place, "name", name(&external.name))?;
        if self.externals.len() >= EXTERNALS_MAX || !self.externals.insert(name.clone()) {
            let what = format!("'{name}' is there twice, or there are more than {EXTERNALS_MAX}");
            self.wrong(place, "name", what);
            return None;
        }
        let given = |text: &str| {
            Some(text)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let nqn = given(&external.nqn).map(|nqn| self.check(place, "nqn", value::nqn(&nqn)));
        let services = self.addresses(place, "discovery", &external.discovery)?;
        let portals = self.addresses(place, "portals", &external.portals)?;
        let source = match (nqn, services.is_empty(), portals.is_empty()) {
            (nqn, false, true) => ExternalSource::Discovery {
                services,
                nqn: nqn.map_or(Some(None), |nqn| nqn.map(Some))?,
            },
            (Some(nqn), true, false) => ExternalSource::Subsystem { nqn: nqn?, portals },
            _ => {
                self.wrong(
                    place,
                    "portals",
                    "discovery alone, or nqn and portals, are needed",
                );
                return None;
            }
        };
        let host = match (external.host_nqn.as_str(), external.host_id.as_str()) {
            ("", "") if external.keys.is_none() => None,
            (nqn, id) => Some(HostIdentity {
                nqn: self.check(
                    place,
                    "host_nqn",
                    value::nqn(nqn).map_err(|_| SECRET.into()),
                )?,
                id: self.check(place, "host_id", uuid(id).map_err(|_| SECRET.into()))?,
                keys: self.check(place, "keys", keys(external.keys.as_ref()))?,
            }),
        };
        Some(ExternalSpec { name, source, host })
    }

    fn addresses(
        &mut self,
        place: Place,
        field: &'static str,
        all: &[v1::Portal],
    ) -> Option<Vec<Portal>> {
        if all.len() > EXTERNAL_ADDRESSES_MAX {
            self.wrong(
                place,
                field,
                format!("there are more than {EXTERNAL_ADDRESSES_MAX}"),
            );
            return None;
        }
        let parsed = all.iter().map(|message| {
            let what = |(part, what)| format!("{part}: {what}");
            self.check(place, field, portal(message).map_err(what))
        });
        parsed.collect()
    }

    fn ana_states(&mut self, place: Place, message: &v1::Portal) -> Option<AnaStates> {
        let others = self.check(place, "ana_state", ana_state(message.ana_state))?;
        let mut groups = BTreeMap::new();
        for one in &message.ana_groups {
            let group = self.check(place, "ana_groups", ana_group(one.group))?;
            let state = self.check(place, "ana_groups", ana_state(one.state))?;
            if groups.insert(group, state).is_some() {
                self.wrong(place, "ana_groups", format!("group {group} is there twice"));
            }
        }
        Some(AnaStates { others, groups })
    }

    fn portal(&mut self, place: Place, message: &v1::Portal) -> Option<Portal> {
        let spec = portal(message)
            .map_err(|(field, what)| self.wrong(place, field, what))
            .ok()?;
        if !self.portals.insert(spec) {
            self.wrong(place, "address", format!("{spec} is given twice"));
            return None;
        }
        Some(spec)
    }
}

fn source_of(source: &v1::drive::Source) -> (&'static str, Result<Source, String>) {
    use v1::drive::Source as Wire;
    match source {
        Wire::Path(path) => ("path", absolute(path).map(Source::Path)),
        Wire::Serial(serial) => ("serial", not_empty(serial).map(Source::Serial)),
        Wire::Model(model) => ("model", not_empty(model).map(Source::Model)),
        Wire::Memory(memory) => {
            let size_bytes = memory.size_bytes;
            (
                "memory",
                has_room(size_bytes).map(|()| Source::Memory { size_bytes }),
            )
        }
        Wire::File(file) => {
            let size_bytes = file.size_bytes;
            let path = has_room(size_bytes).and_then(|()| absolute(&file.path));
            ("file", path.map(|path| Source::File { path, size_bytes }))
        }
    }
}

#[cfg(test)]
mod tests;
