//! Which pool each drive carried when it was open last.
//!
//! Without it, a blank disk at the path of a drive that was unplugged would be taken for a new drive: formatted,
//! and filled with empty volumes under the old names.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::store::{StateDir, StoreError};

const FILE: &str = "pools";

/// Pool by name and owner of the drive.
#[derive(Debug, Default)]
pub(crate) struct KnownPools {
    pools: BTreeMap<(String, String), Uuid>,
    is_saved: bool,
}

impl KnownPools {
    /// What was kept. A damaged file is put aside: every drive is then taken as if for the first time.
    pub(crate) fn load(directory: &StateDir) -> Self {
        let text = match directory.load(FILE) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => {
                tracing::error!(%error, "it is not known which pool was on which drive");
                // If even that fails, saving will say so.
                let _ = directory.set_aside(FILE);
                Vec::new()
            }
        };
        let text = String::from_utf8_lossy(&text);
        Self {
            pools: text.lines().filter_map(parse).collect(),
            is_saved: true,
        }
    }

    pub(crate) fn save(&mut self, directory: &StateDir) -> Result<(), StoreError> {
        if !self.is_saved {
            let line = |((name, owner), pool): (&(String, String), &Uuid)| {
                format!("{pool}\t{name}\t{owner}\n")
            };
            let text: String = self.pools.iter().map(line).collect();
            directory.save(FILE, text.as_bytes())?;
            self.is_saved = true;
        }
        Ok(())
    }

    pub(crate) fn pool(&self, drive: &str, owner: &str) -> Option<Uuid> {
        self.pools
            .get(&(drive.to_owned(), owner.to_owned()))
            .copied()
    }

    pub(crate) fn remember(&mut self, drive: &str, owner: &str, pool: Uuid) {
        let before = self
            .pools
            .insert((drive.to_owned(), owner.to_owned()), pool);
        self.is_saved &= before == Some(pool);
    }

    /// Forgets the drives that nobody wants any more.
    pub(crate) fn keep_only(&mut self, wanted: &BTreeSet<(&str, &str)>) {
        let before = self.pools.len();
        self.pools
            .retain(|(name, owner), _| wanted.contains(&(name.as_str(), owner.as_str())));
        self.is_saved &= before == self.pools.len();
    }
}

fn parse(line: &str) -> Option<((String, String), Uuid)> {
    let mut fields = line.splitn(3, '\t');
    let pool = Uuid::try_parse(fields.next()?).ok()?;
    let (name, owner) = (fields.next()?, fields.next()?);
    Some(((name.to_owned(), owner.to_owned()), pool))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let directory = StateDir::open(dir.path()).unwrap();
        let pool = Uuid::from_u128(7);
        let mut known = KnownPools::load(&directory);
        known.remember("a/b", "owner 1", pool);
        known.remember("c", "", pool);
        known.save(&directory).unwrap();
        let mut again = KnownPools::load(&directory);
        assert_eq!(again.pool("a/b", "owner 1"), Some(pool));
        assert_eq!(again.pool("c", ""), Some(pool));
        assert_eq!(again.pool("a/b", "other"), None);
        again.keep_only(&BTreeSet::from([("c", "")]));
        again.save(&directory).unwrap();
        assert_eq!(KnownPools::load(&directory).pool("a/b", "owner 1"), None);
    }
}
