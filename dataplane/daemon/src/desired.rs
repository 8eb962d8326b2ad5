//! What the node should be, parsed once from the control API's messages into values that cannot be
//! wrong by themselves.
//!
//! A state that is malformed is refused as a whole (`parse`). A reference to something that the state
//! does not have is no reason to refuse it, because one removed drive must not stop the others: it shows
//! in the report. A person's file is held to more: `dangling` names such references.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use roadstead_api::v1;
use uuid::Uuid;

/// Longest NQN in bytes (NVMe Base 2.0, section 4.5).
pub(crate) const NQN_LENGTH_MAX: usize = 223;
/// Largest namespace identifier that a subsystem can have.
pub(crate) const NSID_MAX: u32 = 1024;
/// Longest serial number of a subsystem (Identify Controller, SN).
const SERIAL_LENGTH_MAX: usize = 20;
/// Longest name of a drive or a volume.
const NAME_LENGTH_MAX: usize = 253;

/// The whole desired state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) revision: String,
    pub(crate) drives: Vec<DriveSpec>,
    pub(crate) volumes: Vec<VolumeSpec>,
    pub(crate) subsystems: Vec<SubsystemSpec>,
    pub(crate) portals: Vec<PortalSpec>,
}

/// A drive that should carry a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct DriveSpec {
    pub(crate) name: String,
    /// Written into the pool's label.
    pub(crate) owner: String,
    pub(crate) source: Source,
    /// Overwrite what is on the drive.
    pub(crate) force: bool,
}

/// How a drive is found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// By a path that leads to the block device.
    Path(PathBuf),
    /// By serial number.
    Serial(String),
    /// The first unused one of the model.
    Model(String),
    /// A file of at least this size.
    File { path: PathBuf, size_bytes: u64 },
    /// The daemon's memory.
    Memory { size_bytes: u64 },
}

/// A volume that should, or must not, exist.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct VolumeSpec {
    pub(crate) uuid: Uuid,
    pub(crate) name: String,
    pub(crate) drive: String,
    pub(crate) size_bytes: u64,
    pub(crate) block_size: u32,
    pub(crate) absent: bool,
}

/// An NVM subsystem that should be exported.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SubsystemSpec {
    pub(crate) nqn: String,
    pub(crate) serial: String,
    /// Volume by namespace identifier.
    pub(crate) namespaces: BTreeMap<u32, Uuid>,
    pub(crate) hosts: Hosts,
}

/// Who may connect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Hosts {
    Any,
    Listed(BTreeSet<String>),
}

/// An address that should be listened at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PortalSpec {
    pub(crate) rdma: bool,
    pub(crate) address: SocketAddr,
}

/// Which message of a state is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Drive(usize),
    Volume(usize),
    Subsystem(usize),
    Namespace(usize, usize),
    Portal(usize),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Drive(i) => write!(f, "drives[{i}]"),
            Self::Volume(i) => write!(f, "volumes[{i}]"),
            Self::Subsystem(i) => write!(f, "subsystems[{i}]"),
            Self::Namespace(i, j) => write!(f, "subsystems[{i}].namespaces[{j}]"),
            Self::Portal(i) => write!(f, "portals[{i}]"),
        }
    }
}

/// What is wrong with one field of a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}.{field}: {what}")]
pub(crate) struct Invalid {
    pub(crate) place: Place,
    /// The field's name in the proto.
    pub(crate) field: &'static str,
    pub(crate) what: String,
}

/// Parses a state; all that is wrong with it is named at once.
pub(crate) fn parse(state: &v1::NodeState) -> Result<Desired, Vec<Invalid>> {
    let mut parser = Parser::default();
    let desired = Desired {
        revision: state.revision.clone(),
        drives: collect(&state.drives, |i, drive| parser.drive(i, drive)),
        volumes: collect(&state.volumes, |i, volume| parser.volume(i, volume)),
        subsystems: collect(&state.subsystems, |i, subsystem| {
            parser.subsystem(i, subsystem)
        }),
        portals: collect(&state.portals, |i, portal| parser.portal(i, portal)),
    };
    if parser.invalid.is_empty() {
        Ok(desired)
    } else {
        Err(parser.invalid)
    }
}

fn collect<T, U>(from: &[T], mut parse: impl FnMut(usize, &T) -> Option<U>) -> Vec<U> {
    from.iter()
        .enumerate()
        .filter_map(|(i, item)| parse(i, item))
        .collect()
}

/// References to drives and volumes that the state does not have.
pub(crate) fn dangling(state: &v1::NodeState) -> Vec<Invalid> {
    let drives: HashSet<&str> = state
        .drives
        .iter()
        .map(|drive| drive.name.as_str())
        .collect();
    let mut found = Vec::new();
    for (i, volume) in state.volumes.iter().enumerate() {
        if !drives.contains(volume.drive.as_str()) {
            let what = format!("there is no drive of the name '{}'", volume.drive);
            found.push(Invalid {
                place: Place::Volume(i),
                field: "drive",
                what,
            });
        }
    }
    found
}

#[derive(Default)]
struct Parser {
    invalid: Vec<Invalid>,
    drives: HashSet<String>,
    volumes: HashSet<Uuid>,
    nqns: HashSet<String>,
    exported: HashSet<Uuid>,
    portals: HashSet<PortalSpec>,
}

impl Parser {
    fn wrong(&mut self, place: Place, field: &'static str, what: impl Into<String>) {
        self.invalid.push(Invalid {
            place,
            field,
            what: what.into(),
        });
    }

    /// The value, or `None` with the reason noted.
    fn check<T>(
        &mut self,
        place: Place,
        field: &'static str,
        result: Result<T, String>,
    ) -> Option<T> {
        result.map_err(|what| self.wrong(place, field, what)).ok()
    }

    fn drive(&mut self, i: usize, drive: &v1::Drive) -> Option<DriveSpec> {
        let place = Place::Drive(i);
        let name = self.check(place, "name", name(&drive.name))?;
        if !self.drives.insert(name.clone()) {
            self.wrong(
                place,
                "name",
                format!("another drive has the name '{name}' too"),
            );
            return None;
        }
        let Some(source) = &drive.source else {
            self.wrong(place, "source", "is missing");
            return None;
        };
        let (field, source) = source_of(source);
        let source = self.check(place, field, source)?;
        Some(DriveSpec {
            name,
            owner: drive.owner.clone(),
            source,
            force: drive.force,
        })
    }

    fn volume(&mut self, i: usize, volume: &v1::Volume) -> Option<VolumeSpec> {
        let place = Place::Volume(i);
        let uuid = self.check(place, "uuid", uuid(&volume.uuid))?;
        if !self.volumes.insert(uuid) {
            self.wrong(
                place,
                "uuid",
                format!("another volume has the UUID {uuid} too"),
            );
            return None;
        }
        let spec = VolumeSpec {
            uuid,
            name: if volume.name.is_empty() {
                uuid.to_string()
            } else {
                volume.name.clone()
            },
            drive: volume.drive.clone(),
            size_bytes: volume.size_bytes,
            block_size: volume.block_size,
            absent: volume.absent,
        };
        if !spec.absent {
            self.check(place, "block_size", block_size(spec.block_size))?;
            self.check(
                place,
                "size_bytes",
                volume_size(spec.size_bytes, spec.block_size),
            )?;
        }
        Some(spec)
    }

    fn subsystem(&mut self, i: usize, subsystem: &v1::Subsystem) -> Option<SubsystemSpec> {
        let place = Place::Subsystem(i);
        let nqn = self.check(place, "nqn", nqn(&subsystem.nqn))?;
        if !self.nqns.insert(nqn.clone()) {
            self.wrong(
                place,
                "nqn",
                format!("another subsystem has the NQN '{nqn}' too"),
            );
            return None;
        }
        let serial = self.check(place, "serial", serial(&subsystem.serial, &nqn))?;
        let mut namespaces = BTreeMap::new();
        for (j, namespace) in subsystem.namespaces.iter().enumerate() {
            let (nsid, volume) = self.namespace(Place::Namespace(i, j), namespace)?;
            if namespaces.insert(nsid, volume).is_some() {
                let what = format!("another namespace of the subsystem has {nsid} too");
                self.wrong(Place::Namespace(i, j), "nsid", what);
            }
        }
        let hosts = if subsystem.allow_any_host {
            Hosts::Any
        } else {
            let mut listed = BTreeSet::new();
            for host in &subsystem.allowed_hosts {
                listed.insert(self.check(place, "allowed_hosts", nqn_of_host(host))?);
            }
            Hosts::Listed(listed)
        };
        Some(SubsystemSpec {
            nqn,
            serial,
            namespaces,
            hosts,
        })
    }

    fn namespace(&mut self, place: Place, namespace: &v1::Namespace) -> Option<(u32, Uuid)> {
        let nsid = namespace.nsid;
        if !(1..=NSID_MAX).contains(&nsid) {
            self.wrong(
                place,
                "nsid",
                format!("{nsid} is not a number from 1 to {NSID_MAX}"),
            );
            return None;
        }
        let volume = self.check(place, "volume_uuid", uuid(&namespace.volume_uuid))?;
        if !self.exported.insert(volume) {
            self.wrong(
                place,
                "volume_uuid",
                format!("volume {volume} is exported twice"),
            );
            return None;
        }
        Some((nsid, volume))
    }

    fn portal(&mut self, i: usize, message: &v1::Portal) -> Option<PortalSpec> {
        let place = Place::Portal(i);
        let spec = portal(message)
            .map_err(|(field, what)| self.wrong(place, field, what))
            .ok()?;
        if !self.portals.insert(spec) {
            self.wrong(place, "address", format!("{} is given twice", spec.address));
            return None;
        }
        Some(spec)
    }
}

/// An address; the error names the field.
pub(crate) fn portal(portal: &v1::Portal) -> Result<PortalSpec, (&'static str, String)> {
    let transport = transport(portal.transport).map_err(|what| ("transport", what))?;
    let address = ip_address(&portal.address).map_err(|what| ("address", what))?;
    let port = port(portal.port).map_err(|what| ("port", what))?;
    let rdma = transport == v1::Transport::Rdma;
    Ok(PortalSpec {
        rdma,
        address: SocketAddr::new(address, port),
    })
}

fn source_of(source: &v1::drive::Source) -> (&'static str, Result<Source, String>) {
    use v1::drive::Source as Wire;
    match source {
        Wire::Path(path) => ("path", absolute(path).map(Source::Path)),
        Wire::Serial(serial) => ("serial", not_empty(serial).map(Source::Serial)),
        Wire::Model(model) => ("model", not_empty(model).map(Source::Model)),
        Wire::Memory(memory) => {
            let size_bytes = memory.size_bytes;
            (
                "memory",
                has_room(size_bytes).map(|()| Source::Memory { size_bytes }),
            )
        }
        Wire::File(file) => {
            let size_bytes = file.size_bytes;
            let path = has_room(size_bytes).and_then(|()| absolute(&file.path));
            ("file", path.map(|path| Source::File { path, size_bytes }))
        }
    }
}

fn has_room(size_bytes: u64) -> Result<(), String> {
    if size_bytes == 0 {
        Err("the size is 0".to_owned())
    } else {
        Ok(())
    }
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("is empty".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn absolute(path: &str) -> Result<PathBuf, String> {
    if path.starts_with('/') {
        Ok(PathBuf::from(path))
    } else {
        Err(format!("'{path}' is not an absolute path"))
    }
}

/// A name of a drive or a volume: printable, for logs and metrics.
fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if text.is_empty() || text.len() > NAME_LENGTH_MAX || !text.chars().all(fits) {
        return Err(format!(
            "'{text}' is not a name: 1 to {NAME_LENGTH_MAX} letters, digits, '-', '_', '.', '/'"
        ));
    }
    Ok(text.to_owned())
}

pub(crate) fn uuid(text: &str) -> Result<Uuid, String> {
    match Uuid::try_parse(text) {
        Ok(uuid) if !uuid.is_nil() => Ok(uuid),
        _ => Err(format!("'{text}' is not a UUID")),
    }
}

fn block_size(bytes: u32) -> Result<(), String> {
    match bytes {
        512 | 4096 => Ok(()),
        _ => Err(format!("{bytes} is not possible; write 512 or 4096")),
    }
}

fn volume_size(size_bytes: u64, block_size: u32) -> Result<(), String> {
    if size_bytes == 0 || !size_bytes.is_multiple_of(u64::from(block_size)) {
        return Err(format!(
            "{size_bytes} is not a multiple of the block size {block_size}"
        ));
    }
    Ok(())
}

/// NVMe Base 2.0, section 4.5: UTF-8, at most 223 bytes, `nqn.` and more.
pub(crate) fn nqn(text: &str) -> Result<String, String> {
    let fits = |c: char| !c.is_control() && !c.is_whitespace();
    let date_and_more = text.strip_prefix("nqn.").is_some_and(|rest| {
        rest.len() > 8
            && rest
                .bytes()
                .zip(*b"dddd-dd.")
                .all(|(byte, kind)| match kind {
                    b'd' => byte.is_ascii_digit(),
                    literal => byte == literal,
                })
    });
    if !date_and_more || text.len() > NQN_LENGTH_MAX || !text.chars().all(fits) {
        return Err(format!(
            "'{text}' is not an NQN; write e.g. nqn.2026-11.io.roadstead:example, \
             at most {NQN_LENGTH_MAX} bytes"
        ));
    }
    if text == DISCOVERY_NQN {
        return Err(format!("'{text}' is the discovery service's own"));
    }
    Ok(text.to_owned())
}

/// NVMe-oF's well-known discovery service (NVMe Base 2.0, section 4.5.1).
const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

fn nqn_of_host(text: &str) -> Result<String, String> {
    nqn(text)
}

/// The serial given, or one made from the NQN: the same for ever.
fn serial(text: &str, nqn: &str) -> Result<String, String> {
    if text.is_empty() {
        let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, nqn.as_bytes())
            .simple()
            .to_string();
        return Ok(digest.chars().take(SERIAL_LENGTH_MAX).collect());
    }
    let fits = |byte: u8| (0x20..0x7f).contains(&byte);
    if text.len() > SERIAL_LENGTH_MAX || !text.bytes().all(fits) {
        return Err(format!(
            "'{text}' is not a serial: at most {SERIAL_LENGTH_MAX} ASCII letters"
        ));
    }
    Ok(text.to_owned())
}

fn transport(number: i32) -> Result<v1::Transport, String> {
    match v1::Transport::try_from(number) {
        Ok(v1::Transport::Unspecified) | Err(_) => Err(format!("{number} is not a transport")),
        Ok(known) => Ok(known),
    }
}

fn ip_address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is not an IP address; 0.0.0.0 and :: listen on all"))
}

fn port(number: u32) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("{number} is not a port number from 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(uuid: &str) -> v1::Volume {
        v1::Volume {
            uuid: uuid.to_owned(),
            name: "data".to_owned(),
            drive: "d".to_owned(),
            size_bytes: 1 << 20,
            block_size: 4096,
            absent: false,
        }
    }

    const A: &str = "9d1c1a3e-55a4-4f9b-8d9e-3b0a4f0a7c11";

    fn messages(state: &v1::NodeState) -> Vec<String> {
        parse(state)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_volume_that_must_go_needs_neither_size_nor_block_size() {
        let gone = v1::Volume {
            absent: true,
            size_bytes: 0,
            block_size: 0,
            ..volume(A)
        };
        let state = v1::NodeState {
            volumes: vec![gone],
            ..Default::default()
        };
        assert!(parse(&state).unwrap().volumes[0].absent);
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let state = v1::NodeState {
            drives: vec![v1::Drive {
                name: "d".into(),
                ..Default::default()
            }],
            volumes: vec![
                volume("x"),
                volume(A),
                volume(A),
                v1::Volume {
                    block_size: 1024,
                    ..volume("9d1c1a3e-55a4-4f9b-8d9e-3b0a4f0a7c12")
                },
            ],
            subsystems: vec![v1::Subsystem {
                nqn: "example".into(),
                ..Default::default()
            }],
            portals: vec![v1::Portal {
                transport: 1,
                address: "localhost".into(),
                port: 4420,
            }],
            ..Default::default()
        };
        assert_eq!(
            messages(&state),
            [
                "drives[0].source: is missing".to_owned(),
                "volumes[0].uuid: 'x' is not a UUID".to_owned(),
                format!("volumes[2].uuid: another volume has the UUID {A} too"),
                "volumes[3].block_size: 1024 is not possible; write 512 or 4096".to_owned(),
                "subsystems[0].nqn: 'example' is not an NQN; write e.g. \
                 nqn.2026-11.io.roadstead:example, at most 223 bytes"
                    .to_owned(),
                "portals[0].address: 'localhost' is not an IP address; \
                 0.0.0.0 and :: listen on all"
                    .to_owned(),
            ]
        );
    }

    #[test]
    fn a_volume_has_one_export() {
        let namespace = |nsid| v1::Namespace {
            nsid,
            volume_uuid: A.into(),
        };
        let state = v1::NodeState {
            subsystems: vec![v1::Subsystem {
                nqn: "nqn.2026-11.io.roadstead:a".into(),
                namespaces: vec![namespace(1), namespace(2)],
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(
            messages(&state),
            [format!(
                "subsystems[0].namespaces[1].volume_uuid: volume {A} is exported twice"
            )]
        );
    }

    #[test]
    fn nqns() {
        for good in [
            "nqn.2026-11.io.roadstead:example",
            "nqn.2014-08.org.nvmexpress:uuid:1",
        ] {
            assert!(nqn(good).is_ok(), "{good}");
        }
        let long = format!("nqn.2026-11.io.roadstead:{}", "x".repeat(NQN_LENGTH_MAX));
        for bad in [
            "",
            "nqn.",
            "nqn.2026-11.",
            "iqn.2026-11.io:x",
            "nqn.2026-11.a b",
            &long,
        ] {
            assert!(nqn(bad).is_err(), "{bad}");
        }
    }
}
