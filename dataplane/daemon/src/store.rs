//! Files that survive a power cut: each is replaced as a whole, and carries a checksum.
//!
//! Guaranteed: after `save` returned the new content is on the disk; at any moment before, `load` gives
//! the old one. A damaged file is never taken for a good one.
//! Assumed: one process writes in the directory (the lock in `StateDir` sees to it).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// First bytes of each file.
const MAGIC: [u8; 4] = *b"RSST";
/// Version of the format of the frame (not of the content).
const VERSION: u32 = 1;
/// Magic, version, checksum.
const HEADER_LENGTH: usize = 12;

/// Why state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The directory cannot be used.
    #[error("state directory {}: {source}; it must be writable for this user", path.display())]
    Directory { path: PathBuf, source: io::Error },
    /// Another daemon uses the directory.
    #[error("state directory {} is in use by another roadsteadd; give each its own", path.display())]
    InUse { path: PathBuf },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// A file is not what was written.
    #[error("{} is damaged ({why}); it was kept as it is", path.display())]
    Damaged { path: PathBuf, why: &'static str },
}

/// The daemon's directory, locked for this process.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the directory if need be, with a place for file drives in it, and takes its lock.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Directory {
            path: path.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path.join("drives"))
            .map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| StoreError::InUse {
            path: path.to_owned(),
        })?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The path of the file with this name.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The content of a file; `None` if it was never written.
    pub(crate) fn load(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(bytes) => match unframe(&bytes) {
                Ok(content) => Ok(Some(content.to_vec())),
                Err(why) => Err(StoreError::Damaged { path, why }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Read { path, source }),
        }
    }

    /// Replaces the content of a file.
    pub(crate) fn save(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let path = self.path(name);
        self.replace(&path, content)
            .map_err(|source| StoreError::Write { path, source })
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("new");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&frame(content))?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(&self.path)?.sync_all()
    }

    /// Puts a damaged file aside so that a new one can be written and the old one be looked at.
    pub(crate) fn set_aside(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path(name);
        fs::rename(&path, path.with_extension("damaged"))
            .map_err(|source| StoreError::Write { path, source })
    }
}

fn frame(content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LENGTH + content.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(content).to_le_bytes());
    bytes.extend_from_slice(content);
    bytes
}

fn unframe(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let (header, content) = bytes
        .split_at_checked(HEADER_LENGTH)
        .ok_or("it is too short")?;
    if header[..4] != MAGIC {
        return Err("it is not a state file");
    }
    if header[4..8] != VERSION.to_le_bytes() {
        return Err("it was written by another version");
    }
    if header[8..12] != crc32c::crc32c(content).to_le_bytes() {
        return Err("its checksum is wrong");
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("a/b")).unwrap();
        assert_eq!(state.load("x").unwrap(), None);
        state.save("x", b"one").unwrap();
        state.save("x", b"").unwrap();
        assert_eq!(state.load("x").unwrap(), Some(Vec::new()));
    }

    #[test]
    fn one_daemon_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _first = StateDir::open(dir.path()).unwrap();
        assert!(matches!(
            StateDir::open(dir.path()),
            Err(StoreError::InUse { .. })
        ));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = frame(b"content");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(unframe(&bad).is_err(), "bit {bit}");
        }
        for length in 0..good.len() {
            assert!(unframe(&good[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn a_damaged_file_is_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        fs::write(state.path("x"), b"RSSTgarbage.....").unwrap();
        assert!(matches!(state.load("x"), Err(StoreError::Damaged { .. })));
        state.set_aside("x").unwrap();
        assert_eq!(state.load("x").unwrap(), None);
        assert!(dir.path().join("x.damaged").exists());
    }
}
