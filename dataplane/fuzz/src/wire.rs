//! Codecs of the wire.

use roadstead_nvme::dhchap::Secret;
use roadstead_nvme::dhchap::message::Received;
use roadstead_nvme::event::AsyncEvent;
use roadstead_nvme::fabrics::InvalidParameter;
use roadstead_nvme::feature::NumberOfQueues;
use roadstead_nvme::identify::NamespaceDescriptor;
use roadstead_nvme::{AdminCommand, DataPointer, FabricsCommand, IoCommand, Nqn, Sqe};
use roadstead_tcp::{Event, Fatal, Pdu, PduReader, PduWriter, Role, Settings};
use zerocopy::FromBytes;

use crate::Input;

/// What a command says is the same after it was written and read again.
pub fn nvme_commands(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    while !input.is_empty() {
        let bytes: [u8; 64] = input.array();
        let Ok(sqe) = Sqe::read_from_bytes(&bytes) else {
            return;
        };
        let cid = sqe.cid.get();
        if let Ok(command) = IoCommand::parse(&sqe) {
            assert_eq!(IoCommand::parse(&command.encode(cid)), Ok(command));
        }
        if let Ok(command) = AdminCommand::parse(&sqe) {
            assert_eq!(AdminCommand::parse(&command.encode(cid)), Ok(command));
        }
        if let Ok(command) = FabricsCommand::parse(&sqe) {
            assert_eq!(FabricsCommand::parse(&command.encode(cid)), Ok(command));
        }
        if let Ok(pointer) = DataPointer::parse(&sqe.dptr) {
            assert_eq!(DataPointer::parse(&pointer.encode()), Ok(pointer));
        }
    }
}

/// Names, lists, results and messages of authentication.
pub fn nvme_names(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let number = input.u32();
    let event = AsyncEvent::parse(number);
    assert_eq!(AsyncEvent::parse(event.encode()), event);
    if let Some(queues) = NumberOfQueues::parse(number) {
        assert_eq!(NumberOfQueues::parse(queues.encode()), Some(queues));
    }
    let parameter = InvalidParameter::parse(u64::from(number));
    assert_eq!(InvalidParameter::parse(parameter.encode()), parameter);
    let rest = input.rest();
    if let Ok(nqn) = Nqn::from_field(&Input::new(rest).array()) {
        assert_eq!(Nqn::from_field(&nqn.to_field()), Ok(nqn.clone()));
        assert_eq!(Nqn::new(nqn.as_str()), Ok(nqn));
    }
    let descriptors = NamespaceDescriptor::read_list(rest);
    let mut list = Vec::new();
    for descriptor in &descriptors {
        descriptor.write(&mut list);
    }
    assert_eq!(NamespaceDescriptor::read_list(&list), descriptors);
    if let Ok((_, Received::Challenge(challenge))) = Received::parse(rest) {
        assert_eq!(challenge.challenge.len(), challenge.hash.bytes());
    }
    if let Ok(Ok(secret)) = std::str::from_utf8(rest).map(Secret::parse) {
        assert_eq!(secret.text().as_bytes(), rest);
    }
}

/// What a reader said, with pieces of data put together.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    pdus: Vec<(Pdu, Vec<u8>, Option<bool>)>,
    end: Option<Fatal>,
}

impl Heard {
    fn listen(&mut self, reader: &mut PduReader, mut bytes: &[u8]) {
        while self.end.is_none() {
            let before = bytes.len();
            match reader.next(&mut bytes) {
                Ok(None) => {
                    assert!(bytes.is_empty(), "bytes are left and nothing came");
                    return;
                }
                Ok(Some(Event::Pdu(pdu))) => self.pdus.push((pdu, Vec::new(), None)),
                Ok(Some(Event::Data(data))) => {
                    assert!(!data.is_empty() && bytes.len() < before);
                    if let Some((_, all, _)) = self.pdus.last_mut() {
                        all.extend_from_slice(data);
                    }
                }
                Ok(Some(Event::DataEnd { intact })) => {
                    if let Some((pdu, all, end)) = self.pdus.last_mut() {
                        assert_eq!(Ok(pdu.data_length()), u32::try_from(all.len()));
                        assert!(end.replace(intact).is_none(), "data ends twice");
                    }
                }
                Err(fatal) => self.end = Some(fatal),
            }
        }
        assert!(reader.next(&mut bytes).is_err(), "goes on after an error");
    }
}

/// How a stream is cut has no influence on what is read from it, and what was read is written the same.
pub fn pdu_reader(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mode = input.u8();
    let role = if mode & 1 == 0 {
        Role::Controller
    } else {
        Role::Host
    };
    let settings = Settings {
        header_digest: mode & 2 != 0,
        data_digest: mode & 4 != 0,
        alignment_bytes: 4,
        max_in_capsule: 8192,
        max_data: 1 << 16,
    };
    let reader = || {
        let mut reader = PduReader::new(role);
        if mode & 8 == 0 {
            reader.settle(settings);
        }
        reader
    };
    let step = usize::from(input.u8()) + 1;
    // Digests that hold are not found by noise.
    let stream = if mode & 16 == 0 {
        input.rest().to_vec()
    } else {
        written(&mut input, settings)
    };
    let (mut whole, mut pieces) = (Heard::default(), Heard::default());
    whole.listen(&mut reader(), &stream);
    let mut second = reader();
    for piece in stream.chunks(step) {
        pieces.listen(&mut second, piece);
    }
    assert_eq!(whole, pieces);
}

/// PDUs with right digests around heads from noise.
fn written(input: &mut Input<'_>, settings: Settings) -> Vec<u8> {
    let writer = PduWriter::new(settings);
    let mut stream = Vec::new();
    while !input.is_empty() {
        let Ok(sqe) = Sqe::read_from_bytes(&input.array::<64>()) else {
            break;
        };
        let data = input.take(usize::from(input.clone().u8()) * 4);
        let pdu = Pdu::CapsuleCmd {
            sqe,
            data_length: u32::try_from(data.len()).unwrap_or(0),
        };
        let mut head = [0; PduWriter::HEAD_MAX];
        let length = writer.head(&pdu, &mut head);
        stream.extend_from_slice(head.get(..length).unwrap_or_default());
        if !data.is_empty() {
            stream.extend_from_slice(data);
            stream.extend(writer.data_digest(data).into_iter().flatten());
        }
    }
    stream
}
