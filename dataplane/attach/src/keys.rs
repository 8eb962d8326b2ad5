//! Keys of authentication in the files that attachments are kept in, which root alone can read.

use roadstead_nvme::dhchap::{Keys, Secret};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// As they are written.
#[derive(Serialize, Deserialize)]
struct Kept<T> {
    host: T,
    controller: Option<T>,
}

pub(crate) fn serialize<S: Serializer>(keys: &Option<Keys>, to: S) -> Result<S::Ok, S::Error> {
    let kept = keys.as_ref().map(|keys| Kept {
        host: keys.host.text(),
        controller: keys.controller.as_ref().map(Secret::text),
    });
    kept.serialize(to)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Keys>, D::Error> {
    let Some(kept) = Option::<Kept<String>>::deserialize(from)? else {
        return Ok(None);
    };
    // What is wrong with one does not show it.
    let secret = |text: String| Secret::parse(&text).map_err(serde::de::Error::custom);
    Ok(Some(Keys {
        host: secret(kept.host)?,
        controller: kept.controller.map(secret).transpose()?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostIdentity;

    const KEY: &str = "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";

    #[test]
    fn keys_survive_json_and_files_without_keys_are_read() {
        let key = Secret::parse(KEY).unwrap();
        let with = |keys| HostIdentity {
            nqn: "nqn.2014-08.com.example:h".into(),
            id: uuid::Uuid::nil(),
            keys,
        };
        let keys = |controller| {
            Some(Keys {
                host: key.clone(),
                controller,
            })
        };
        for host in [with(None), with(keys(None)), with(keys(Some(key.clone())))] {
            let text = serde_json::to_string(&host).unwrap();
            assert_eq!(text.contains("keys"), host.keys.is_some());
            assert_eq!(serde_json::from_str::<HostIdentity>(&text).unwrap(), host);
            assert!(!format!("{host:?}").contains("DHHC"));
        }
        let bad = serde_json::to_string(&with(keys(None))).unwrap();
        let bad = bad.replace("iaR:", "iaQ:");
        let error = serde_json::from_str::<HostIdentity>(&bad).unwrap_err();
        let words = error.to_string();
        assert!(
            words.contains("checksum") && !words.contains("DHHC"),
            "{words}"
        );
    }
}
