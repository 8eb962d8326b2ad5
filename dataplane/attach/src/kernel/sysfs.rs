//! What the kernel's NVMe host shows in sysfs, with native multipath and without.
//!
//! `class/nvme/nvmeN` are controllers; `block/nvmeXnY` are namespaces (with multipath: the heads; the paths
//! below them are hidden). `block/nvmeXnY/device` is the subsystem with multipath, else the controller; both
//! have a `subsysnqn`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use roadstead_nvme::AnaState;
use uuid::Uuid;

use crate::names::attribute;
use crate::{CommandCounts, PathSpec, Traffic};

/// A controller: one connection of the kernel to a subsystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Controller {
    /// Its directory.
    pub(super) dir: PathBuf,
    /// `live`, `connecting`, `resetting`, `deleting`, ...
    pub(super) state: String,
    /// `tcp`, `rdma`; empty where the kernel does not say.
    pub(super) transport: String,
    /// `traddr=...,trsvcid=...`
    pub(super) address: String,
}

impl Controller {
    /// Whether it goes to this portal.
    pub(super) fn is_to(&self, path: &PathSpec) -> bool {
        let field = |name: &str| {
            self.address
                .split(',')
                .find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let address = field("traddr").and_then(|text| text.parse().ok());
        let port = field("trsvcid").and_then(|text| text.parse().ok());
        self.transport == path.transport.name()
            && address == Some(path.address)
            && port == Some(path.port)
    }

    /// The namespace that is meant, as it is over this controller.
    pub(super) fn namespace(&self, is_meant: impl Fn(&Namespace) -> bool) -> Option<Namespace> {
        let entries = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let is_one = name.starts_with("nvme") && entry.path().join("stat").exists();
            is_one.then(|| Namespace::read(entry.path(), name))
        };
        list(&self.dir, entries).into_iter().find(is_meant)
    }

    /// Whether the kernel is still using it.
    pub(super) fn is_alive(&self) -> bool {
        matches!(
            self.state.as_str(),
            "new" | "live" | "resetting" | "connecting"
        )
    }

    /// Asks the kernel to look at the namespaces again.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn rescan(&self) -> io::Result<()> {
        fs::write(self.dir.join("rescan_controller"), "1")
    }

    /// Disconnects, and returns when that is done.
    ///
    /// # Errors
    /// The kernel's; a controller that is gone already is none.
    pub(super) fn delete(&self) -> io::Result<()> {
        match fs::write(self.dir.join("delete_controller"), "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }
}

/// The kernel's name for a state.
fn ana_word(state: AnaState) -> &'static str {
    match state {
        AnaState::Optimized => "optimized",
        AnaState::NonOptimized => "non-optimized",
        AnaState::Inaccessible => "inaccessible",
        AnaState::PersistentLoss => "persistent-loss",
        AnaState::Change => "change",
    }
}

/// A namespace's block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Namespace {
    /// Its directory under `block`.
    pub(super) dir: PathBuf,
    /// `nvme0n1`.
    pub(super) name: String,
    /// Its identifier in the subsystem; 0 when it shows none.
    pub(super) nsid: u32,
    /// The namespace's UUID; nil when it shows none.
    pub(super) uuid: Uuid,
    /// The namespace's NGUID.
    pub(super) nguid: Option<[u8; 16]>,
}

impl Namespace {
    fn read(dir: PathBuf, name: String) -> Self {
        let name_in = |file: &str| -> Option<Uuid> { attribute(&dir, file)?.parse().ok() };
        let nguid = name_in("nguid").filter(|nguid| !nguid.is_nil());
        // Of a namespace without a UUID the kernel shows the NGUID in its place.
        let uuid = name_in("uuid").filter(|uuid| nguid != Some(*uuid));
        Self {
            nsid: attribute(&dir, "nsid")
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
            uuid: uuid.unwrap_or_default(),
            nguid: nguid.map(Uuid::into_bytes),
            dir,
            name,
        }
    }

    /// What the target says of it; of a path, with native multipath only.
    pub(super) fn ana_state(&self) -> Option<AnaState> {
        let word = attribute(&self.dir, "ana_state")?;
        AnaState::ALL
            .into_iter()
            .find(|state| ana_word(*state) == word)
    }

    /// What went over it, as Documentation/block/stat.rst has it.
    pub(super) fn traffic(&self) -> Option<Traffic> {
        let text = attribute(&self.dir, "stat")?;
        let numbers: Option<Vec<u64>> = text.split_whitespace().map(|n| n.parse().ok()).collect();
        let &[reads, _, read_sectors, _, writes, _, written_sectors, ..] = numbers?.as_slice()
        else {
            return None;
        };
        Some(Traffic {
            commands: CommandCounts {
                reads,
                writes,
                read_bytes: read_sectors.saturating_mul(SECTOR_BYTES),
                written_bytes: written_sectors.saturating_mul(SECTOR_BYTES),
            },
            segments: None,
        })
    }
}

/// Of every number of sectors in sysfs, whatever the device's blocks are.
const SECTOR_BYTES: u64 = 512;

/// The controllers of a subsystem that belong to this host.
pub(super) fn controllers(sysfs: &Path, nqn: &str, host_nqn: &str) -> Vec<Controller> {
    let entries = |entry: fs::DirEntry| {
        let dir = entry.path();
        let ours = attribute(&dir, "subsysnqn")? == nqn
            // Kernels before 5.7 do not show the host's NQN.
            && attribute(&dir, "hostnqn").is_none_or(|host| host == host_nqn);
        ours.then(|| Controller {
            state: attribute(&dir, "state").unwrap_or_default(),
            transport: attribute(&dir, "transport").unwrap_or_default(),
            address: attribute(&dir, "address").unwrap_or_default(),
            dir,
        })
    };
    list(&sysfs.join("class/nvme"), entries)
}

/// The namespaces of a subsystem that have a block device.
pub(super) fn namespaces(sysfs: &Path, nqn: &str) -> Vec<Namespace> {
    let entries = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let dir = entry.path();
        let visible = name.starts_with("nvme") && attribute(&dir, "hidden").as_deref() != Some("1");
        let ours = visible && attribute(&dir.join("device"), "subsysnqn")? == nqn;
        ours.then(|| Namespace::read(dir, name))
    };
    list(&sysfs.join("block"), entries)
}

fn list<T>(dir: &Path, entry: impl Fn(fs::DirEntry) -> Option<T>) -> Vec<T> {
    match fs::read_dir(dir) {
        Ok(listing) => listing.flatten().filter_map(entry).collect(),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use roadstead_nvme::Portal;

    use super::*;

    const NQN: &str = "nqn.2026-11.io.roadstead:example";

    fn file(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn controller(root: &Path, name: &str, nqn: &str, host: &str, address: &str) {
        for (attribute, value) in [
            ("subsysnqn", nqn),
            ("hostnqn", host),
            ("state", "live"),
            ("transport", "tcp"),
            ("address", address),
        ] {
            file(root, &format!("class/nvme/{name}/{attribute}"), value);
        }
    }

    #[test]
    fn controllers_are_ours_by_subsystem_and_host() {
        let root = tempfile::tempdir().unwrap();
        controller(
            root.path(),
            "nvme0",
            NQN,
            "h",
            "traddr=10.0.0.1,trsvcid=4420,src_addr=10.0.0.9",
        );
        controller(
            root.path(),
            "nvme1",
            NQN,
            "other",
            "traddr=10.0.0.1,trsvcid=4420",
        );
        controller(
            root.path(),
            "nvme2",
            "nqn.x",
            "h",
            "traddr=10.0.0.1,trsvcid=4420",
        );
        let found = controllers(root.path(), NQN, "h");
        assert_eq!(found.len(), 1);
        let path = |text: &str| text.parse::<Portal>().unwrap().into();
        assert!(found[0].dir.ends_with("nvme0") && found[0].is_alive());
        assert!(found[0].is_to(&path("10.0.0.1:4420")));
        assert!(!found[0].is_to(&path("10.0.0.1:4421")));
        assert!(!found[0].is_to(&path("10.0.0.2:4420")));
        assert!(!found[0].is_to(&path("rdma:10.0.0.1:4420")));
    }

    #[test]
    fn the_state_of_a_path_is_that_of_its_namespace() {
        let root = tempfile::tempdir().unwrap();
        let address = "traddr=10.0.0.1,trsvcid=4420";
        controller(root.path(), "nvme0", NQN, "h", address);
        for (number, state) in [(1, "optimized"), (2, "non-optimized"), (3, "new word")] {
            let path = format!("class/nvme/nvme0/nvme0c0n{number}");
            let stat = format!("  {number} 0 16 7 3 0 8 9 0 0 0");
            for (attribute, value) in [
                ("nsid", number.to_string()),
                ("ana_state", state.into()),
                ("stat", stat),
            ] {
                file(root.path(), &format!("{path}/{attribute}"), &value);
            }
        }
        let found = &controllers(root.path(), NQN, "h")[0];
        let of = |nsid| found.namespace(|n| n.nsid == nsid);
        let (best, other) = (AnaState::Optimized, AnaState::NonOptimized);
        assert_eq!(
            [1, 2, 3, 4].map(|nsid| of(nsid).map(|n| n.ana_state())),
            [Some(Some(best)), Some(Some(other)), Some(None), None]
        );
        let traffic = of(2).unwrap().traffic().unwrap().commands;
        assert_eq!((traffic.reads, traffic.read_bytes), (2, 8192));
        assert_eq!((traffic.writes, traffic.written_bytes), (3, 4096));
        file(root.path(), "class/nvme/nvme0/nvme0c0n2/stat", "1 2 words");
        assert_eq!(of(2).unwrap().traffic(), None);
    }

    #[test]
    fn multipath_heads_are_found_and_their_hidden_paths_are_not() {
        let root = tempfile::tempdir().unwrap();
        let uuid = Uuid::from_u128(5);
        for (name, hidden) in [("nvme0n1", "0"), ("nvme0c0n1", "1"), ("nvme0c1n1", "1")] {
            file(root.path(), &format!("block/{name}/hidden"), hidden);
            file(
                root.path(),
                &format!("block/{name}/uuid"),
                &uuid.to_string(),
            );
            file(root.path(), &format!("block/{name}/device/subsysnqn"), NQN);
        }
        file(root.path(), "block/nvme1n1/device/subsysnqn", "nqn.other");
        file(root.path(), "block/vda/size", "8");
        let found = namespaces(root.path(), NQN);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].uuid), ("nvme0n1", uuid));
    }

    #[test]
    fn an_nguid_is_not_taken_for_a_uuid() {
        let root = tempfile::tempdir().unwrap();
        let (uuid, nguid) = (Uuid::from_u128(5), Uuid::from_u128(6));
        for (name, shown) in [("nvme0n1", uuid), ("nvme0n2", nguid)] {
            let nsid = name.trim_start_matches("nvme0n");
            file(root.path(), &format!("block/{name}/nsid"), nsid);
            file(
                root.path(),
                &format!("block/{name}/uuid"),
                &shown.to_string(),
            );
            file(
                root.path(),
                &format!("block/{name}/nguid"),
                &nguid.to_string(),
            );
            file(root.path(), &format!("block/{name}/device/subsysnqn"), NQN);
        }
        let mut found = namespaces(root.path(), NQN);
        found.sort_by_key(|n| n.nsid);
        let names = found.iter().map(|n| (n.nsid, n.uuid, n.nguid));
        let nguid = Some(nguid.into_bytes());
        assert_eq!(
            names.collect::<Vec<_>>(),
            [(1, uuid, nguid), (2, Uuid::nil(), nguid)]
        );
    }

    #[test]
    fn a_namespace_without_uuid_has_none() {
        let root = tempfile::tempdir().unwrap();
        file(root.path(), "block/nvme0n2/device/subsysnqn", NQN);
        assert!(namespaces(root.path(), NQN)[0].uuid.is_nil());
        assert!(namespaces(&root.path().join("missing"), NQN).is_empty());
    }
}
