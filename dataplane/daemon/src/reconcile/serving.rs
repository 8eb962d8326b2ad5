//! Steps that concern the reactors: what they serve, and where they listen.

use roadstead_nvme::Portal;

use uuid::Uuid;

use super::plan::{Action, Export, Shown};
use super::{Reconciler, StepError};
use crate::desired::Hosts;
use crate::serve::{ExportedNamespace, ExportedSubsystem, Exports, HostAccess, ServeError};

impl Reconciler {
    /// Carries out steps that concern the reactors, all in one turn of them.
    pub(super) fn serve(&mut self, actions: Vec<Action>) -> Result<(), ServeError> {
        let mut portals = Vec::new();
        let mut exports_changed = false;
        for action in actions {
            match action {
                Action::Unexport(nqn) => {
                    tracing::info!(subsystem = nqn, "subsystem removed");
                    self.observed.subsystems.remove(&nqn);
                    exports_changed = true;
                }
                Action::Export(subsystem) => {
                    let volumes =
                        self.names(subsystem.namespaces.values().map(|shown| &shown.uuid));
                    tracing::info!(subsystem = subsystem.nqn, ?volumes, "subsystem served");
                    self.observed
                        .subsystems
                        .insert(subsystem.nqn.clone(), subsystem);
                    exports_changed = true;
                }
                Action::SetRules(rules) => {
                    tracing::info!(?rules, "portals' rules changed");
                    self.server.set_rules(rules.clone())?;
                    self.observed.rules = rules;
                }
                Action::Unlisten(_) | Action::Listen(_) => portals.push(action),
                _ => {}
            }
        }
        if exports_changed {
            self.server.set_exports(self.exports())?;
        }
        if !portals.is_empty() {
            self.set_portals(&portals)?;
        }
        Ok(())
    }

    fn set_portals(&mut self, actions: &[Action]) -> Result<(), ServeError> {
        let mut wanted = self.observed.portals.clone();
        for action in actions {
            match action {
                Action::Listen(portal) => drop(wanted.insert(*portal)),
                Action::Unlisten(portal) => drop(wanted.remove(portal)),
                _ => {}
            }
        }
        let wanted: Vec<Portal> = wanted.into_iter().collect();
        let results = self.server.set_portals(&wanted)?;
        self.observed.portals.clear();
        for result in results {
            let portal = result.portal;
            match result.listening {
                Ok(_) => {
                    if self.failures.remove(&Action::Listen(portal)).is_some()
                        || actions.contains(&Action::Listen(portal))
                    {
                        tracing::info!(%portal, "portal open");
                    }
                    self.observed.portals.insert(portal);
                }
                Err(why) => self.failed(Action::Listen(portal), StepError::Listen(why)),
            }
        }
        Ok(())
    }

    /// What the observed subsystems mean to the reactors.
    pub(super) fn exports(&self) -> Exports {
        let subsystems = self.observed.subsystems.values();
        Exports {
            subsystems: subsystems
                .map(|subsystem| self.exported(subsystem))
                .collect(),
        }
    }

    fn exported(&self, subsystem: &Export) -> ExportedSubsystem {
        let namespace = |shown: &Shown| {
            let drive = self.drives.get(&shown.drive)?;
            Some(ExportedNamespace {
                volume: drive.handle().volume(shown.uuid)?,
                drive: drive.handle().clone(),
                io: drive.io.clone(),
                cache_epoch: Some(drive.cache_epoch),
            })
        };
        let namespaces = subsystem.namespaces.iter();
        ExportedSubsystem {
            nqn: subsystem.nqn.clone(),
            serial: subsystem.serial.clone(),
            hosts: match &subsystem.hosts {
                Hosts::Any => HostAccess::Any,
                Hosts::Listed(hosts) => HostAccess::Listed(hosts.clone()),
            },
            ana_groups: subsystem.ana_groups.clone(),
            namespaces: namespaces
                .filter_map(|(nsid, shown)| Some((*nsid, namespace(shown)?)))
                .collect(),
        }
    }

    /// The volumes' names, for the log.
    pub(super) fn names<'a>(&self, uuids: impl Iterator<Item = &'a Uuid>) -> Vec<String> {
        let name = |uuid: &Uuid| {
            let mut drives = self.observed.drives.values();
            let volume = drives.find_map(|drive| drive.volumes.get(uuid));
            volume.map_or_else(|| uuid.to_string(), |volume| volume.name.clone())
        };
        uuids.map(name).collect()
    }
}
