//! From a fresh admin connection to a known namespace: one command after the other.

use std::time::{Duration, Instant};

use roadstead_nvme::fabrics::Connect;
use roadstead_nvme::feature::NumberOfQueues;
use roadstead_nvme::identify::cns;
use roadstead_nvme::property::{self, Capabilities, Configuration};
use roadstead_nvme::{AnaState, Cqe, Status};
use uuid::Uuid;

use crate::admin::{
    Ana, Control, ControllerData, Instance, Names, NamespaceData, namespace_list, nguid_text,
    zeroes_limit,
};
use crate::ana::group_state;
use crate::auth::{Admission, AuthError};
use crate::config::{HostConfig, Wanted};
use crate::queue::QUEUE_DEPTH_MAX;

/// Entries of the admin queue, zero's based.
pub(crate) const ADMIN_SQSIZE: u16 = 31;
/// Pause between two looks at a controller that is not ready yet.
pub const READY_POLL: Duration = Duration::from_millis(10);
/// Data of one command when the controller names no limit, or a larger one, in bytes.
const TRANSFER_BYTES_MAX: u32 = 1 << 20;

/// The namespace as the target describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Its identifier in the subsystem.
    pub nsid: u32,
    /// Its UUID, if the target tells one.
    pub uuid: Option<Uuid>,
    /// Its size in blocks.
    pub blocks: u64,
    /// Bytes of a block, a power of two from 512.
    pub block_bytes: u32,
    /// The target takes no writes.
    pub read_only: bool,
    /// The target knows Write Zeroes.
    pub has_write_zeroes: bool,
    /// See [`roadstead_nvme::identify::IdentifyNamespace::cache_epoch`].
    pub cache_epoch: Option<Uuid>,
}

/// Why a path cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetUpError {
    /// The connection failed or ended.
    #[error("{0}")]
    Lost(String),
    /// Not done in time.
    #[error("not set up within {0} s")]
    Timeout(u64),
    /// The target refused a command.
    #[error("{what} refused: {status}")]
    Refused {
        /// Which command.
        what: &'static str,
        /// With which status.
        status: Status,
    },
    /// The queue was not authenticated.
    #[error(transparent)]
    Authentication(#[from] AuthError),
    /// The target's answer makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// The namespace was there and is not any more.
    #[error("the subsystem does not have the namespace with identifier {nsid} any more")]
    Gone {
        /// Its identifier.
        nsid: u32,
    },
    /// The namespace is not in the subsystem.
    #[error("the subsystem has no namespace with {wanted}; it has {found}")]
    NoNamespace {
        /// What was looked for.
        wanted: String,
        /// What is there.
        found: String,
    },
}

/// What the controller grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grants {
    pub(crate) cntlid: u16,
    pub(crate) io_queues: u16,
    /// Commands in flight on each.
    pub(crate) queue_depth: u16,
    pub(crate) transfer_bytes_max: u32,
    pub(crate) zeroes_bytes_max: u64,
    pub(crate) in_capsule_bytes: u32,
    /// The events that were asked for.
    pub(crate) events: u32,
    /// `None`: no ANA, or a log page that is larger than one command can carry.
    pub(crate) ana: Option<Ana>,
    /// How long it takes to end its commands once it has ended.
    pub(crate) quiesce: Duration,
    /// By what another controller can be asked to end it.
    pub(crate) instance: Option<Instance>,
    /// It ends other controllers when asked to.
    pub(crate) resets_others: bool,
}

/// The way to a namespace through one controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) grants: Grants,
    pub(crate) info: NamespaceInfo,
    pub(crate) ana_group: u32,
    pub(crate) ana_state: AnaState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Connect,
    Authenticate,
    Capabilities,
    Enable,
    Ready,
    Controller,
    Limits,
    Queues,
    Events,
    Namespaces,
    Descriptors,
    Namespace,
    Ana,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "Connect",
            Self::Authenticate => "Authentication",
            Self::Capabilities | Self::Ready => "Property Get",
            Self::Enable => "Property Set",
            Self::Controller | Self::Limits => "Identify Controller",
            Self::Queues | Self::Events => "Set Features",
            Self::Namespaces => "Identify Active Namespaces",
            Self::Descriptors => "Identify Namespace Descriptors",
            Self::Namespace => "Identify Namespace",
            Self::Ana => "Get Log Page (ANA)",
        }
    }
}

/// What to do after an answer.
pub(crate) enum Progress {
    Send(Control),
    /// Send this at that time.
    Later(Instant, Control),
    Done(Box<Way>),
}

/// The sequence on the admin queue.
#[derive(Debug)]
pub(crate) struct SetUp {
    step: Step,
    admission: Admission,
    capabilities: Capabilities,
    controller: Option<ControllerData>,
    /// Of Write Zeroes, as an exponent of pages; 0: none.
    zeroes_limit: u8,
    cntlid: u16,
    io_queues: u16,
    /// Namespaces not looked at yet, the next one last.
    candidates: Vec<u32>,
    seen: Vec<String>,
    nsid: u32,
    names: Names,
    /// Complete but for the ANA state.
    way: Option<Box<Way>>,
}

impl SetUp {
    /// The machine and the first command.
    pub(crate) fn start(config: &HostConfig) -> (Self, Control) {
        let this = Self {
            step: Step::Connect,
            admission: Admission::of_admin_queue(&config.identity, &config.subsystem_nqn),
            capabilities: Capabilities(0),
            controller: None,
            zeroes_limit: 0,
            cntlid: 0,
            io_queues: 1,
            candidates: Vec::new(),
            seen: Vec::new(),
            nsid: 0,
            names: Names::default(),
            way: None,
        };
        let kato = config.limits.kato().as_millis();
        let queue = Connect {
            qid: 0,
            sqsize: ADMIN_SQSIZE,
            attributes: 0,
            kato_ms: u32::try_from(kato).unwrap_or(u32::MAX),
        };
        let first = Control::connect(&config.identity, &config.subsystem_nqn, queue, None);
        (this, first)
    }

    /// Takes in the answer to the last command.
    pub(crate) fn answer(
        &mut self,
        config: &HostConfig,
        cqe: &Cqe,
        data: &[u8],
        now: Instant,
    ) -> Result<Progress, SetUpError> {
        let status = cqe.status();
        // Controllers before version 2.0 do not know these limits, and have none. Those before 1.3 tell no names. The way
        // in looks at its failures itself.
        let may_fail = matches!(
            self.step,
            Step::Connect | Step::Authenticate | Step::Limits | Step::Descriptors
        );
        if !status.is_success() && !may_fail {
            return Err(SetUpError::Refused {
                what: self.step.name(),
                status,
            });
        }
        let result = cqe.result.get();
        let (step, command) = match self.step {
            Step::Connect | Step::Authenticate => {
                if self.step == Step::Connect {
                    self.cntlid = low_u16(result);
                }
                match self.admission.answer(cqe, data)? {
                    Some(next) => (Step::Authenticate, next),
                    None => {
                        let get = Control::property_get(property::CAP, true);
                        (Step::Capabilities, get)
                    }
                }
            }
            Step::Capabilities => {
                self.capabilities = Capabilities(result);
                let enabled = Configuration::enabled().0;
                let set = Control::property_set(property::CC, enabled);
                (Step::Enable, set)
            }
            Step::Enable => (Step::Ready, ask_ready()),
            Step::Ready => {
                if !is_ready(cqe)? {
                    return Ok(Progress::Later(now + READY_POLL, ask_ready()));
                }
                (Step::Controller, Control::identify(cns::CONTROLLER, 0))
            }
            Step::Controller => {
                let controller = ControllerData::parse(data)
                    .ok_or(SetUpError::Invalid("Identify Controller is too short"))?;
                self.controller = Some(controller);
                let identify = Control::identify(cns::COMMAND_SET_CONTROLLER, 0);
                (Step::Limits, identify)
            }
            Step::Limits => {
                self.zeroes_limit = match status.is_success() {
                    true => zeroes_limit(data),
                    false => 0,
                };
                let wanted = config.limits.io_queues.max(1);
                (Step::Queues, Control::number_of_queues(wanted))
            }
            Step::Queues => {
                let granted = NumberOfQueues::parse(low_u32(result))
                    .map_or(1, |n| n.submission.min(n.completion));
                self.io_queues = config
                    .limits
                    .io_queues
                    .clamp(1, u16::try_from(granted).unwrap_or(u16::MAX));
                match self.controller.map_or(0, |c| c.events) {
                    events @ 1.. => (Step::Events, Control::want_events(events)),
                    0 => (
                        Step::Namespaces,
                        Control::identify(cns::ACTIVE_NAMESPACES, 0),
                    ),
                }
            }
            Step::Events => (
                Step::Namespaces,
                Control::identify(cns::ACTIVE_NAMESPACES, 0),
            ),
            Step::Namespaces => {
                self.candidates = namespace_list(data).collect();
                self.candidates.reverse();
                self.next_candidate(config)?
            }
            Step::Descriptors => {
                self.names = match status.is_success() {
                    true => Names::parse(data),
                    false => Names::default(),
                };
                if self.is_wanted(config.namespace) {
                    (
                        Step::Namespace,
                        Control::identify(cns::NAMESPACE, self.nsid),
                    )
                } else {
                    self.seen.push(format!("{}: {}", self.nsid, self.names));
                    self.next_candidate(config)?
                }
            }
            Step::Namespace => {
                let way = Box::new(self.way(config, data)?);
                let Some(ana) = way.grants.ana else {
                    return Ok(Progress::Done(way));
                };
                self.way = Some(way);
                (Step::Ana, Control::ana_log(ana.log_bytes))
            }
            Step::Ana => {
                let mut way = self
                    .way
                    .take()
                    .ok_or(SetUpError::Invalid("the ANA log came before the namespace"))?;
                way.ana_state = group_state(data, way.ana_group).ok_or(NO_ANA_GROUP)?;
                return Ok(Progress::Done(way));
            }
        };
        self.step = step;
        Ok(Progress::Send(command))
    }

    fn is_wanted(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Uuid(uuid) => self.names.uuid == Some(uuid),
            Wanted::Nguid(nguid) => self.names.nguid == Some(nguid),
            Wanted::Nsid(nsid) => self.nsid == nsid,
            Wanted::Unnamed(nsid) => self.nsid == nsid && self.names == Names::default(),
            Wanted::First => true,
        }
    }

    fn next_candidate(&mut self, config: &HostConfig) -> Result<(Step, Control), SetUpError> {
        let Some(nsid) = self.candidates.pop() else {
            return Err(SetUpError::NoNamespace {
                wanted: match config.namespace {
                    Wanted::Uuid(uuid) => format!("UUID {uuid}"),
                    Wanted::Nguid(nguid) => format!("NGUID {}", nguid_text(&nguid)),
                    Wanted::Nsid(nsid) => format!("identifier {nsid}"),
                    Wanted::Unnamed(nsid) => {
                        format!("identifier {nsid} and neither a UUID nor an NGUID")
                    }
                    Wanted::First => "any identifier".into(),
                },
                found: match self.seen.is_empty() {
                    true => "none".into(),
                    false => self.seen.join(", "),
                },
            });
        };
        self.nsid = nsid;
        Ok((
            Step::Descriptors,
            Control::identify(cns::NAMESPACE_DESCRIPTORS, nsid),
        ))
    }

    /// The way with the namespace's data; its ANA state is the best until the log is read.
    fn way(&self, config: &HostConfig, data: &[u8]) -> Result<Way, SetUpError> {
        let controller = self
            .controller
            .ok_or(SetUpError::Invalid("the controller was not identified"))?;
        let namespace = NamespaceData::parse(data).ok_or(SetUpError::Invalid(
            "the namespace has a format with metadata or an odd block size",
        ))?;
        if namespace.blocks == 0 {
            return Err(SetUpError::Gone { nsid: self.nsid });
        }
        let page_bytes = self.capabilities.page_bytes_min();
        let limit = |exponent: u8| match exponent {
            0 => u64::MAX,
            _ => page_bytes.saturating_mul(1 << exponent.min(40)),
        };
        let transfer_bytes = limit(controller.mdts).min(u64::from(TRANSFER_BYTES_MAX));
        let transfer_bytes = u32::try_from(transfer_bytes).unwrap_or(TRANSFER_BYTES_MAX);
        let entries = u16::try_from(self.capabilities.queue_entries()).unwrap_or(u16::MAX);
        let commands_max = match controller.commands_max {
            0 => u16::MAX,
            commands => commands,
        };
        let grants = Grants {
            cntlid: self.cntlid,
            io_queues: self.io_queues,
            // One entry of a queue always stays empty.
            queue_depth: config
                .limits
                .queue_depth
                .clamp(1, QUEUE_DEPTH_MAX)
                .min(commands_max)
                .min(entries.saturating_sub(1).max(1)),
            transfer_bytes_max: transfer_bytes,
            zeroes_bytes_max: limit(self.zeroes_limit),
            in_capsule_bytes: controller.in_capsule_bytes,
            events: controller.events,
            ana: controller.ana.filter(|ana| ana.log_bytes <= transfer_bytes),
            quiesce: controller.quiesce,
            instance: controller.instance,
            resets_others: controller.resets_others,
        };
        let info = NamespaceInfo {
            nsid: self.nsid,
            uuid: self.names.uuid,
            blocks: namespace.blocks,
            block_bytes: namespace.block_bytes,
            read_only: namespace.read_only,
            has_write_zeroes: controller.has_write_zeroes,
            cache_epoch: namespace.cache_epoch,
        };
        Ok(Way {
            grants,
            info,
            ana_group: namespace.ana_group,
            ana_state: AnaState::Optimized,
        })
    }
}

pub(crate) const UNKNOWN_COMMAND: SetUpError =
    SetUpError::Invalid("a completion for no command in flight");

/// The ANA log has to name every group.
pub(crate) const NO_ANA_GROUP: SetUpError =
    SetUpError::Invalid("the ANA log does not name the namespace's group");

pub(crate) fn ask_ready() -> Control {
    Control::property_get(property::CSTS, false)
}

/// What the answer to [`ask_ready`] says.
pub(crate) fn is_ready(cqe: &Cqe) -> Result<bool, SetUpError> {
    let csts = property::Status(low_u32(cqe.result.get()));
    if csts.is_fatal() {
        return Err(SetUpError::Invalid("the controller reports a fatal status"));
    }
    Ok(csts.is_ready())
}

fn low_u16(value: u64) -> u16 {
    let [a, b, ..] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}

fn low_u32(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
