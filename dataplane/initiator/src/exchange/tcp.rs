//! Over NVMe/TCP.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use roadstead_host::Control;
use roadstead_nvme::{Cqe, Status};
use roadstead_tcp::pdu::IcReq;
use roadstead_tcp::{Event, Pdu, PduReader, PduWriter, Role, Settings};

use super::{DATA_MAX, ExchangeError, left};

/// A connection with one command in flight.
pub(crate) struct Line {
    stream: TcpStream,
    reader: PduReader,
    writer: PduWriter,
    deadline: Instant,
    cid: u16,
}

impl Line {
    pub(super) fn open(address: SocketAddr, deadline: Instant) -> Result<Self, ExchangeError> {
        let stream = TcpStream::connect_timeout(&address, left(deadline)?)?;
        stream.set_nodelay(true)?;
        let mut line = Self {
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

    /// Sends a command and waits for its end.
    pub(super) fn run(&mut self, command: &Control) -> Result<(Cqe, Vec<u8>), ExchangeError> {
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

    fn send(&mut self, pdu: &Pdu, data: &[u8]) -> Result<(), ExchangeError> {
        let mut head = [0; PduWriter::HEAD_MAX];
        let length = self.writer.head(pdu, &mut head);
        let bytes = [head.get(..length).unwrap_or_default(), data].concat();
        self.stream.set_write_timeout(Some(left(self.deadline)?))?;
        Ok(self.stream.write_all(&bytes)?)
    }

    /// Takes in what comes until there is a completion, or the answer to the connection's first PDU (`None`). At most
    /// `most` bytes of data.
    fn hear(&mut self, data: &mut Vec<u8>, most: u32) -> Result<Option<Cqe>, ExchangeError> {
        let mut buffer = [0; 4096];
        let mut heard = None;
        loop {
            self.stream.set_read_timeout(Some(left(self.deadline)?))?;
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let mut input = buffer.get(..count).unwrap_or_default();
            loop {
                match self.reader.next(&mut input)? {
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
                            return Err(io::Error::new(io::ErrorKind::InvalidData, what).into());
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
