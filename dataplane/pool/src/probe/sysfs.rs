//! Block devices as `/sys` shows them.

use std::fs;
use std::path::{Path, PathBuf};

use super::mounts::Numbers;

/// A directory of a block device, `/sys/block/NAME` or `/sys/block/NAME/PARTITION`.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) name: String,
    dir: PathBuf,
}

fn text(path: PathBuf) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    (!text.is_empty()).then(|| text.to_owned())
}

fn names(dir: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// All whole devices, by name.
pub(super) fn whole_devices(sys: &Path) -> Vec<Node> {
    let block = sys.join("block");
    names(block.clone())
        .into_iter()
        .map(|name| Node {
            dir: block.join(&name),
            name,
        })
        .collect()
}

/// The device or partition with these numbers.
pub(super) fn by_numbers(sys: &Path, numbers: Numbers) -> Option<Node> {
    let mut nodes = whole_devices(sys);
    nodes.extend(nodes.clone().iter().flat_map(Node::partitions));
    nodes
        .into_iter()
        .find(|node| node.numbers() == Some(numbers))
}

impl Node {
    fn attribute(&self, name: &str) -> Option<String> {
        text(self.dir.join(name))
    }

    pub(super) fn numbers(&self) -> Option<Numbers> {
        self.attribute("dev")?.parse().ok()
    }

    /// Bytes; the kernel counts sectors of 512 bytes whatever the device has.
    pub(super) fn size_bytes(&self) -> u64 {
        self.attribute("size")
            .and_then(|s| s.parse::<u64>().ok())
            .map_or(0, |sectors| sectors.saturating_mul(512))
    }

    /// Of a whole device.
    pub(super) fn partitions(&self) -> Vec<Self> {
        let nodes = names(self.dir.clone()).into_iter().map(|name| Self {
            dir: self.dir.join(&name),
            name,
        });
        nodes
            .filter(|node| node.dir.join("partition").exists())
            .collect()
    }

    /// The devices made on top of it, such as those of the device mapper, with their own name for people.
    pub(super) fn holders(&self) -> Vec<String> {
        let label =
            |holder: String| match text(self.dir.join("holders").join(&holder).join("dm/name")) {
                Some(name) => format!("the device mapper's {name} ({holder})"),
                None => holder,
            };
        names(self.dir.join("holders"))
            .into_iter()
            .map(label)
            .collect()
    }

    /// Of NVMe, SCSI and virtio devices.
    pub(super) fn serial(&self) -> String {
        self.attribute("device/serial")
            .or_else(|| self.attribute("serial"))
            .or_else(|| self.scsi_serial())
            .unwrap_or_default()
    }

    /// SCSI: the page "unit serial number" (SPC, 0x80): four bytes of header, then the number.
    fn scsi_serial(&self) -> Option<String> {
        let page = fs::read(self.dir.join("device/vpd_pg80")).ok()?;
        let serial = String::from_utf8_lossy(page.get(4..)?).trim().to_owned();
        (!serial.is_empty()).then_some(serial)
    }

    pub(super) fn model(&self) -> String {
        self.attribute("device/model").unwrap_or_default()
    }

    /// A drive of this machine: not made by software, not removable, not reached over a network.
    pub(super) fn is_local_drive(&self) -> bool {
        let flag = |name| self.attribute(name).is_some_and(|value| value != "0");
        let is_real = self.dir.join("device").exists()
            && !flag("hidden")
            && !flag("removable")
            && !flag("ro");
        is_real && self.size_bytes() > 0 && !self.is_remote()
    }

    /// NVMe over fabrics: a controller behind it says so. With native multipath there may be several.
    fn is_remote(&self) -> bool {
        let device = self.dir.join("device");
        let controllers = names(device.clone())
            .into_iter()
            .filter(|name| name.starts_with("nvme"));
        let mut places: Vec<_> = controllers
            .map(|name| device.join(name).join("transport"))
            .collect();
        places.push(device.join("transport"));
        places
            .into_iter()
            .filter_map(text)
            .any(|transport| transport != "pcie")
    }
}
