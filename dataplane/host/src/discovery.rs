//! Asking a discovery service: from a fresh connection to its log (section 5.16.1.23), read in pieces, as one version.

use std::net::{IpAddr, SocketAddr};

use roadstead_nvme::Cqe;
use roadstead_nvme::fabrics::Connect;
use roadstead_nvme::log::{DiscoveryHeader, DiscoveryRecord, subsystem_type, transport};
use roadstead_nvme::name;
use roadstead_nvme::nqn::Nqn;
use roadstead_nvme::property::{self, Configuration};
use roadstead_nvme::{Portal, Transport};
use zerocopy::FromBytes;

use crate::admin::Control;
use crate::auth::Admission;
use crate::config::Identity;
use crate::setup::{ADMIN_SQSIZE, SetUpError, ask_ready, is_ready};

/// Most records that are read; a longer log is an error.
pub const DISCOVERY_RECORDS_MAX: u64 = 4096;
/// How often a log is read that changes while it is read.
const READS_MAX: u32 = 10;
/// Records of one command: 4096 bytes, which every controller transfers.
const RECORDS_PER_READ: u64 = 4;
const HEADER_BYTES: u32 = 1024;
const RECORD_BYTES: u64 = 1024;

/// What a record of the log is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoveryEntry {
    /// A portal of a subsystem with namespaces.
    Subsystem {
        /// Its name.
        nqn: Nqn,
        /// Where it answers, without TLS.
        portal: Portal,
    },
    /// Another discovery service.
    Referral {
        /// Where it answers.
        portal: Portal,
    },
}

/// The entry of a record; `None` for what this host does not use: other transports, services by other names, text
/// that is no address.
fn entry(record: &DiscoveryRecord) -> Option<DiscoveryEntry> {
    const TLS_REQUIRED: u8 = 1;
    let transport = match record.transport {
        transport::TCP => Transport::Tcp,
        transport::RDMA => Transport::Rdma,
        _ => return None,
    };
    if record.requirements & 3 == TLS_REQUIRED {
        return None;
    }
    let address: IpAddr = name::text(&record.address).parse().ok()?;
    let port = name::text(&record.service).parse().ok()?;
    let portal = Portal {
        transport,
        address: SocketAddr::new(address, port),
    };
    match record.subsystem_type {
        subsystem_type::NVM => Some(DiscoveryEntry::Subsystem {
            nqn: Nqn::from_field(&record.subsystem_nqn).ok()?,
            portal,
        }),
        subsystem_type::REFERRAL => Some(DiscoveryEntry::Referral { portal }),
        _ => None,
    }
}

/// Where a [`Discovery`] is.
#[derive(Debug)]
enum Step {
    /// Connect, and the authentication that follows it.
    Enter(Box<Admission>),
    Enable,
    Ready,
    Log(LogReader),
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum DiscoveryStep {
    /// Send this command, and hand its completion to [`Discovery::answer`].
    Send(Control),
    /// The controller is not ready yet: the same, after [`crate::READY_POLL`].
    Later(Control),
    /// This is what the host may use.
    Done(Vec<DiscoveryEntry>),
}

/// The commands on a connection to a discovery service, one after the other.
#[derive(Debug)]
pub struct Discovery {
    step: Step,
}

impl Discovery {
    /// The machine, and the first command.
    pub fn start(identity: &Identity) -> (Self, Control) {
        let queue = Connect {
            qid: 0,
            sqsize: ADMIN_SQSIZE,
            attributes: 0,
            // It ends with its answer.
            kato_ms: 0,
        };
        let command = Control::connect(identity, &Nqn::discovery(), queue, None);
        let admission = Admission::of_admin_queue(identity, &Nqn::discovery());
        let step = Step::Enter(Box::new(admission));
        (Self { step }, command)
    }

    /// Takes in the answer to the last command.
    ///
    /// # Errors
    /// [`SetUpError`]: the service cannot be used.
    pub fn answer(&mut self, cqe: &Cqe, data: &[u8]) -> Result<DiscoveryStep, SetUpError> {
        let status = cqe.status();
        if !status.is_success() && !matches!(self.step, Step::Enter(_)) {
            let what = match self.step {
                // It looks at its failures itself.
                Step::Enter(_) => "",
                Step::Enable => "Property Set",
                Step::Ready => "Property Get",
                Step::Log(_) => "Get Log Page (discovery)",
            };
            return Err(SetUpError::Refused { what, status });
        }
        let (step, command) = match &mut self.step {
            Step::Enter(admission) => {
                if let Some(next) = admission.answer(cqe, data)? {
                    return Ok(DiscoveryStep::Send(next));
                }
                let enabled = Configuration::enabled().0;
                (Step::Enable, Control::property_set(property::CC, enabled))
            }
            Step::Enable => (Step::Ready, ask_ready()),
            Step::Ready if !is_ready(cqe)? => return Ok(DiscoveryStep::Later(ask_ready())),
            Step::Ready => {
                let (reader, command) = LogReader::start();
                (Step::Log(reader), command)
            }
            Step::Log(reader) => return reader.answer(data),
        };
        self.step = step;
        Ok(DiscoveryStep::Send(command))
    }
}

/// A log that is being read: header, records, header again; from the start when the generation has changed.
#[derive(Debug, Default)]
struct LogReader {
    generation: Option<u64>,
    /// Of records.
    count: u64,
    read: u64,
    entries: Vec<DiscoveryEntry>,
    reads: u32,
    is_in_header: bool,
}

impl LogReader {
    fn start() -> (Self, Control) {
        let mut this = Self::default();
        let command = this.header();
        (this, command)
    }

    fn header(&mut self) -> Control {
        self.is_in_header = true;
        Control::discovery_log(0, HEADER_BYTES)
    }

    fn answer(&mut self, data: &[u8]) -> Result<DiscoveryStep, SetUpError> {
        if self.is_in_header {
            return self.header_came(data);
        }
        let records = <[DiscoveryRecord]>::ref_from_bytes(data);
        let records = records.map_err(|_| SetUpError::Invalid("a cut off discovery log"))?;
        self.entries.extend(records.iter().filter_map(entry));
        self.read += u64::try_from(records.len()).unwrap_or(u64::MAX);
        Ok(DiscoveryStep::Send(self.next()))
    }

    fn header_came(&mut self, data: &[u8]) -> Result<DiscoveryStep, SetUpError> {
        let header = DiscoveryHeader::ref_from_bytes(data)
            .map_err(|_| SetUpError::Invalid("a cut off discovery log"))?;
        let generation = header.generation.get();
        if self.generation == Some(generation) {
            return Ok(DiscoveryStep::Done(std::mem::take(&mut self.entries)));
        }
        self.reads += 1;
        if self.reads > READS_MAX {
            return Err(SetUpError::Invalid(
                "the discovery log changes faster than it can be read",
            ));
        }
        self.count = header.records.get();
        if header.format.get() != 0 || self.count > DISCOVERY_RECORDS_MAX {
            return Err(SetUpError::Invalid(
                "the discovery log has an unknown format or too many records",
            ));
        }
        self.generation = Some(generation);
        self.read = 0;
        self.entries.clear();
        Ok(match self.count {
            0 => DiscoveryStep::Done(Vec::new()),
            _ => DiscoveryStep::Send(self.next()),
        })
    }

    fn next(&mut self) -> Control {
        let left = self.count.saturating_sub(self.read);
        if left == 0 {
            return self.header();
        }
        self.is_in_header = false;
        let offset = u64::from(HEADER_BYTES) + self.read * RECORD_BYTES;
        let bytes = left.min(RECORDS_PER_READ) * RECORD_BYTES;
        Control::discovery_log(offset, u32::try_from(bytes).unwrap_or(HEADER_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadstead_nvme::command::AdminCommand;
    use roadstead_nvme::{Status, opcode};
    use zerocopy::IntoBytes;

    fn subsystem(number: u16) -> (DiscoveryRecord, DiscoveryEntry) {
        let nqn = Nqn::new("nqn.2026-11.io.roadstead:a").unwrap();
        let address = SocketAddr::new("10.1.2.3".parse().unwrap(), number);
        let portal = match number % 2 {
            0 => Portal::tcp(address),
            _ => Portal::rdma(address),
        };
        let record = DiscoveryRecord::new(subsystem_type::NVM, &nqn, portal, 1, 32);
        (record, DiscoveryEntry::Subsystem { nqn, portal })
    }

    fn log(generation: u64, count: u16) -> Vec<u8> {
        let mut log = DiscoveryHeader::new(generation, count.into())
            .as_bytes()
            .to_vec();
        for number in 0..count {
            log.extend_from_slice(subsystem(number).0.as_bytes());
        }
        log
    }

    /// Reads with the log of the moment; returns the result and the number of commands.
    fn read(
        mut log: impl FnMut(usize) -> Vec<u8>,
    ) -> (Result<Vec<DiscoveryEntry>, SetUpError>, usize) {
        let (mut reader, mut command) = LogReader::start();
        for turn in 0..10_000 {
            let Ok(AdminCommand::GetLogPage(page)) = AdminCommand::parse(&command.sqe) else {
                panic!("{command:?}");
            };
            assert!(page.id == 0x70 && page.length == u64::from(command.data_in));
            let start = usize::try_from(page.offset).unwrap();
            let data = log(turn)[start..start + command.data_in as usize].to_vec();
            match reader.answer(&data) {
                Ok(DiscoveryStep::Send(next)) => command = next,
                Ok(DiscoveryStep::Done(entries)) => return (Ok(entries), turn + 1),
                Ok(DiscoveryStep::Later(_)) => panic!("a log is always ready"),
                Err(error) => return (Err(error), turn + 1),
            }
        }
        panic!("it does not end");
    }

    #[test]
    fn a_service_may_demand_authentication() {
        let nqn = Nqn::new("nqn.2026-11.io.roadstead:h").unwrap();
        let key = "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
        let secret = roadstead_nvme::dhchap::Secret::parse(key).unwrap();
        let keys = roadstead_nvme::dhchap::Keys {
            host: secret,
            controller: None,
        };
        let identity = Identity {
            keys: Some(keys),
            ..Identity::named(nqn)
        };
        let demanded = Cqe::new(0, Status::SUCCESS, 1 << 17 | 1);
        let (mut machine, _) = Discovery::start(&identity);
        let Ok(DiscoveryStep::Send(first)) = machine.answer(&demanded, &[]) else {
            panic!("{machine:?}");
        };
        assert_eq!(first.sqe.nsid.to_bytes()[0], opcode::fabrics::AUTH_SEND);
        let refused = Cqe::new(0, Status::CONNECT_INVALID_HOST, 0);
        let (mut machine, _) = Discovery::start(&identity);
        let error = machine.answer(&refused, &[]).unwrap_err().to_string();
        assert!(error.contains("Connect refused"), "{error}");
    }

    #[test]
    fn it_is_read_in_pieces() {
        for (count, commands) in [(0, 1), (1, 3), (4, 3), (5, 4), (9, 5)] {
            let (entries, turns) = read(|_| log(7, count));
            let wanted: Vec<_> = (0..count).map(|n| subsystem(n).1).collect();
            assert_eq!((entries, turns), (Ok(wanted), commands));
        }
    }

    #[test]
    fn a_change_during_the_reading_starts_it_again() {
        // The second header has another generation.
        let (entries, turns) = read(|turn| match turn {
            0..2 => log(1, 2),
            _ => log(2, 3),
        });
        assert_eq!((entries.unwrap().len(), turns), (3, 5));
        let (entries, turns) = read(|turn| log(turn as u64, 1));
        assert!(entries.unwrap_err().to_string().contains("faster"));
        assert_eq!(turns, 21);
    }

    #[test]
    fn what_is_wrong_is_an_error() {
        let (mut reader, _) = LogReader::start();
        assert!(reader.answer(&[0; 1000]).is_err());
        let header = DiscoveryHeader::new(1, DISCOVERY_RECORDS_MAX + 1);
        assert!(reader.answer(header.as_bytes()).is_err());
        let mut header = DiscoveryHeader::new(1, 1);
        header.format = 1.into();
        assert!(reader.answer(header.as_bytes()).is_err());
    }

    #[test]
    fn records_of_every_kind() {
        type Change = fn(&mut DiscoveryRecord);
        let (good, wanted) = subsystem(4420);
        assert_eq!(entry(&good), Some(wanted.clone()));
        let mut padded = good;
        padded.service = [b' '; 32];
        padded.service[..4].copy_from_slice(b"4420");
        assert_eq!(entry(&padded), Some(wanted));
        let mut referral = good;
        referral.subsystem_type = subsystem_type::REFERRAL;
        let portal = "10.1.2.3:4420".parse().unwrap();
        assert_eq!(entry(&referral), Some(DiscoveryEntry::Referral { portal }));
        let unused: [Change; 6] = [
            |r| r.transport = transport::RDMA + 1,
            |r| r.requirements = 1,
            |r| r.subsystem_type = subsystem_type::CURRENT_DISCOVERY,
            |r| r.address = [b'x'; 256],
            |r| r.service = [0xff; 32],
            |r| r.subsystem_nqn = [0; 256],
        ];
        for change in unused {
            let mut record = good;
            change(&mut record);
            assert_eq!(entry(&record), None);
        }
    }
}
