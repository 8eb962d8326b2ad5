//! The admin commands that a host sends, and what it reads of the answers.

use std::time::Duration;

use roadstead_nvme::command::{AdminCommand, GetLogPage, NSID_ALL};
use roadstead_nvme::fabrics::{CNTLID_DYNAMIC, Connect, ConnectData, FabricsCommand};
use roadstead_nvme::feature::{self, NumberOfQueues};
use roadstead_nvme::identify::{
    IDENTIFY_BYTES, IdentifyController, IdentifyControllerNvm, IdentifyNamespace,
    NamespaceDescriptor,
};
use roadstead_nvme::log::{AnaGroup, AnaHeader};
use roadstead_nvme::nqn::Nqn;
use roadstead_nvme::{Sqe, event, log};
use uuid::Uuid;
use zerocopy::{FromBytes, IntoBytes};

use crate::config::Identity;

/// What is read of a log page that is read for its event only, in bytes: all of the list of changed namespaces.
const LOG_BYTES: u32 = 4096;
/// Log specific parameter of the ANA log: return groups only.
const ANA_GROUPS_ONLY: u8 = 1;
/// Multipath capabilities in Identify Controller: ANA.
const CMIC_ANA: u8 = 1 << 3;
/// Command Quiesce Time in Identify Controller, ms (Base Specification 2.1).
const CQT_OFFSET: usize = 386;
/// The events that a host wants, of those that the controller has.
const EVENTS: u32 = event::mask::NAMESPACE_ATTRIBUTES | event::mask::ANA_CHANGE;

/// An admin or fabrics command with its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The command; its identifier is the sender's to choose.
    pub sqe: Sqe,
    /// Goes in the capsule.
    pub data_out: Vec<u8>,
    /// Most bytes that come back.
    pub data_in: u32,
}

impl Control {
    fn fabrics(command: FabricsCommand) -> Self {
        Self {
            sqe: command.encode(0),
            data_out: Vec::new(),
            data_in: 0,
        }
    }

    fn admin(command: AdminCommand, data_in: u32) -> Self {
        Self {
            sqe: command.encode(0),
            data_out: Vec::new(),
            data_in,
        }
    }

    /// Makes a connection a queue of the controller; queue 0 makes the controller.
    pub(crate) fn connect(
        host: &Identity,
        subsystem: &Nqn,
        queue: Connect,
        cntlid: Option<u16>,
    ) -> Self {
        let cntlid = cntlid.unwrap_or(CNTLID_DYNAMIC);
        let data = ConnectData::new(host.id.into_bytes(), cntlid, subsystem, &host.nqn);
        let mut command = Self::fabrics(FabricsCommand::Connect(queue));
        command.data_out = data.as_bytes().to_vec();
        command
    }

    pub(crate) fn property_get(offset: u32, wide: bool) -> Self {
        Self::fabrics(FabricsCommand::PropertyGet { offset, wide })
    }

    pub(crate) fn property_set(offset: u32, value: u32) -> Self {
        Self::fabrics(FabricsCommand::PropertySet {
            offset,
            wide: false,
            value: u64::from(value),
        })
    }

    /// `cns` as in [`roadstead_nvme::identify::cns`].
    pub(crate) fn identify(cns: u8, nsid: u32) -> Self {
        let command = AdminCommand::Identify {
            cns,
            cntlid: 0,
            nsid,
            command_set: 0,
        };
        Self::admin(command, IDENTIFY_BYTES)
    }

    pub(crate) fn number_of_queues(count: u16) -> Self {
        let both = NumberOfQueues {
            submission: u32::from(count),
            completion: u32::from(count),
        };
        Self::set_feature(feature::id::NUMBER_OF_QUEUES, both.encode())
    }

    /// Asks for these events.
    pub(crate) fn want_events(mask: u32) -> Self {
        Self::set_feature(feature::id::ASYNC_EVENT_CONFIGURATION, mask)
    }

    fn set_feature(id: u8, value: u32) -> Self {
        let command = AdminCommand::SetFeatures {
            id,
            save: false,
            nsid: 0,
            value,
        };
        Self::admin(command, 0)
    }

    /// The start of a log page; reading it arms its event again. The list of changed namespaces is one.
    pub(crate) fn log_page(id: u8) -> Self {
        Self::log(id, 0, NSID_ALL, 0, LOG_BYTES)
    }

    /// The states of ANA groups, without the namespaces in them.
    pub(crate) fn ana_log(bytes: u32) -> Self {
        Self::log(log::id::ANA, ANA_GROUPS_ONLY, NSID_ALL, 0, bytes)
    }

    /// A part of the discovery log.
    pub(crate) fn discovery_log(offset: u64, bytes: u32) -> Self {
        Self::log(log::id::DISCOVERY, 0, 0, offset, bytes)
    }

    fn log(id: u8, parameter: u8, nsid: u32, offset: u64, bytes: u32) -> Self {
        let page = GetLogPage {
            id,
            parameter,
            retain_event: false,
            length: u64::from(bytes),
            offset,
            nsid,
        };
        Self::admin(AdminCommand::GetLogPage(page), bytes)
    }

    pub(crate) fn abort(qid: u16, cid: u16) -> Self {
        Self::admin(AdminCommand::Abort { qid, cid }, 0)
    }

    /// Ends another controller.
    pub(crate) fn cross_controller_reset(cntlid: u16, instance: Instance) -> Self {
        let command = AdminCommand::CrossControllerReset {
            cntlid,
            instance: instance.number,
            instance_random: instance.random,
        };
        Self::admin(command, 0)
    }

    pub(crate) fn keep_alive() -> Self {
        Self::admin(AdminCommand::KeepAlive, 0)
    }

    pub(crate) fn async_event() -> Self {
        Self::admin(AdminCommand::AsyncEventRequest, 0)
    }
}

/// What a host needs of Identify Controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ControllerData {
    /// Exponent of the transfer limit in pages; 0: none.
    pub(crate) mdts: u8,
    /// The events that it has and a host wants.
    pub(crate) events: u32,
    pub(crate) has_write_zeroes: bool,
    /// Bytes of data that a command capsule takes.
    pub(crate) in_capsule_bytes: u32,
    /// Commands that may be in flight on a queue; 0: as many as it has entries.
    pub(crate) commands_max: u16,
    pub(crate) ana: Option<Ana>,
    /// How long it takes to end its commands once it has ended.
    pub(crate) quiesce: Duration,
    /// By what another controller can be asked to end it.
    pub(crate) instance: Option<Instance>,
    /// It ends other controllers when asked to.
    pub(crate) resets_others: bool,
}

/// What tells a controller from others that had its identifier (Base Specification 2.3, CIU and CIRN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    number: u8,
    random: u64,
}

/// The ANA capabilities of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ana {
    /// Longest that a group is in the state Change.
    pub(crate) transition: Duration,
    /// Size of the log page without namespaces.
    pub(crate) log_bytes: u32,
}

impl ControllerData {
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        let page = IdentifyController::ref_from_bytes(data).ok()?;
        // In units of 16 bytes, the entry's 64 included.
        let in_capsule = page.io_command_capsule.get().saturating_sub(4);
        let quiesce = data.get(CQT_OFFSET..)?.first_chunk()?;
        let has_ana = page.multipath & CMIC_ANA != 0;
        Some(Self {
            mdts: page.transfer_max,
            events: page.events.get() & EVENTS,
            has_write_zeroes: page.io_commands.get() & IdentifyController::ONCS_WRITE_ZEROES != 0,
            // Data that does not begin right behind the entry is not used.
            in_capsule_bytes: match page.in_capsule_offset.get() {
                0 => in_capsule.saturating_mul(16),
                _ => 0,
            },
            commands_max: page.commands_max.get(),
            ana: has_ana.then(|| Ana {
                transition: Duration::from_secs(page.ana_transition_s.max(1).into()),
                log_bytes: page
                    .ana_groups
                    .get()
                    .saturating_mul(len_u32::<AnaGroup>())
                    .saturating_add(len_u32::<AnaHeader>()),
            }),
            quiesce: Duration::from_millis(u16::from_le_bytes(*quiesce).into()),
            instance: (page.instance != 0).then(|| Instance {
                number: page.instance,
                random: page.instance_random.get(),
            }),
            resets_others: page.cross_controller_resets != 0,
        })
    }
}

fn len_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

/// The limit of Write Zeroes, as an exponent of pages; 0: none.
pub(crate) fn zeroes_limit(data: &[u8]) -> u8 {
    IdentifyControllerNvm::ref_from_bytes(data).map_or(0, |page| page.write_zeroes_max)
}

/// What a host needs of Identify Namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamespaceData {
    pub(crate) blocks: u64,
    pub(crate) block_bytes: u32,
    pub(crate) read_only: bool,
    pub(crate) ana_group: u32,
    pub(crate) cache_epoch: Option<Uuid>,
}

impl NamespaceData {
    /// `None` for a format with metadata or with blocks that no block device has.
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        let page = IdentifyNamespace::ref_from_bytes(data).ok()?;
        Some(Self {
            blocks: page.size.get(),
            block_bytes: 1 << page.block_shift()?,
            read_only: page.attributes & 1 != 0,
            ana_group: page.ana_group.get(),
            cache_epoch: page.cache_epoch().map(Uuid::from_bytes),
        })
    }
}

/// The identifiers in a list of active namespaces.
pub(crate) fn namespace_list(data: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let (entries, _) = data.as_chunks::<4>();
    entries
        .iter()
        .map(|bytes| u32::from_le_bytes(*bytes))
        .take_while(|nsid| *nsid != 0)
}

/// The names of a namespace by which it is known everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// UUID.
    pub uuid: Option<Uuid>,
    /// NGUID.
    pub nguid: Option<[u8; 16]>,
}

impl Names {
    /// Those in a list of namespace descriptors. A name of zeroes is none.
    pub(crate) fn parse(data: &[u8]) -> Self {
        let mut names = Self::default();
        for descriptor in NamespaceDescriptor::read_list(data) {
            match descriptor {
                NamespaceDescriptor::Uuid(bytes) if bytes != [0; 16] => {
                    names.uuid = Some(Uuid::from_bytes(bytes));
                }
                NamespaceDescriptor::Nguid(bytes) if bytes != [0; 16] => {
                    names.nguid = Some(bytes);
                }
                _ => {}
            }
        }
        names
    }
}

impl std::fmt::Display for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.uuid, self.nguid) {
            (Some(uuid), None) => uuid.fmt(f),
            (None, None) => f.write_str("no UUID"),
            (uuid, Some(nguid)) => {
                if let Some(uuid) = uuid {
                    write!(f, "{uuid}, ")?;
                }
                write!(f, "NGUID {}", nguid_text(&nguid))
            }
        }
    }
}

/// An NGUID as it is written: 32 hexadecimal digits.
pub fn nguid_text(nguid: &[u8; 16]) -> String {
    Uuid::from_bytes(*nguid).simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identify_structures_are_read() {
        let mut page = IdentifyController::zeroed();
        page.transfer_max = 5;
        page.events = 0x100.into();
        page.io_commands = 8.into();
        page.io_command_capsule = 516.into();
        let controller = ControllerData::parse(page.as_bytes()).unwrap();
        assert!(controller.events == 0x100 && controller.has_write_zeroes);
        assert_eq!((controller.ana, controller.quiesce), (None, Duration::ZERO));
        assert_eq!((controller.mdts, controller.in_capsule_bytes), (5, 8192));
        page.multipath = 8;
        page.ana_transition_s = 10;
        page.ana_groups = 128.into();
        page.events = 0xffff_ffff.into();
        let mut bytes = page.as_bytes().to_vec();
        bytes[386] = 44;
        bytes[387] = 1;
        let controller = ControllerData::parse(&bytes).unwrap();
        let ana = Ana {
            transition: Duration::from_secs(10),
            log_bytes: 16 + 128 * 32,
        };
        assert_eq!((controller.ana, controller.events), (Some(ana), 0x900));
        assert_eq!(controller.quiesce, Duration::from_millis(300));
        page.in_capsule_offset = 1.into();
        let controller = ControllerData::parse(page.as_bytes()).unwrap();
        assert_eq!(controller.in_capsule_bytes, 0);
        assert!(ControllerData::parse(&page.as_bytes()[..1000]).is_none());

        let mut page = IdentifyNamespace::zeroed();
        page.size = 1000.into();
        page.format = 1;
        page.attributes = 1;
        page.ana_group = 7.into();
        page.lba_formats[1].data_shift = 12;
        let namespace = NamespaceData::parse(page.as_bytes()).unwrap();
        assert_eq!((namespace.blocks, namespace.block_bytes), (1000, 4096));
        assert!(namespace.read_only && namespace.ana_group == 7);
    }

    #[test]
    fn lists_are_read() {
        let mut page = vec![0; 4096];
        page[..8].copy_from_slice(&[3, 0, 0, 0, 9, 0, 0, 0]);
        assert_eq!(namespace_list(&page).collect::<Vec<_>>(), [3, 9]);
        let mut list = Vec::new();
        NamespaceDescriptor::Eui64([1; 8]).write(&mut list);
        NamespaceDescriptor::Uuid([0; 16]).write(&mut list);
        NamespaceDescriptor::Nguid([0; 16]).write(&mut list);
        assert_eq!(Names::parse(&list), Names::default());
        NamespaceDescriptor::Uuid([9; 16]).write(&mut list);
        NamespaceDescriptor::Nguid([8; 16]).write(&mut list);
        let names = Names::parse(&list);
        assert_eq!(names.uuid, Some(Uuid::from_bytes([9; 16])));
        assert_eq!(names.nguid, Some([8; 16]));
        assert!(
            names
                .to_string()
                .ends_with(&format!(", NGUID {}", "08".repeat(16)))
        );
    }
}
