//! Keys of authentication on a command line: in files, as command lines can be seen by everybody on a machine.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use roadstead_initiator::{Keys, Secret};

/// By what the host authenticates itself to a target that demands it (DH-HMAC-CHAP).
#[derive(Clone, Debug, Default, Args)]
pub struct KeyFiles {
    /// File with the host's key for DH-HMAC-CHAP, in the form DHHC-1:XX:BASE64:.
    #[arg(long, value_name = "FILE")]
    dhchap_key_file: Option<PathBuf>,
    /// File with the key that the target has to prove that it has.
    #[arg(long, value_name = "FILE", requires = "dhchap_key_file")]
    dhchap_ctrl_key_file: Option<PathBuf>,
}

impl KeyFiles {
    /// Reads them.
    ///
    /// # Errors
    /// A file that cannot be read or holds no key. No key is in it.
    pub fn read(&self) -> anyhow::Result<Option<Keys>> {
        let Some(host) = &self.dhchap_key_file else {
            return Ok(None);
        };
        let controller = self.dhchap_ctrl_key_file.as_deref();
        Ok(Some(Keys {
            host: secret(host)?,
            controller: controller.map(secret).transpose()?,
        }))
    }
}

fn secret(path: &Path) -> anyhow::Result<Secret> {
    let name = || format!("key file {}", path.display());
    let text = std::fs::read_to_string(path).with_context(name)?;
    Secret::parse(text.trim()).with_context(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_keys_or_errors_without_them() {
        let key = "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
        let path = std::env::temp_dir().join(format!("roadstead-key-{}", std::process::id()));
        let files = KeyFiles {
            dhchap_key_file: Some(path.clone()),
            dhchap_ctrl_key_file: None,
        };
        std::fs::write(&path, format!("{key}\n")).unwrap();
        let keys = files.read().unwrap().unwrap();
        assert_eq!((keys.host.text(), keys.controller), (key, None));
        std::fs::write(&path, key.replace("iaR", "iaQ")).unwrap();
        let error = format!("{:#}", files.read().unwrap_err());
        assert!(
            error.contains("checksum") && !error.contains("DHHC"),
            "{error}"
        );
        std::fs::remove_file(&path).unwrap();
        let error = format!("{:#}", files.read().unwrap_err());
        assert!(error.contains("key file /"), "{error}");
        assert_eq!(KeyFiles::default().read().unwrap(), None);
    }
}
