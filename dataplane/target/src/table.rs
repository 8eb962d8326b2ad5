//! What is served to whom: plain data, checked when it is made.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use roadstead_nvme::{Nqn, Portal};
use uuid::Uuid;

use crate::ana::AnaStates;
use crate::limits;

/// The rim's name of a volume, handed back with every I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeKey(pub u64);

/// Size of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockSize {
    /// 512 bytes.
    B512,
    /// 4096 bytes.
    B4096,
}

impl BlockSize {
    /// The block size of this many bytes; none but 512 and 4096 exist.
    #[must_use]
    pub fn from_bytes(bytes: u32) -> Option<Self> {
        match bytes {
            512 => Some(Self::B512),
            4096 => Some(Self::B4096),
            _ => None,
        }
    }

    /// The exponent.
    #[must_use]
    pub fn shift(self) -> u8 {
        match self {
            Self::B512 => 9,
            Self::B4096 => 12,
        }
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        1 << self.shift()
    }
}

/// A namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Where its data is.
    pub volume: VolumeKey,
    /// Its name for hosts.
    pub uuid: Uuid,
    /// Size, blocks; never shrinks.
    pub blocks: u64,
    /// Size of a block.
    pub block_size: BlockSize,
    /// Writes are refused.
    pub read_only: bool,
    /// The ANA group that it is in, 1 to [`limits::ANA_GROUPS_MAX`].
    pub ana_group: u32,
    /// Changes whenever acknowledged writes that no flush has covered may have been lost; none: cannot be lost, or is not
    /// known.
    pub cache_epoch: Option<Uuid>,
}

/// Namespaces by identifier.
pub type Namespaces = BTreeMap<u32, Namespace>;

/// Which hosts may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Every host.
    Any,
    /// These.
    Hosts(BTreeSet<Nqn>),
}

impl Access {
    /// Whether a host may connect.
    #[must_use]
    pub fn allows(&self, host: &Nqn) -> bool {
        match self {
            Self::Any => true,
            Self::Hosts(hosts) => hosts.contains(host),
        }
    }
}

/// A subsystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subsystem {
    /// Serial number; 20 characters of it are shown.
    pub serial: String,
    /// Its namespaces; identifiers from 1 to [`NAMESPACE_ID_MAX`].
    pub namespaces: Arc<Namespaces>,
    /// Its hosts.
    pub access: Access,
}

/// The largest namespace identifier.
pub const NAMESPACE_ID_MAX: u32 = 1024;

/// Everything that is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    subsystems: BTreeMap<Nqn, Subsystem>,
    portals: Vec<Portal>,
    rules: PortalRules,
}

/// What portals are for, beside where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortalRules {
    /// ANA states of the controllers that hosts reach by a portal; every group is optimized at the others.
    pub ana: BTreeMap<Portal, AnaStates>,
    /// Portals where hosts find the discovery service and nothing else. It answers at the others, too.
    pub discovery_only: BTreeSet<Portal>,
    /// Discovery services elsewhere.
    pub referrals: BTreeSet<Portal>,
}

/// Why something cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The discovery subsystem is made by the target itself.
    #[error("{0} is the name of the discovery service; give the subsystem another one")]
    Discovery(Nqn),
    /// A name twice.
    #[error("subsystem {0} is there twice; remove one")]
    Twice(Nqn),
    /// A namespace identifier that does not exist.
    #[error("namespace {nsid} of subsystem {nqn}: identifiers go from 1 to 1024")]
    NamespaceId {
        /// The subsystem.
        nqn: Nqn,
        /// The identifier.
        nsid: u32,
    },
    /// An ANA group that does not exist.
    #[error("ANA group {group}: groups go from 1 to 128")]
    AnaGroup {
        /// The identifier.
        group: u32,
    },
    /// A namespace without blocks or with more bytes than can be counted.
    #[error("namespace {nsid} of subsystem {nqn}: {blocks} blocks are no size")]
    Size {
        /// The subsystem.
        nqn: Nqn,
        /// The identifier.
        nsid: u32,
        /// The size.
        blocks: u64,
    },
}

impl Table {
    /// A table that serves nothing at these portals, which the discovery log names. An unspecified address (0.0.0.0,
    /// ::) stands for the one that the asking host reached.
    #[must_use]
    pub fn new(portals: Vec<Portal>) -> Self {
        Self {
            subsystems: BTreeMap::new(),
            portals,
            rules: PortalRules::default(),
        }
    }

    /// Says what the portals are for.
    ///
    /// # Errors
    /// A group that does not exist; the table is as before.
    pub fn set_rules(&mut self, rules: PortalRules) -> Result<(), TableError> {
        let groups = rules.ana.values().flat_map(|states| states.groups.keys());
        groups.copied().try_for_each(check_group)?;
        self.rules = rules;
        Ok(())
    }

    /// What the portals are for.
    #[must_use]
    pub fn rules(&self) -> &PortalRules {
        &self.rules
    }

    /// The portal at this address of ours, or else the one that listens on all addresses with this port.
    pub(crate) fn portal_of(&self, local: Portal) -> Option<Portal> {
        let address = canonical(local.address);
        let any_v4 = SocketAddr::from(([0; 4], address.port()));
        let any_v6 = SocketAddr::from(([0; 16], address.port()));
        // Sockets that listen on :: take IPv4, too.
        [address, any_v4, any_v6]
            .into_iter()
            .filter(|known| known.is_ipv6() || address.is_ipv4())
            .map(|known| local.at(known))
            .find(|portal| self.portals.contains(portal))
    }

    /// The ANA states of controllers that hosts reach by this address of ours.
    pub(crate) fn ana(&self, local: Portal) -> Arc<AnaStates> {
        let portal = self.portal_of(local);
        let states = portal.and_then(|portal| self.rules.ana.get(&portal));
        Arc::new(states.cloned().unwrap_or_default())
    }

    /// Adds a subsystem.
    ///
    /// # Errors
    /// What is wrong with it; the table is as before.
    pub fn add(&mut self, nqn: Nqn, subsystem: Subsystem) -> Result<(), TableError> {
        if nqn.is_discovery() {
            return Err(TableError::Discovery(nqn));
        }
        if self.subsystems.contains_key(&nqn) {
            return Err(TableError::Twice(nqn));
        }
        for (&nsid, namespace) in subsystem.namespaces.iter() {
            if !(1..=NAMESPACE_ID_MAX).contains(&nsid) {
                return Err(TableError::NamespaceId { nqn, nsid });
            }
            check_group(namespace.ana_group)?;
            let blocks = namespace.blocks;
            if blocks == 0 || blocks > i64::MAX.unsigned_abs() >> namespace.block_size.shift() {
                return Err(TableError::Size { nqn, nsid, blocks });
            }
        }
        self.subsystems.insert(nqn, subsystem);
        Ok(())
    }

    /// The subsystems.
    #[must_use]
    pub fn subsystems(&self) -> &BTreeMap<Nqn, Subsystem> {
        &self.subsystems
    }

    /// Where it is served.
    #[must_use]
    pub fn portals(&self) -> &[Portal] {
        &self.portals
    }
}

/// An IPv4 address as such, also where it was mapped into IPv6.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn check_group(group: u32) -> Result<(), TableError> {
    if (1..=limits::ANA_GROUPS_MAX).contains(&group) {
        Ok(())
    } else {
        Err(TableError::AnaGroup { group })
    }
}
