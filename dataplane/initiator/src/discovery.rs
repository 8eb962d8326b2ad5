//! Asking discovery services what there is, and where.
//!
//! One connection for each service, which ends with its answer, on the caller's thread: nothing here is fast, and nothing
//! stays. Referrals are followed, each service is asked once.
//!
//! Left out: connections that stay and hear of changes.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use roadstead_host::{Control, Discovery, DiscoveryEntry, DiscoveryStep, READY_POLL, SetUpError};
use roadstead_nvme::nqn::Nqn;
use roadstead_nvme::{Cqe, Status};
use roadstead_tcp::pdu::IcReq;
use roadstead_tcp::{Event, Fatal, Pdu, PduReader, PduWriter, Role, Settings};
use tracing::warn;

use crate::Identity;

/// Most services that are asked, those that were referred to included.
pub const SERVICES_MAX: usize = 64;
/// Data of one C2HData that is accepted, in bytes: more than is ever asked for at once.
const DATA_MAX: u32 = 1 << 16;

/// Where a subsystem answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The subsystem.
    pub nqn: Nqn,
    /// One of its portals, over TCP.
    pub address: SocketAddr,
}

/// Why a discovery service could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// The connection could not be made, or failed.
    #[error("{address}: {error}")]
    Connection {
        /// The service.
        address: SocketAddr,
        /// How.
        error: io::Error,
    },
    /// The service violates the protocol.
    #[error("{address}: {error}")]
    Protocol {
        /// The service.
        address: SocketAddr,
        /// How.
        error: Fatal,
    },
    /// The service refuses, or what it says makes no sense.
    #[error("{address}: {error}")]
    Refused {
        /// The service.
        address: SocketAddr,
        /// What it said.
        error: SetUpError,
    },
}

/// Asks these services, and those that they refer to, what this host may use; each gets `timeout` for its whole answer.
/// Portals are in the order in which they were told, each once.
///
/// # Errors
/// The first service that was given and cannot be asked, when none of those given can. Of others that cannot there is
/// a line in the log.
pub fn discover(
    services: &[SocketAddr],
    identity: &Identity,
    timeout: Duration,
) -> Result<Vec<Found>, DiscoverError> {
    let mut waiting: VecDeque<_> = services.iter().copied().collect();
    let (mut known, mut asked) = (BTreeSet::new(), BTreeSet::new());
    let (mut all, mut failure) = (Vec::new(), None);
    let mut has_answer = false;
    while let Some(service) = waiting.pop_front() {
        if asked.len() >= SERVICES_MAX || !asked.insert(service) {
            continue;
        }
        match ask(service, identity, timeout) {
            Ok(entries) => {
                has_answer = true;
                for entry in entries {
                    match entry {
                        DiscoveryEntry::Subsystem { nqn, address } => {
                            let found = Found { nqn, address };
                            if known.insert(found.clone()) {
                                all.push(found);
                            }
                        }
                        DiscoveryEntry::Referral { address } => waiting.push_back(address),
                    }
                }
            }
            Err(error) => {
                warn!(%error, "a discovery service cannot be asked");
                failure.get_or_insert(error);
            }
        }
    }
    match failure {
        Some(error) if !has_answer => Err(error),
        _ => Ok(all),
    }
}

/// The portals of one subsystem that this host may use, as [`discover`] finds them. None: no service tells of any.
///
/// # Errors
/// As [`discover`].
pub fn portals(
    services: &[SocketAddr],
    identity: &Identity,
    subsystem: &str,
    timeout: Duration,
) -> Result<Vec<SocketAddr>, DiscoverError> {
    let mut found = discover(services, identity, timeout)?;
    found.retain(|found| found.nqn.to_string() == subsystem);
    Ok(found.into_iter().map(|found| found.address).collect())
}

/// Asks one service.
fn ask(
    address: SocketAddr,
    identity: &Identity,
    timeout: Duration,
) -> Result<Vec<DiscoveryEntry>, DiscoverError> {
    let mut line = Line::open(address, Instant::now() + timeout)?;
    let (mut machine, mut command) = Discovery::start(identity);
    loop {
        let (cqe, data) = line.run(&command)?;
        let step = machine.answer(&cqe, &data);
        match step.map_err(|error| DiscoverError::Refused { address, error })? {
            DiscoveryStep::Send(next) => command = next,
            DiscoveryStep::Later(next) => {
                std::thread::sleep(READY_POLL);
                command = next;
            }
            DiscoveryStep::Done(entries) => return Ok(entries),
        }
    }
}

/// A connection with one command in flight.
struct Line {
    address: SocketAddr,
    stream: TcpStream,
    reader: PduReader,
    writer: PduWriter,
    deadline: Instant,
    cid: u16,
}

impl Line {
    fn open(address: SocketAddr, deadline: Instant) -> Result<Self, DiscoverError> {
        let failed = |error| DiscoverError::Connection { address, error };
        let timeout = left(deadline).map_err(failed)?;
        let stream = TcpStream::connect_timeout(&address, timeout).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut line = Self {
            address,
            stream,
            reader: PduReader::new(Role::Host),
            writer: PduWriter::new(Settings::default()),
            deadline,
            cid: 0,
        };
        let request = IcReq {
            version: 0,
            alignment: 0,
            header_digest: false,
            data_digest: false,
            max_r2t: 1,
        };
        line.send(&Pdu::IcReq(request), &[])?;
        line.hear(&mut Vec::new(), 0)?;
        Ok(line)
    }

    fn failed(&self, error: io::Error) -> DiscoverError {
        let address = self.address;
        DiscoverError::Connection { address, error }
    }

    /// Sends a command and waits for its end.
    fn run(&mut self, command: &Control) -> Result<(Cqe, Vec<u8>), DiscoverError> {
        self.cid = self.cid.wrapping_add(1);
        let mut sqe = command.sqe;
        sqe.cid = self.cid.into();
        let data_length = u32::try_from(command.data_out.len()).unwrap_or(u32::MAX);
        self.send(&Pdu::CapsuleCmd { sqe, data_length }, &command.data_out)?;
        let mut data = Vec::new();
        loop {
            let cqe = self.hear(&mut data, command.data_in)?;
            if let Some(cqe) = cqe.filter(|cqe| cqe.cid.get() == self.cid) {
                return Ok((cqe, data));
            }
        }
    }

    fn send(&mut self, pdu: &Pdu, data: &[u8]) -> Result<(), DiscoverError> {
        let mut head = [0; PduWriter::HEAD_MAX];
        let length = self.writer.head(pdu, &mut head);
        let bytes = [head.get(..length).unwrap_or_default(), data].concat();
        let timeout = left(self.deadline);
        timeout
            .and_then(|timeout| self.stream.set_write_timeout(Some(timeout)))
            .and_then(|()| self.stream.write_all(&bytes))
            .map_err(|error| self.failed(error))
    }

    /// Takes in what comes until there is a completion, or the answer to the connection's first PDU (`None`). At most
    /// `most` bytes of data.
    fn hear(&mut self, data: &mut Vec<u8>, most: u32) -> Result<Option<Cqe>, DiscoverError> {
        let mut buffer = [0; 4096];
        let mut heard = None;
        loop {
            let timeout = left(self.deadline);
            let count = timeout
                .and_then(|timeout| self.stream.set_read_timeout(Some(timeout)))
                .and_then(|()| self.stream.read(&mut buffer))
                .map_err(|error| self.failed(error))?;
            if count == 0 {
                return Err(self.failed(io::ErrorKind::UnexpectedEof.into()));
            }
            let mut input = buffer.get(..count).unwrap_or_default();
            loop {
                let address = self.address;
                let event = self.reader.next(&mut input);
                let event = event.map_err(|error| DiscoverError::Protocol { address, error })?;
                match event {
                    None => break,
                    Some(Event::Pdu(Pdu::IcResp(_))) => {
                        self.reader.settle(Settings {
                            max_data: DATA_MAX,
                            ..Settings::default()
                        });
                        heard = Some(None);
                    }
                    Some(Event::Pdu(Pdu::CapsuleResp(cqe))) => heard = Some(Some(cqe)),
                    Some(Event::Pdu(Pdu::C2hData(head))) if head.success => {
                        heard = Some(Some(Cqe::new(head.cid, Status::SUCCESS, 0)));
                    }
                    Some(Event::Data(bytes)) => {
                        data.extend_from_slice(bytes);
                        if data.len() > most as usize {
                            let what = "more data than was asked for";
                            let error = io::Error::new(io::ErrorKind::InvalidData, what);
                            return Err(self.failed(error));
                        }
                    }
                    Some(Event::Pdu(_) | Event::DataEnd { .. }) => {}
                }
            }
            if let Some(heard) = heard.filter(|_| self.reader.is_between_pdus()) {
                return Ok(heard);
            }
        }
    }
}

/// Time until the deadline.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}
