//! What is on a device before we take it, who uses it, and which devices there are.
//!
//! [`Machine::find`] leads from what an administrator wrote to one device that nobody uses;
//! [`crate::Pool::open_or_format`] then looks at what is on it. A mounted or otherwise used device is
//! refused whatever the administrator wrote. Mounts in other containers are seen as far as `/proc` shows
//! their processes; beyond that the kernel refuses the exclusive opening.

pub mod mounts;
pub mod signature;
mod sysfs;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use crate::error::OpenError;
use crate::format::label::Label;
use crate::media::{FileMedia, Media};
use crate::pool::Pool;
use mounts::Numbers;
use sysfs::Node;

/// A block device that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its node.
    pub path: PathBuf,
    /// Its serial number; empty if it has none.
    pub serial: String,
    /// Its model; empty if it has none.
    pub model: String,
    /// Its size, bytes.
    pub size_bytes: u64,
}

/// How an administrator names a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A device or a partition, by any path that leads to it.
    Path(PathBuf),
    /// A whole device, by its serial number.
    Serial(String),
    /// A whole device of this model that nobody uses: the one with the known pool, else one with a pool of
    /// the same owner, else the first blank one.
    Model(String),
}

/// What a pool's owner knows about the drive it looks for.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The owner.
    pub owner: &'a str,
    /// The pool that the drive carried last.
    pub known: Option<Uuid>,
    /// Foreign content may be overwritten.
    pub force: bool,
}

/// Where to look: the machine's own directories, or others in tests.
#[derive(Debug, Clone)]
pub struct Machine {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/proc`.
    pub proc: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
    /// The numbers of the block device behind a path; none if there is another kind of file.
    pub numbers_of: fn(&Path) -> io::Result<Option<Numbers>>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            sys: "/sys".into(),
            proc: "/proc".into(),
            dev: "/dev".into(),
            numbers_of: stat_numbers,
        }
    }
}

fn stat_numbers(path: &Path) -> io::Result<Option<Numbers>> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let meta = fs::metadata(path)?;
    let numbers = Numbers {
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
    };
    Ok(meta.file_type().is_block_device().then_some(numbers))
}

impl Machine {
    /// The device that is meant, if it is there and nobody uses it.
    pub fn find(&self, wanted: &Wanted, claim: &Claim<'_>) -> Result<Device, OpenError> {
        match wanted {
            Wanted::Path(path) => self.by_path(path),
            Wanted::Serial(serial) => self.by_serial(serial),
            Wanted::Model(model) => self.by_model(model, claim),
        }
    }

    /// Whole drives that nothing uses and that hold nothing. Those that cannot be read are left out.
    pub fn unused_drives(&self) -> Vec<Device> {
        let blank = |node: &Node| {
            let device = self.device(node);
            let media = FileMedia::open_to_look(&device.path).ok()?;
            let is_blank = signature::identify(&media).ok()?.is_none();
            (is_blank && self.check_unused(node, &device.path).is_ok()).then_some(device)
        };
        self.drives().iter().filter_map(blank).collect()
    }

    fn drives(&self) -> Vec<Node> {
        sysfs::whole_devices(&self.sys)
            .into_iter()
            .filter(Node::is_local_drive)
            .collect()
    }

    fn device(&self, node: &Node) -> Device {
        Device {
            path: self.dev.join(&node.name),
            serial: node.serial(),
            model: node.model(),
            size_bytes: node.size_bytes(),
        }
    }

    fn by_path(&self, path: &Path) -> Result<Device, OpenError> {
        let shown = path.display().to_string();
        let numbers = match (self.numbers_of)(path) {
            Ok(Some(numbers)) => numbers,
            Ok(None) => {
                return Err(OpenError::BadOption {
                    what: format!("{shown} is not a block device; name a file by `file`"),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::NotFound { what: shown });
            }
            Err(source) => {
                return Err(OpenError::Io {
                    path: shown,
                    doing: "looking at it",
                    source,
                });
            }
        };
        let Some(node) = sysfs::by_numbers(&self.sys, numbers) else {
            return Err(OpenError::NotFound {
                what: format!("the device behind {shown}"),
            });
        };
        self.check_unused(&node, path)?;
        Ok(Device {
            path: path.to_owned(),
            ..self.device(&node)
        })
    }

    fn by_serial(&self, serial: &str) -> Result<Device, OpenError> {
        let found: Vec<_> = self
            .drives()
            .into_iter()
            .filter(|node| node.serial() == serial.trim())
            .collect();
        match &found[..] {
            [] => Err(OpenError::NotFound {
                what: format!("a drive with serial number {serial}"),
            }),
            [node] => {
                let device = self.device(node);
                self.check_unused(node, &device.path)?;
                Ok(device)
            }
            several => {
                let names: Vec<_> = several.iter().map(|node| node.name.as_str()).collect();
                let names = names.join(", ");
                Err(OpenError::BadOption {
                    what: format!(
                        "{names} all have serial number {serial}; name one by its path in /dev/disk/by-id"
                    ),
                })
            }
        }
    }

    fn by_model(&self, model: &str, claim: &Claim<'_>) -> Result<Device, OpenError> {
        let mut refused = None;
        let mut fitting: Vec<(Fit, Device)> = Vec::new();
        for node in self
            .drives()
            .into_iter()
            .filter(|node| node.model() == model.trim())
        {
            let device = self.device(&node);
            let fit = self
                .check_unused(&node, &device.path)
                .and_then(|()| fit(&device.path, claim));
            match fit {
                Ok(Some(fit)) => fitting.push((fit, device)),
                Ok(None) => {}
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        // The first of the best.
        let best = fitting.into_iter().min_by_key(|(fit, _)| *fit);
        best.map(|(_, device)| device).ok_or_else(|| {
            refused.unwrap_or_else(|| OpenError::NotFound {
                what: format!("an unused drive of model {model}"),
            })
        })
    }

    /// Refuses a device that is mounted, swapped on, or held by another device, partitions included.
    fn check_unused(&self, node: &Node, path: &Path) -> Result<(), OpenError> {
        let path = path.display().to_string();
        let mut nodes = node.partitions();
        nodes.push(node.clone());
        let numbers: BTreeSet<Numbers> = nodes.iter().filter_map(Node::numbers).collect();
        let is_it = |source: &str| {
            source.starts_with('/')
                && (self.numbers_of)(&self.dev_path(source))
                    .ok()
                    .flatten()
                    .is_some_and(|n| numbers.contains(&n))
        };
        for table in self.mount_tables() {
            let used = mounts::mountinfo(&table)
                .into_iter()
                .find(|m| numbers.contains(&m.numbers) || is_it(&m.source));
            if let Some(mount) = used {
                return Err(OpenError::Mounted { path, at: mount.at });
            }
        }
        let swaps = fs::read_to_string(self.proc.join("swaps")).unwrap_or_default();
        if mounts::swaps(&swaps).iter().any(|source| is_it(source)) {
            return Err(OpenError::InUse {
                path,
                holder: "swap".to_owned(),
            });
        }
        match nodes.iter().flat_map(Node::holders).next() {
            Some(holder) => Err(OpenError::InUse { path, holder }),
            None => Ok(()),
        }
    }

    /// A path as the kernel's tables have it, below this machine's `/dev`.
    fn dev_path(&self, source: &str) -> PathBuf {
        match source.strip_prefix("/dev/") {
            Some(name) => self.dev.join(name),
            None => PathBuf::from(source),
        }
    }

    /// The mount table of every mount namespace that a process shows.
    fn mount_tables(&self) -> Vec<String> {
        let read =
            |process: &str| fs::read_to_string(self.proc.join(process).join("mountinfo")).ok();
        let mut seen = BTreeSet::new();
        let mut tables: Vec<String> = read("self").into_iter().collect();
        for entry in fs::read_dir(&self.proc).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with(|c: char| c.is_ascii_digit()) {
                continue;
            }
            // Without a link to compare, every table is read.
            let namespace = fs::read_link(entry.path().join("ns/mnt")).ok();
            if namespace.is_none_or(|namespace| seen.insert(namespace)) {
                tables.extend(read(&name));
            }
        }
        tables
    }
}

/// How well a device of the right model fits, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    KnownPool,
    OwnPool,
    Blank,
    Overwritable,
}

fn fit(path: &Path, claim: &Claim<'_>) -> Result<Option<Fit>, OpenError> {
    let shown = path.display().to_string();
    let failed = |source| OpenError::Io {
        path: shown.clone(),
        doing: "looking at it",
        source,
    };
    let media = FileMedia::open_to_look(path).map_err(failed)?;
    let found = signature::identify(&media).map_err(failed)?;
    let label = Pool::read_label(Arc::new(media) as Arc<dyn Media>)?;
    fit_of(label.as_ref(), found.is_none(), claim).map_or_else(
        || match (label, found) {
            (Some(label), _) if label.owner != claim.owner => Err(OpenError::ForeignLabel {
                path: shown,
                pool: label.pool_uuid,
                owner: label.owner,
            }),
            (None, Some(kind)) => Err(OpenError::ForeignFilesystem {
                path: shown,
                kind: kind.to_string(),
            }),
            _ => Ok(None),
        },
        |fit| Ok(Some(fit)),
    )
}

/// Of a device with this label, blank or not. A drive that carried a pool is not replaced by another one.
fn fit_of(label: Option<&Label>, is_blank: bool, claim: &Claim<'_>) -> Option<Fit> {
    match (label, claim.known) {
        (Some(label), Some(known)) if label.pool_uuid == known => Some(Fit::KnownPool),
        (_, Some(_)) if !claim.force => None,
        (Some(label), None) if label.owner == claim.owner => Some(Fit::OwnPool),
        (None, _) if is_blank => Some(Fit::Blank),
        (Some(label), _) if label.owner == claim.owner => None,
        _ => claim.force.then_some(Fit::Overwritable),
    }
}
