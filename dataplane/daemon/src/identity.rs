//! Who this node is as a host: made once, kept for ever, because targets admit hosts by it.

use prost::Message;
use roadstead_api::v1;
use uuid::Uuid;

use crate::store::{StateDir, StoreError};

const FILE: &str = "host";

/// Host NQN and host ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) nqn: String,
    pub(crate) id: Uuid,
}

/// The kept identity, or a new one. `given` is an NQN that was set by hand.
///
/// A damaged file is an error, not a reason for a new identity: the node would be locked out of its volumes.
pub(crate) fn load_or_make(state: &StateDir, given: Option<&str>) -> Result<Identity, StoreError> {
    let kept = match state.load(FILE)? {
        Some(bytes) => v1::HostReport::decode(bytes.as_slice())
            .ok()
            .and_then(|host| {
                Some(Identity {
                    id: Uuid::try_parse(&host.host_id).ok()?,
                    nqn: host.host_nqn,
                })
            })
            .ok_or_else(|| StoreError::Damaged {
                path: state.path(FILE),
                why: "it does not hold a host's identity",
            })?,
        None => {
            let id = Uuid::new_v4();
            let nqn = format!("nqn.2014-08.org.nvmexpress:uuid:{id}");
            let host = v1::HostReport {
                host_nqn: nqn.clone(),
                host_id: id.to_string(),
                ..Default::default()
            };
            state.save(FILE, &host.encode_to_vec())?;
            Identity { nqn, id }
        }
    };
    Ok(Identity {
        nqn: given.map_or(kept.nqn, str::to_owned),
        id: kept.id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let first = load_or_make(&state, None).unwrap();
        assert_eq!(load_or_make(&state, None).unwrap(), first);
        assert_eq!(
            first.nqn,
            format!("nqn.2014-08.org.nvmexpress:uuid:{}", first.id)
        );
        let named = load_or_make(&state, Some("nqn.2026-11.io.roadstead:me")).unwrap();
        assert_eq!(
            (named.nqn.as_str(), named.id),
            ("nqn.2026-11.io.roadstead:me", first.id)
        );
        std::fs::write(state.path(FILE), b"x").unwrap();
        assert!(load_or_make(&state, None).is_err());
    }
}
