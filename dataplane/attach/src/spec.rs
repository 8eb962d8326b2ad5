//! What is attached: the request as data, kept on disk across restarts.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use roadstead_nvme::dhchap::Keys;
use roadstead_nvme::{AnaState, Portal, Transport};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{AttachError, Foreign};

pub use roadstead_initiator::{Segments, Traffic as CommandCounts};

/// How long I/O waits for a lost connection when the request does not say.
pub const CTRL_LOSS_TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);
/// Longest id: with the prefixes and suffixes of its files it still is one file name.
pub const ID_LEN_MAX: usize = 200;
/// Longest NQN (NVM Express Base 2.0, 4.7).
pub const NQN_LEN_MAX: usize = 223;
/// Most paths of one attachment.
pub const PATHS_MAX: usize = 16;

/// This node as a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIdentity {
    /// Host NQN, by which targets admit it.
    pub nqn: String,
    /// Host identifier; the same on every connection of this node.
    pub id: Uuid,
    /// By what it authenticates itself where that is demanded.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::keys")]
    pub keys: Option<Keys>,
}

/// The transports by their names in files.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Transport", rename_all = "lowercase")]
enum TransportName {
    Tcp,
    Rdma,
    Local,
}

/// One portal of the target, or the way to this process's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PathSpec {
    /// How it is reached; files of versions that knew TCP alone do not say it.
    #[serde(with = "TransportName", default)]
    pub transport: Transport,
    /// Address of the target; unspecified for the local path.
    pub address: IpAddr,
    /// Port of the target; 0 for the local path.
    pub port: u16,
}

impl PathSpec {
    /// Whether it leads to the target of this process.
    pub fn is_local(&self) -> bool {
        self.transport == Transport::Local
    }

    /// As a socket address.
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// As a portal.
    pub fn portal(&self) -> Portal {
        Portal {
            transport: self.transport,
            address: self.socket_addr(),
        }
    }
}

impl From<Portal> for PathSpec {
    fn from(portal: Portal) -> Self {
        Self {
            transport: portal.transport,
            address: portal.address.ip(),
            port: portal.address.port(),
        }
    }
}

impl fmt::Display for PathSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.portal().fmt(f)
    }
}

/// A namespace to attach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The caller's name of the attachment: letters, digits, `.`, `_` and `-`.
    pub id: String,
    /// The subsystem.
    pub subsystem_nqn: String,
    /// UUID of the namespace in it; nil where `foreign` names it. [`Self::wanted`] is both.
    pub volume_uuid: Uuid,
    /// What differs for a namespace of a foreign appliance.
    #[serde(default)]
    pub foreign: Option<Foreign>,
    /// Where the subsystem answers, best first.
    pub paths: Vec<PathSpec>,
    /// The device refuses writes.
    pub read_only: bool,
    /// The method's name; `None`: the best that the node has.
    pub method: Option<String>,
    /// How long I/O waits for a lost connection; 0: [`CTRL_LOSS_TIMEOUT_DEFAULT`].
    pub ctrl_loss_timeout_s: u32,
}

impl Spec {
    /// Whether the subsystem is this process's own, and reached without the network.
    pub fn is_local(&self) -> bool {
        self.paths.iter().any(PathSpec::is_local)
    }

    /// How long I/O waits for a lost connection.
    pub fn ctrl_loss_timeout(&self) -> Duration {
        match self.ctrl_loss_timeout_s {
            0 => CTRL_LOSS_TIMEOUT_DEFAULT,
            seconds => Duration::from_secs(u64::from(seconds)),
        }
    }

    /// # Errors
    /// [`AttachError::InvalidSpec`] names the first field that is wrong.
    pub fn validate(&self) -> Result<(), AttachError> {
        let problem = if self.id.is_empty() || self.id.len() > ID_LEN_MAX {
            format!("id must have 1 to {ID_LEN_MAX} characters")
        } else if self.id.starts_with('.') || !self.id.bytes().all(is_id_byte) {
            "id may hold letters, digits, '.', '_' and '-', and does not start with '.'".into()
        } else if !self.subsystem_nqn.starts_with("nqn.")
            || self.subsystem_nqn.len() > NQN_LEN_MAX
            || !self.subsystem_nqn.bytes().all(is_nqn_byte)
        {
            format!("subsystem_nqn {:?} is not an NQN", self.subsystem_nqn)
        } else if self.volume_uuid.is_nil() && self.foreign_name().is_none() {
            "volume_uuid is missing".into()
        } else if self.paths.is_empty() || self.paths.len() > PATHS_MAX {
            format!("1 to {PATHS_MAX} paths are needed")
        } else if self.is_local() && self.paths.len() > 1 {
            "the local path needs no other beside it".into()
        } else if self.is_local() {
            return Ok(());
        } else if let Some(path) = self.paths.iter().find(|p| p.port == 0) {
            format!("path {path} has no port")
        } else if let Some(path) = self.paths.iter().find(|p| p.address.is_unspecified()) {
            format!("path {path} is not an address to connect to")
        } else {
            return Ok(());
        };
        Err(AttachError::InvalidSpec {
            id: self.id.clone(),
            problem,
        })
    }

    /// The first field in which `other` would need another device; paths and time-outs do not.
    pub(crate) fn conflict(&self, other: &Self) -> Option<&'static str> {
        if self.subsystem_nqn != other.subsystem_nqn {
            Some("subsystem_nqn")
        } else if self.volume_uuid != other.volume_uuid {
            Some("volume_uuid")
        } else if self.foreign_name() != other.foreign_name() {
            Some("name")
        } else if self.read_only != other.read_only {
            Some("read_only")
        } else {
            None
        }
    }
}

fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// The kernel's option string is split at commas.
fn is_nqn_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b','
}

/// What a path does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// Connected; I/O can use it.
    Live,
    /// Being connected, or waiting for the next try.
    Connecting,
    /// Given up, or never connected.
    Failed,
}

/// A path and what it does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStatus {
    /// Which.
    pub path: PathSpec,
    /// Its state.
    pub state: PathState,
    /// Why it is not live; empty when it is.
    pub message: String,
    /// What the target says of the namespace over this path, if that is known.
    pub ana_state: Option<AnaState>,
    /// Times that it was seen to be live and then no longer, and when the last time was.
    pub losses: Losses,
    /// Of small commands lately, smoothed; `None`: not measured.
    pub round_trip: Option<Duration>,
    /// What went over it so far; `None`: nobody counts.
    pub traffic: Option<Traffic>,
}

impl PathStatus {
    /// Of a path that is not there, because of `reason`.
    pub fn failed(path: PathSpec, reason: impl Into<String>) -> Self {
        Self {
            path,
            state: PathState::Failed,
            message: reason.into(),
            ana_state: None,
            losses: Losses::default(),
            round_trip: None,
            traffic: None,
        }
    }
}

/// What went over a path since it was made. A connection made anew may count from zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Commands with data that were carried out.
    pub commands: CommandCounts,
    /// Segments or packets that were sent, and how many of them again, where the transport tells.
    pub segments: Option<Segments>,
}

/// How often a path was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Times.
    pub count: u32,
    /// When the last time was, in Unix seconds; 0: never.
    pub last_s: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn spec() -> Spec {
        Spec {
            id: "pvc-1".into(),
            subsystem_nqn: "nqn.2026-11.io.roadstead:example".into(),
            volume_uuid: Uuid::from_u128(7),
            foreign: None,
            paths: ["10.0.0.1:4420", "rdma:10.0.0.2:4420"]
                .map(|text| text.parse::<Portal>().unwrap().into())
                .into(),
            read_only: false,
            method: None,
            ctrl_loss_timeout_s: 0,
        }
    }

    fn local() -> Spec {
        Spec {
            paths: vec![Portal::LOCAL.into()],
            ..spec()
        }
    }

    #[test]
    fn a_bad_field_is_named() {
        type Change = fn(&mut Spec);
        let table: &[(Change, &str)] = &[
            (|s| s.id.clear(), "id must"),
            (|s| s.id = "a".repeat(ID_LEN_MAX + 1), "id must"),
            (|s| s.id = "../etc".into(), "id may"),
            (|s| s.id = "a/b".into(), "id may"),
            (|s| s.subsystem_nqn = "iqn.x".into(), "subsystem_nqn"),
            (|s| s.subsystem_nqn = "nqn.x,tls".into(), "subsystem_nqn"),
            (|s| s.volume_uuid = Uuid::nil(), "volume_uuid"),
            (|s| s.paths.clear(), "paths"),
            (|s| s.paths[0].port = 0, "no port"),
            (
                |s| s.paths[0].address = "0.0.0.0".parse().unwrap(),
                "not an address",
            ),
            (|s| s.paths[1] = Portal::LOCAL.into(), "no other"),
            (|s| s.paths = vec![Portal::LOCAL.into(); 2], "no other"),
        ];
        assert!(spec().validate().is_ok());
        assert!(local().validate().is_ok());
        for (change, wanted) in table {
            let mut bad = spec();
            change(&mut bad);
            let error = bad.validate().unwrap_err().to_string();
            assert!(error.contains(wanted), "{error:?} does not say {wanted:?}");
        }
    }

    #[test]
    fn it_survives_json() {
        let text = serde_json::to_string(&spec()).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec());
        assert!(text.contains(r#""transport":"rdma""#), "{text}");
        let text = serde_json::to_string(&local()).unwrap();
        let kept: Spec = serde_json::from_str(&text).unwrap();
        assert!(kept == local() && kept.is_local(), "{text}");
        assert!(text.contains(r#""transport":"local""#), "{text}");
    }

    #[test]
    fn a_path_without_a_transport_is_one_over_tcp() {
        let path: PathSpec = serde_json::from_str(r#"{"address":"10.0.0.1","port":4420}"#).unwrap();
        assert_eq!(path.transport, Transport::Tcp);
        assert_eq!(path.to_string(), "10.0.0.1:4420");
        assert_eq!(spec().paths[1].to_string(), "rdma:10.0.0.2:4420");
    }
}
