//! From what the control side exports to what the target's core and the reactors work with.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use roadstead_nvme::{Nqn, Portal};
use roadstead_target::{
    Access, BlockSize, Namespace, PortalRules, Subsystem, Table, TableError, VolumeKey,
};

use super::counters::{CounterTable, VolumeCounters};
use super::exports::{DriveIo, ExportedNamespace, Exports, HostAccess};

/// A volume as reactors get it.
#[derive(Clone)]
pub(super) struct ServedVolume {
    pub(super) namespace: ExportedNamespace,
    pub(super) counters: VolumeCounters,
}

/// The volumes that are served, by the key that the core knows them by.
pub(super) type Volumes = BTreeMap<VolumeKey, ServedVolume>;

/// Something that cannot be exported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExportError {
    /// A name that is none.
    #[error("'{nqn}' is no NVMe qualified name; names begin with nqn. and have at most 223 bytes")]
    Name {
        /// The name.
        nqn: String,
    },
    /// The core refuses it.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// What is served now.
#[derive(Default)]
pub(super) struct Served {
    exports: Exports,
    portals: Vec<Portal>,
    rules: PortalRules,
    keys: Keys,
    /// Keys are never used twice: a command that was checked against an old table finds nothing.
    last_key: u64,
}

/// Which key stands for which volume on which drive.
type Keys = HashMap<Identity, VolumeKey>;

/// The addresses of a volume and its drive, which are unique as long as the exports hold them.
type Identity = (usize, usize);

fn identity(namespace: &ExportedNamespace) -> Identity {
    let drive = match &namespace.io {
        DriveIo::Memory(memory) => Arc::as_ptr(memory).addr(),
        DriveIo::File { fd } => Arc::as_ptr(fd).addr(),
    };
    (Arc::as_ptr(&namespace.volume).addr(), drive)
}

impl Served {
    /// Takes in a new state; the old one stays when it cannot be served.
    pub(super) fn set_exports(
        &mut self,
        exports: Exports,
        counters: &CounterTable,
    ) -> Result<(Arc<Volumes>, Table), ExportError> {
        let (mut volumes, mut keys, mut last_key) = (Volumes::new(), Keys::new(), self.last_key);
        for namespace in exports
            .subsystems
            .iter()
            .flat_map(|subsystem| subsystem.namespaces.values())
        {
            let identity = identity(namespace);
            if keys.contains_key(&identity) {
                continue;
            }
            let key = self.keys.get(&identity).copied().unwrap_or_else(|| {
                last_key += 1;
                VolumeKey(last_key)
            });
            let counters = counters.of(namespace.volume.uuid());
            volumes.insert(
                key,
                ServedVolume {
                    namespace: namespace.clone(),
                    counters,
                },
            );
            keys.insert(identity, key);
        }
        let table = table(&exports, &self.portals, &self.rules, &keys)?;
        let uuids: HashSet<_> = volumes
            .values()
            .map(|served| served.namespace.volume.uuid())
            .collect();
        counters.keep(|uuid| uuids.contains(&uuid));
        (self.exports, self.keys, self.last_key) = (exports, keys, last_key);
        Ok((Arc::new(volumes), table))
    }

    /// Takes in the portals that are open.
    pub(super) fn set_portals(&mut self, portals: Vec<Portal>) -> Result<Table, ExportError> {
        self.portals = portals;
        table(&self.exports, &self.portals, &self.rules, &self.keys)
    }

    /// Takes in what portals are for; the old rules stay when these make no sense.
    pub(super) fn set_rules(&mut self, rules: PortalRules) -> Result<Table, ExportError> {
        let table = table(&self.exports, &self.portals, &rules, &self.keys)?;
        self.rules = rules;
        Ok(table)
    }
}

fn table(
    exports: &Exports,
    portals: &[Portal],
    rules: &PortalRules,
    keys: &Keys,
) -> Result<Table, ExportError> {
    let mut table = Table::new(portals.to_vec());
    table.set_rules(rules.clone())?;
    for exported in &exports.subsystems {
        let mut namespaces = BTreeMap::new();
        for (&nsid, namespace) in &exported.namespaces {
            if let Some(&volume) = keys.get(&identity(namespace)) {
                let group = exported.ana_groups.get(&nsid).copied().unwrap_or(1);
                namespaces.insert(nsid, describe(volume, namespace, group));
            }
        }
        let access = match &exported.hosts {
            HostAccess::Any => Access::Any,
            HostAccess::Listed(hosts) => Access::Hosts(
                hosts
                    .iter()
                    .map(|nqn| name(nqn))
                    .collect::<Result<_, _>>()?,
            ),
        };
        let serial = exported.serial.clone();
        table.add(
            name(&exported.nqn)?,
            Subsystem {
                serial,
                namespaces: Arc::new(namespaces),
                access,
            },
        )?;
    }
    Ok(table)
}

fn describe(volume: VolumeKey, namespace: &ExportedNamespace, ana_group: u32) -> Namespace {
    let block_size = match namespace.volume.block_size() {
        roadstead_pool::BlockSize::B512 => BlockSize::B512,
        roadstead_pool::BlockSize::B4096 => BlockSize::B4096,
    };
    let blocks = namespace.volume.size_bytes() >> block_size.shift();
    Namespace {
        volume,
        uuid: namespace.volume.uuid(),
        blocks,
        block_size,
        read_only: false,
        ana_group,
        cache_epoch: namespace.cache_epoch,
    }
}

fn name(nqn: &str) -> Result<Nqn, ExportError> {
    nqn.parse().map_err(|_| ExportError::Name {
        nqn: nqn.to_owned(),
    })
}
