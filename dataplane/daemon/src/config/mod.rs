//! The stand-alone configuration file.
//!
//! The file becomes the same `NodeState` that the control API takes and goes the same way. Every mistake
//! is named with its line and its field, all of them in one run. What a state must be like is decided in
//! `desired` alone; here its complaints are led back to the places in the file.

mod read;
mod yaml;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use roadstead_api::{NVME_TCP_PORT, v1};
use roadstead_target::ControllerLimits;
use roadstead_target::limits::ANA_GROUPS_MAX;
use uuid::Uuid;

use crate::desired::{self, Place};
use crate::settings::REACTORS_MAX;
use read::{Fields, Item, Mistakes, number, size_bytes, text};
use yaml::{Mistake, Node, join};

/// Files larger than this are refused unread.
const FILE_SIZE_MAX_BYTES: u64 = 1 << 20;
/// Port of discovery services (NVMe/TCP Transport 1.0, section 3.1).
const NVME_DISCOVERY_PORT: u32 = 8009;
/// Block size of a namespace that does not say.
const BLOCK_SIZE_DEFAULT: u32 = 4096;
/// Namespace of the UUIDs that are made from names (version 5).
const VOLUME_NAMES: Uuid = Uuid::from_u128(0x7c1a_0f5e_4b0d_5a52_9d6e_2f6b_8d1c_3a47);

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Config {
    pub(crate) reactors: Option<u32>,
    pub(crate) controllers: ControllerLimits,
    pub(crate) host_nqn: Option<String>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) mdns: bool,
    pub(crate) state: v1::NodeState,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// It cannot be read at all.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    /// It is far larger than any configuration.
    #[error("{} is larger than {FILE_SIZE_MAX_BYTES} bytes: not a configuration", path.display())]
    TooLarge { path: PathBuf },
    /// It is wrong: one line for each mistake.
    #[error("{}", Listed(file, mistakes))]
    Mistakes {
        file: String,
        mistakes: Vec<Mistake>,
    },
}

struct Listed<'a>(&'a str, &'a [Mistake]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.1.iter().enumerate() {
            let Mistake { line, field, what } = mistake;
            let end = if i + 1 < self.1.len() { "\n" } else { "" };
            let colon = if field.is_empty() { "" } else { ": " };
            write!(f, "{}:{line}: {field}{colon}{what}{end}", self.0)?;
        }
        Ok(())
    }
}

/// Reads and checks a file.
pub(crate) fn load(path: &Path) -> Result<Config, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_SIZE_MAX_BYTES {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
        });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let file = path
        .file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned();
    parse(&text).map_err(|mistakes| ConfigError::Mistakes { file, mistakes })
}

fn parse(text: &str) -> Result<Config, Vec<Mistake>> {
    let document = yaml::parse(text).map_err(|mistake| vec![mistake])?;
    let mistakes = Mistakes::default();
    let mut reader = Reader {
        mistakes: &mistakes,
        state: v1::NodeState::default(),
        origins: vec![],
    };
    let config = reader.document(&document);
    reader.check();
    mistakes.into_result()?;
    // No mistake was noted, so the document was read to the end.
    Ok(config.unwrap_or_default())
}

/// Where in the file a message of the state comes from.
struct Origin<'a> {
    place: Place,
    path: String,
    node: &'a Node,
}

struct Reader<'a> {
    mistakes: &'a Mistakes,
    state: v1::NodeState,
    origins: Vec<Origin<'a>>,
}

impl<'a> Reader<'a> {
    fn document(&mut self, node: &'a Node) -> Option<Config> {
        let mut fields = Fields::of(node, "", self.mistakes)?;
        let mut config = Config {
            reactors: fields.optional("reactors", number(1, REACTORS_MAX)),
            controllers: controllers(&mut fields),
            host_nqn: fields.optional("hostNqn", desired::nqn),
            state_dir: fields.optional("stateDir", absolute),
            socket: fields.optional("socket", absolute),
            metrics_listen: fields.optional("metricsListen", socket_address),
            mdns: fields.flag("mdns"),
            state: v1::NodeState::default(),
        };
        for item in fields.required_list("portals") {
            self.portal(&item);
        }
        for item in fields.list("discovery") {
            self.discovery(&item);
        }
        for item in fields.list("referrals") {
            self.referral(&item);
        }
        for item in fields.required_list("drives") {
            self.drive(&item);
        }
        for item in fields.list("subsystems") {
            self.subsystem(&item);
        }
        fields.finish();
        config.state = self.state.clone();
        Some(config)
    }

    fn portal(&mut self, item: &Item<'a>) -> Option<()> {
        let mut fields = Fields::of(item.node, &item.path, self.mistakes)?;
        let address = fields.required("address", text);
        let port = fields.optional("port", number(1, u32::from(u16::MAX)));
        let transport = fields.optional("transport", transport);
        let ana_state = fields.optional("anaState", ana_state);
        let mut ana_groups = Vec::new();
        for group in fields.list("anaGroups") {
            ana_groups.extend(self.ana_group(&group));
        }
        fields.finish();
        self.origin(Place::Portal(self.state.portals.len()), item);
        self.state.portals.push(v1::Portal {
            transport: transport.unwrap_or(v1::Transport::Tcp).into(),
            address: address?,
            port: port.unwrap_or(u32::from(NVME_TCP_PORT)),
            ana_state: ana_state.unwrap_or_default().into(),
            ana_groups,
            ..v1::Portal::default()
        });
        Some(())
    }

    fn ana_group(&mut self, item: &Item<'a>) -> Option<v1::AnaGroup> {
        let mut fields = Fields::of(item.node, &item.path, self.mistakes)?;
        let group = fields.required("group", number(1, ANA_GROUPS_MAX));
        let state = fields.required("state", ana_state);
        fields.finish();
        Some(v1::AnaGroup {
            group: group?,
            state: state?.into(),
        })
    }

    fn discovery(&mut self, item: &Item<'a>) -> Option<()> {
        let portal = self.discovery_portal(item)?;
        self.origin(Place::Discovery(self.state.discovery.len()), item);
        self.state.discovery.push(portal);
        Some(())
    }

    fn referral(&mut self, item: &Item<'a>) -> Option<()> {
        let portal = self.discovery_portal(item)?;
        self.origin(Place::Referral(self.state.referrals.len()), item);
        self.state.referrals.push(portal);
        Some(())
    }

    fn discovery_portal(&mut self, item: &Item<'a>) -> Option<v1::Portal> {
        let mut fields = Fields::of(item.node, &item.path, self.mistakes)?;
        let address = fields.required("address", text);
        let port = fields.optional("port", number(1, u32::from(u16::MAX)));
        fields.finish();
        Some(v1::Portal {
            transport: v1::Transport::Tcp.into(),
            address: address?,
            port: port.unwrap_or(NVME_DISCOVERY_PORT),
            ..v1::Portal::default()
        })
    }

    fn drive(&mut self, item: &Item<'a>) -> Option<()> {
        let mut fields = Fields::of(item.node, &item.path, self.mistakes)?;
        let name = fields.required("name", text);
        let force = fields.flag("force");
        let source = source(&mut fields);
        fields.finish();
        self.origin(Place::Drive(self.state.drives.len()), item);
        self.state.drives.push(v1::Drive {
            name: name?,
            owner: STANDALONE_OWNER.to_owned(),
            force,
            source: Some(source?),
        });
        Some(())
    }

    fn subsystem(&mut self, item: &Item<'a>) -> Option<()> {
        let mut fields = Fields::of(item.node, &item.path, self.mistakes)?;
        let nqn = fields.required("nqn", text);
        let serial = fields.optional("serial", text).unwrap_or_default();
        let hosts = fields.exactly_one(&["allowAnyHost", "allowedHosts"]);
        let allow_any_host = fields.flag("allowAnyHost");
        let mut allowed_hosts = Vec::new();
        for host in fields.list("allowedHosts") {
            let Some(text) = read::text_of(&host, self.mistakes) else {
                continue;
            };
            match desired::nqn(text) {
                Ok(nqn) => allowed_hosts.push(nqn),
                Err(what) => self.mistakes.add(host.node.line, &host.path, what),
            }
        }
        let namespaces = fields.list("namespaces");
        fields.finish();
        let (nqn, _) = (nqn?, hosts?);
        let index = self.state.subsystems.len();
        self.origin(Place::Subsystem(index), item);
        let mut exported = Vec::new();
        for (position, namespace) in (1..).zip(&namespaces) {
            let place = Place::Namespace(index, exported.len());
            exported.extend(self.namespace(namespace, &nqn, position, place).flatten());
        }
        self.state.subsystems.push(v1::Subsystem {
            nqn,
            serial,
            namespaces: exported,
            allow_any_host,
            allowed_hosts,
        });
        Some(())
    }

    /// Notes the volume; the namespace that exports it, unless the volume must go.
    fn namespace(
        &mut self,
        item: &Item<'a>,
        nqn: &str,
        position: u32,
        place: Place,
    ) -> Option<Option<v1::Namespace>> {
        let mut fields = Fields::of(item.node, &item.path, self.mistakes)?;
        let name = fields.required("name", text);
        let uuid = fields.optional("uuid", desired::uuid);
        let nsid = fields.optional("nsid", number(1, desired::NSID_MAX));
        let drive = fields.required("drive", text);
        let size_bytes = fields.required("size", size_bytes);
        let block_size = fields.optional("blockSize", number(1, u32::MAX));
        let absent = fields.flag("absent");
        let ana_group = fields.optional("anaGroup", number(1, ANA_GROUPS_MAX));
        fields.finish();
        let name = name?;
        if self.state.volumes.iter().any(|volume| volume.name == name) {
            let what = format!("another namespace has the name '{name}' too");
            self.mistakes
                .add(item.node.line, &join(&item.path, "name"), what);
            return None;
        }
        let uuid = uuid.unwrap_or_else(|| volume_uuid(nqn, &name)).to_string();
        self.origin(Place::Volume(self.state.volumes.len()), item);
        self.state.volumes.push(v1::Volume {
            uuid: uuid.clone(),
            name,
            drive: drive?,
            size_bytes: size_bytes?,
            block_size: block_size.unwrap_or(BLOCK_SIZE_DEFAULT),
            absent,
        });
        if absent {
            return Some(None);
        }
        self.origin(place, item);
        Some(Some(v1::Namespace {
            nsid: nsid.unwrap_or(position),
            volume_uuid: uuid,
            ana_group: ana_group.unwrap_or_default(),
        }))
    }

    fn origin(&mut self, place: Place, item: &Item<'a>) {
        self.origins.push(Origin {
            place,
            path: item.path.clone(),
            node: item.node,
        });
    }

    /// Checks the state as a whole and leads each complaint back to its line.
    fn check(&self) {
        let mut invalid = desired::parse(&self.state).err().unwrap_or_default();
        if invalid.is_empty() && self.mistakes.is_empty() {
            // Only then: a drive that was not understood would be missing everywhere.
            invalid = desired::dangling(&self.state);
        }
        for desired::Invalid { place, field, what } in invalid {
            let Some(origin) = self.origins.iter().rfind(|origin| origin.place == place) else {
                continue;
            };
            let names = file_fields(field);
            let entry = names.iter().find_map(|name| origin.node.entry(name));
            let line = entry.map_or(origin.node.line, |entry| entry.value.line);
            let name = entry.map_or(names[0], |entry| &entry.key);
            self.mistakes.add(line, &join(&origin.path, name), what);
        }
    }
}

/// What controllers offer to hosts.
fn controllers(fields: &mut Fields<'_>) -> ControllerLimits {
    let default = ControllerLimits::default();
    let entries = fields.optional("queueEntries", |text| {
        let entries = number(0, u32::MAX)(text)?;
        ControllerLimits::new(entries, default.io_queues()).map_err(|error| error.to_string())
    });
    let entries = entries.unwrap_or(default).queue_entries();
    let queues = fields.optional("ioQueues", |text| {
        let queues = u16::try_from(number(1, u32::from(u16::MAX))(text)?).unwrap_or(u16::MAX);
        ControllerLimits::new(entries, queues).map_err(|error| error.to_string())
    });
    queues
        .or_else(|| ControllerLimits::new(entries, default.io_queues()).ok())
        .unwrap_or(default)
}

/// Written into the labels of a stand-alone daemon's pools. One for all, so that a drive can move to
/// another stand-alone machine.
pub(crate) const STANDALONE_OWNER: &str = "standalone";

fn source(fields: &mut Fields<'_>) -> Option<v1::drive::Source> {
    use v1::drive::Source;
    let given = fields.exactly_one(&["path", "serial", "model", "file", "memory"]);
    let path = fields.optional("path", text).map(Source::Path);
    let serial = fields.optional("serial", text).map(Source::Serial);
    let model = fields.optional("model", text).map(Source::Model);
    let file = fields.map("file").and_then(|mut file| {
        let path = file.required("path", text);
        let size_bytes = file.required("size", size_bytes);
        file.finish();
        Some(Source::File(v1::FileSource {
            path: path?,
            size_bytes: size_bytes?,
        }))
    });
    let memory = fields.map("memory").and_then(|mut memory| {
        let size_bytes = memory.required("size", size_bytes);
        memory.finish();
        Some(Source::Memory(v1::MemorySource {
            size_bytes: size_bytes?,
        }))
    });
    given?;
    path.or(serial).or(model).or(file).or(memory)
}

/// The fields of the file that a field of the state can come from, the likeliest first.
fn file_fields(field: &'static str) -> &'static [&'static str] {
    match field {
        "size_bytes" => &["size"],
        "block_size" => &["blockSize"],
        "volume_uuid" | "uuid" => &["uuid", "name"],
        "allowed_hosts" => &["allowedHosts"],
        "name" => &["name"],
        "drive" => &["drive"],
        "nqn" => &["nqn"],
        "serial" => &["serial"],
        "nsid" => &["nsid", "name"],
        "address" => &["address"],
        "port" => &["port"],
        "ana_state" => &["anaState"],
        "ana_groups" => &["anaGroups"],
        "ana_group" => &["anaGroup"],
        "path" => &["path"],
        "model" => &["model"],
        "file" => &["file"],
        "memory" => &["memory"],
        _ => &["name"],
    }
}

/// The UUID of a namespace that has only a name: the same for ever, and no other subsystem's.
fn volume_uuid(nqn: &str, name: &str) -> Uuid {
    Uuid::new_v5(&VOLUME_NAMES, format!("{nqn}\n{name}").as_bytes())
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!("'{text}' is not an absolute path"))
    }
}

fn transport(text: &str) -> Result<v1::Transport, String> {
    match text {
        "tcp" => Ok(v1::Transport::Tcp),
        "rdma" => Ok(v1::Transport::Rdma),
        _ => Err(format!("'{text}' is not a transport: tcp or rdma")),
    }
}

fn ana_state(text: &str) -> Result<v1::AnaState, String> {
    match text {
        "optimized" => Ok(v1::AnaState::Optimized),
        "nonOptimized" => Ok(v1::AnaState::NonOptimized),
        "inaccessible" => Ok(v1::AnaState::Inaccessible),
        "persistentLoss" => Ok(v1::AnaState::PersistentLoss),
        "change" => Ok(v1::AnaState::Change),
        _ => Err(format!(
            "'{text}' is not an ANA state: optimized, nonOptimized, inaccessible, persistentLoss or change"
        )),
    }
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is not ADDRESS:PORT; write e.g. 127.0.0.1:7421"))
}

#[cfg(test)]
mod tests;
