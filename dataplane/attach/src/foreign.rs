//! Namespaces of foreign appliances: what they are known by, and whom this node is there.

use std::fmt;

use roadstead_initiator::{Wanted, nguid_text};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{HostIdentity, Spec};

/// What differs for a namespace of a foreign appliance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// What it is known by, where that is not its UUID.
    pub name: Option<ForeignName>,
    /// Whom this node is to the appliance; `None`: itself.
    pub host: Option<HostIdentity>,
}

/// What a namespace is known by that has no UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ForeignName {
    /// Its NGUID.
    Nguid([u8; 16]),
    /// Its identifier in the subsystem; it has neither a UUID nor an NGUID.
    Nsid(u32),
}

impl Spec {
    /// Which namespace of the subsystem is meant.
    pub fn wanted(&self) -> Wanted {
        match self.foreign_name() {
            None => Wanted::Uuid(self.volume_uuid),
            Some(ForeignName::Nguid(nguid)) => Wanted::Nguid(nguid),
            Some(ForeignName::Nsid(nsid)) => Wanted::Unnamed(nsid),
        }
    }

    /// What the namespace is known by that has no UUID.
    pub fn foreign_name(&self) -> Option<ForeignName> {
        self.foreign.as_ref()?.name
    }

    /// Whom this node is to the target.
    pub(crate) fn host<'a>(&'a self, own: &'a HostIdentity) -> &'a HostIdentity {
        let other = self.foreign.as_ref().and_then(|f| f.host.as_ref());
        other.unwrap_or(own)
    }

    /// An attachment stays with the host that it was made with, whatever is asked for later.
    pub(crate) fn stay_host_of(&mut self, known: &Self) {
        let host = known.foreign.as_ref().and_then(|f| f.host.clone());
        match &mut self.foreign {
            Some(foreign) => foreign.host = host,
            None => {
                self.foreign = host.map(|host| Foreign {
                    name: None,
                    host: Some(host),
                })
            }
        }
    }

    /// The namespace that is meant, for messages.
    pub(crate) fn wanted_text(&self) -> String {
        match self.foreign_name() {
            None => format!("UUID {}", self.volume_uuid),
            Some(name) => name.to_string(),
        }
    }

    /// Whether a namespace with these names is the one that is meant.
    pub(crate) fn is_meant(&self, nsid: u32, uuid: Uuid, nguid: Option<[u8; 16]>) -> bool {
        match self.foreign_name() {
            None => uuid == self.volume_uuid,
            Some(ForeignName::Nguid(wanted)) => nguid == Some(wanted),
            Some(ForeignName::Nsid(wanted)) => nsid == wanted && uuid.is_nil() && nguid.is_none(),
        }
    }
}

impl fmt::Display for ForeignName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nguid(nguid) => write!(f, "NGUID {}", nguid_text(nguid)),
            Self::Nsid(nsid) => write!(f, "identifier {nsid} and neither a UUID nor an NGUID"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_the_one_that_is_meant_by_the_name_that_it_was_given() {
        let spec = |name: Option<ForeignName>, uuid| Spec {
            id: "v".into(),
            subsystem_nqn: "nqn.2014-08.com.example:a".into(),
            volume_uuid: uuid,
            foreign: name.map(|name| Foreign {
                name: Some(name),
                host: None,
            }),
            paths: vec![crate::PathSpec {
                transport: roadstead_nvme::Transport::Tcp,
                address: "10.0.0.1".parse().unwrap(),
                port: 4420,
            }],
            read_only: false,
            method: None,
            ctrl_loss_timeout_s: 0,
        };
        let (one, nil) = (Uuid::from_u128(1), Uuid::nil());
        let by_uuid = spec(None, one);
        let by_nguid = spec(Some(ForeignName::Nguid([2; 16])), nil);
        let by_nsid = spec(Some(ForeignName::Nsid(3)), nil);
        // Number, UUID, NGUID of what is there; what it is.
        let table = [
            (3, one, None, [true, false, false]),
            (3, nil, Some([2; 16]), [false, true, false]),
            (9, one, Some([2; 16]), [true, true, false]),
            (3, nil, None, [false, false, true]),
            (9, nil, None, [false, false, false]),
        ];
        for (nsid, uuid, nguid, wanted) in table {
            let found = [&by_uuid, &by_nguid, &by_nsid].map(|s| s.is_meant(nsid, uuid, nguid));
            assert_eq!(found, wanted, "{nsid} {uuid} {nguid:?}");
        }
        for good in [&by_uuid, &by_nguid, &by_nsid] {
            assert!(good.validate().is_ok());
        }
        assert_eq!(by_nguid.wanted(), Wanted::Nguid([2; 16]));
        assert_eq!(by_nsid.wanted(), Wanted::Unnamed(3));
        assert!(by_nsid.conflict(&by_nguid).is_some() && by_nsid.conflict(&by_nsid).is_none());
        let mut other = by_nsid.clone();
        other.foreign.as_mut().unwrap().host = Some(HostIdentity {
            nqn: "nqn.2014-08.com.example:h".into(),
            id: one,
            keys: None,
        });
        assert_eq!(by_nsid.conflict(&other), None);
        other.stay_host_of(&by_nsid);
        assert_eq!(
            other, by_nsid,
            "it stays with the host that it was made with"
        );
    }

    #[test]
    fn what_an_earlier_version_kept_is_read() {
        let text = r#"{"id":"v","subsystem_nqn":"nqn.x","volume_uuid":"00000000-0000-0000-0000-000000000007",
            "paths":[],"read_only":false,"method":null,"ctrl_loss_timeout_s":0}"#;
        let spec: Spec = serde_json::from_str(text).unwrap();
        assert_eq!(spec.foreign, None);
        assert_eq!(spec.wanted(), Wanted::Uuid(Uuid::from_u128(7)));
    }
}
