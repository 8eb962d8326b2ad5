//! From a fresh admin connection to a known namespace: one command after the other.

use std::time::{Duration, Instant};

use roadstead_nvme::fabrics::Connect;
use roadstead_nvme::feature::NumberOfQueues;
use roadstead_nvme::identify::cns;
use roadstead_nvme::property::{self, Capabilities, Configuration};
use roadstead_nvme::{Cqe, Status};
use uuid::Uuid;

use crate::admin::{
    Control, ControllerData, NamespaceData, descriptor_uuid, namespace_list, zeroes_limit,
};
use crate::config::{HostConfig, Wanted};
use crate::queue::QUEUE_DEPTH_MAX;

/// Entries of the admin queue, zero's based.
const ADMIN_SQSIZE: u16 = 31;
/// Pause between two looks at a controller that is not ready yet.
const READY_POLL: Duration = Duration::from_millis(10);
/// Data of one command when the controller names no limit, or a larger one, in bytes.
const TRANSFER_BYTES_MAX: u32 = 1 << 20;
/// The controller is told a keep-alive time-out of so many times ours: it gives up after us.
const KATO_FACTOR: u32 = 3;

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
    /// The target's answer makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
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
    pub(crate) has_events: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Connect,
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
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "Connect",
            Self::Capabilities | Self::Ready => "Property Get",
            Self::Enable => "Property Set",
            Self::Controller | Self::Limits => "Identify Controller",
            Self::Queues | Self::Events => "Set Features",
            Self::Namespaces => "Identify Active Namespaces",
            Self::Descriptors => "Identify Namespace Descriptors",
            Self::Namespace => "Identify Namespace",
        }
    }
}

/// What to do after an answer.
pub(crate) enum Progress {
    Send(Control),
    /// Send this at that time.
    Later(Instant, Control),
    Done(Grants, NamespaceInfo),
}

/// The sequence on the admin queue.
#[derive(Debug)]
pub(crate) struct SetUp {
    step: Step,
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
    uuid: Option<Uuid>,
}

impl SetUp {
    /// The machine and the first command.
    pub(crate) fn start(config: &HostConfig) -> (Self, Control) {
        let this = Self {
            step: Step::Connect,
            capabilities: Capabilities(0),
            controller: None,
            zeroes_limit: 0,
            cntlid: 0,
            io_queues: 1,
            candidates: Vec::new(),
            seen: Vec::new(),
            nsid: 0,
            uuid: None,
        };
        let kato = config.limits.keep_alive.as_millis() * u128::from(KATO_FACTOR);
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
        // Controllers before version 2.0 do not know these limits, and have none.
        if !status.is_success() && self.step != Step::Limits {
            return Err(SetUpError::Refused {
                what: self.step.name(),
                status,
            });
        }
        let result = cqe.result.get();
        let (step, command) = match self.step {
            Step::Connect => {
                self.cntlid = low_u16(result);
                let get = Control::property_get(property::CAP, true);
                (Step::Capabilities, get)
            }
            Step::Capabilities => {
                self.capabilities = Capabilities(result);
                let enabled = Configuration::enabled().0;
                let set = Control::property_set(property::CC, enabled);
                (Step::Enable, set)
            }
            Step::Enable => (Step::Ready, ask_ready()),
            Step::Ready => {
                let csts = property::Status(low_u32(result));
                if csts.is_fatal() {
                    return Err(SetUpError::Invalid("the controller reports a fatal status"));
                }
                if !csts.is_ready() {
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
                match self.has_events() {
                    true => (Step::Events, Control::want_events()),
                    false => (
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
                self.uuid = descriptor_uuid(data);
                if self.is_wanted(config.namespace) {
                    (
                        Step::Namespace,
                        Control::identify(cns::NAMESPACE, self.nsid),
                    )
                } else {
                    let uuid = self.uuid.map_or("no UUID".into(), |u| u.to_string());
                    self.seen.push(format!("{}: {uuid}", self.nsid));
                    self.next_candidate(config)?
                }
            }
            Step::Namespace => return self.finish(config, data),
        };
        self.step = step;
        Ok(Progress::Send(command))
    }

    fn has_events(&self) -> bool {
        self.controller.is_some_and(|c| c.has_events)
    }

    fn is_wanted(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Uuid(uuid) => self.uuid == Some(uuid),
            Wanted::Nsid(nsid) => self.nsid == nsid,
            Wanted::First => true,
        }
    }

    fn next_candidate(&mut self, config: &HostConfig) -> Result<(Step, Control), SetUpError> {
        let Some(nsid) = self.candidates.pop() else {
            return Err(SetUpError::NoNamespace {
                wanted: match config.namespace {
                    Wanted::Uuid(uuid) => format!("UUID {uuid}"),
                    Wanted::Nsid(nsid) => format!("identifier {nsid}"),
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

    fn finish(&self, config: &HostConfig, data: &[u8]) -> Result<Progress, SetUpError> {
        let controller = self
            .controller
            .ok_or(SetUpError::Invalid("the controller was not identified"))?;
        let namespace = NamespaceData::parse(data).ok_or(SetUpError::Invalid(
            "the namespace has a format with metadata or an odd block size",
        ))?;
        let page_bytes = self.capabilities.page_bytes_min();
        let limit = |exponent: u8| match exponent {
            0 => u64::MAX,
            _ => page_bytes.saturating_mul(1 << exponent.min(40)),
        };
        let transfer_bytes = limit(controller.mdts).min(u64::from(TRANSFER_BYTES_MAX));
        let entries = u16::try_from(self.capabilities.queue_entries()).unwrap_or(u16::MAX);
        let grants = Grants {
            cntlid: self.cntlid,
            io_queues: self.io_queues,
            // One entry of a queue always stays empty.
            queue_depth: config
                .limits
                .queue_depth
                .clamp(1, QUEUE_DEPTH_MAX)
                .min(entries.saturating_sub(1).max(1)),
            transfer_bytes_max: u32::try_from(transfer_bytes).unwrap_or(TRANSFER_BYTES_MAX),
            zeroes_bytes_max: limit(self.zeroes_limit),
            in_capsule_bytes: controller.in_capsule_bytes,
            has_events: self.has_events(),
        };
        let info = NamespaceInfo {
            nsid: self.nsid,
            uuid: self.uuid,
            blocks: namespace.blocks,
            block_bytes: namespace.block_bytes,
            read_only: namespace.read_only,
            has_write_zeroes: controller.has_write_zeroes,
        };
        Ok(Progress::Done(grants, info))
    }
}

fn ask_ready() -> Control {
    Control::property_get(property::CSTS, false)
}

fn low_u16(value: u64) -> u16 {
    let [a, b, ..] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}

fn low_u32(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
