//! Which drives may have lost what was in their volatile caches since they were last used.
//!
//! Each pool has a cache epoch, a value that hosts compare (see [`roadstead_target::Namespace`]). It stays when the daemon
//! restarts, even after `kill -9`, for what the drive was given it still has; and when the drive was closed after a last
//! sync. It changes when neither is so and the machine was booted or the device came anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::store::{StateDir, StoreError};

const FILE: &str = "caches";
/// Pools that are remembered. Beyond, any is forgotten: its next epoch is another one, which costs its hosts an error
/// only if they have unflushed writes.
const POOLS_MAX: usize = 1024;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    epoch: Uuid,
    /// What names the time for which the drive has had power.
    power: String,
    /// It was closed, and all that was acknowledged was synced before.
    is_clean: bool,
}

/// By pool.
#[derive(Debug, Default)]
pub(crate) struct Caches(BTreeMap<Uuid, Kept>);

impl Caches {
    /// What was kept. Without it, or where it is damaged, epochs are new.
    pub(crate) fn load(directory: &StateDir) -> Self {
        let text = directory.load(FILE).unwrap_or_else(|error| {
            tracing::error!(%error, "it is not known which drives were closed as they should be");
            let _ = directory.set_aside(FILE);
            None
        });
        let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
        Self(text.lines().filter_map(parse).collect())
    }

    fn save(&self, directory: &StateDir) -> Result<(), StoreError> {
        let line = |(pool, kept): (&Uuid, &Kept)| {
            let Kept {
                epoch,
                power,
                is_clean,
            } = kept;
            format!("{pool}\t{epoch}\t{is_clean}\t{power}\n")
        };
        let text: String = self.0.iter().map(line).collect();
        directory.save(FILE, text.as_bytes())
    }

    /// The epoch of a pool whose drive was opened; `power` as of [`power_of`].
    pub(crate) fn opened(&mut self, directory: &StateDir, pool: Uuid, power: String) -> Uuid {
        let kept = self.0.remove(&pool);
        let same = kept.filter(|kept| kept.is_clean || kept.power == power);
        let epoch = same.map_or_else(Uuid::new_v4, |kept| kept.epoch);
        while self.0.len() >= POOLS_MAX {
            self.0.pop_first();
        }
        let kept = Kept {
            epoch,
            power,
            is_clean: false,
        };
        self.0.insert(pool, kept);
        match self.save(directory) {
            Ok(()) => epoch,
            // What is on disk may say that the drive is clean, and will not be true.
            Err(error) => {
                tracing::error!(%error, "cannot note that a drive is open");
                self.0.remove(&pool);
                Uuid::new_v4()
            }
        }
    }

    /// Drives were closed after a last sync.
    pub(crate) fn closed(&mut self, directory: &StateDir, pools: &[Uuid]) {
        for (pool, kept) in &mut self.0 {
            kept.is_clean |= pools.contains(pool);
        }
        if let Err(error) = self.save(directory) {
            tracing::error!(%error, "cannot note that the drives are closed");
        }
    }
}

fn parse(line: &str) -> Option<(Uuid, Kept)> {
    let mut fields = line.splitn(4, '\t');
    let pool = Uuid::try_parse(fields.next()?).ok()?;
    let kept = Kept {
        epoch: Uuid::try_parse(fields.next()?).ok()?,
        is_clean: fields.next()?.parse().ok()?,
        power: fields.next()?.to_owned(),
    };
    Some((pool, kept))
}

/// Another text after the machine was booted, or the device was away: the boot, and the kernel's number of the device. A
/// device without a volatile cache has nothing to lose.
pub(crate) fn power_of(node: Option<&Path>) -> String {
    let boot = std::fs::read_to_string(BOOT_ID);
    // Unknown is never the same.
    let boot = boot.unwrap_or_else(|_| Uuid::new_v4().to_string());
    let name = node
        .and_then(|node| std::fs::canonicalize(node).ok())
        .and_then(|node| Some(node.file_name()?.to_string_lossy().into_owned()));
    // Of a partition it stands a folder higher.
    let read = |what: &str| {
        let folder = PathBuf::from("/sys/class/block").join(name.as_ref()?);
        let own = std::fs::read_to_string(folder.join(what));
        own.or_else(|_| std::fs::read_to_string(folder.canonicalize()?.join("..").join(what)))
            .ok()
    };
    if read("queue/write_cache").is_some_and(|text| text.trim() == "write through") {
        return "no volatile cache".into();
    }
    let sequence = read("diskseq").unwrap_or_default();
    format!("{} {}", boot.trim(), sequence.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_change_when_a_cache_may_be_lost() {
        let dir = tempfile::tempdir().unwrap();
        let directory = StateDir::open(dir.path()).unwrap();
        let pool = Uuid::from_u128(5);
        let open = |power: &str| Caches::load(&directory).opened(&directory, pool, power.into());
        let first = open("boot 1");
        assert_eq!(open("boot 1"), first, "the daemon died");
        let second = open("boot 2");
        assert_ne!(second, first, "the machine was booted without a stop");
        let mut caches = Caches::load(&directory);
        assert_eq!(caches.opened(&directory, pool, "boot 2".into()), second);
        caches.closed(&directory, &[pool, Uuid::from_u128(6)]);
        assert_eq!(open("boot 3"), second, "it was stopped before");
        assert_ne!(open("boot 4"), second, "and now it was not");
    }

    #[test]
    fn other_pools_and_damage_give_new_epochs() {
        let dir = tempfile::tempdir().unwrap();
        let directory = StateDir::open(dir.path()).unwrap();
        let mut caches = Caches::load(&directory);
        let mut open = |pool| caches.opened(&directory, Uuid::from_u128(pool), "boot".into());
        let (one, two) = (open(1), open(2));
        assert!(one != two && open(1) == one);
        std::fs::write(directory.path(FILE), b"nonsense").unwrap();
        let mut caches = Caches::load(&directory);
        let again = caches.opened(&directory, Uuid::from_u128(1), "boot".into());
        assert_ne!(again, one);
    }

    #[test]
    fn power_is_the_same_within_a_boot() {
        assert_eq!(power_of(None), power_of(None));
        assert!(power_of(Some(Path::new("/dev/no-such-device"))).len() > 30);
    }
}
