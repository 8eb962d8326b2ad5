//! What this node can do for volumes: RDMA devices and kernel modules, read from the kernel's files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use roadstead_api::v1;
use roadstead_verbs::{DeviceInfo, Gid, GidType, PortInfo, PortState, VerbsError};

/// The kernel modules that matter here.
const MODULES: [&str; 7] = [
    "nvme_tcp",
    "nvme_rdma",
    "nvme_fabrics",
    "ublk_drv",
    "nbd",
    "fuse",
    "rdma_rxe",
];

/// What was read is good for so long: reading takes milliseconds, and reports are made every second.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// What a node has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Capabilities {
    pub(crate) rdma_devices: Vec<v1::RdmaDevice>,
    pub(crate) kernel_modules: Vec<v1::KernelModule>,
}

/// What this node has, read again when it is no longer good.
#[derive(Debug, Default)]
pub(crate) struct Probe(Mutex<Option<(Instant, Capabilities)>>);

impl Probe {
    /// What this node has. `release` is that of its kernel.
    pub(crate) fn capabilities(&self, release: &str) -> Capabilities {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, capabilities)) = &*known
            && at.elapsed() < GOOD_FOR
        {
            return capabilities.clone();
        }
        let capabilities = Capabilities {
            rdma_devices: rdma_devices(),
            kernel_modules: kernel_modules(Path::new("/"), release),
        };
        *known = Some((Instant::now(), capabilities.clone()));
        capabilities
    }
}

/// The ports of all RDMA devices. What cannot be read is none: the log says why.
fn rdma_devices() -> Vec<v1::RdmaDevice> {
    let why = roadstead_verbs::available().err();
    match roadstead_verbs::devices() {
        Ok(devices) => describe(&devices, why.as_ref()),
        Err(error) => {
            tracing::warn!(%error, "RDMA devices cannot be read");
            Vec::new()
        }
    }
}

/// `why`: no device can be used at all.
fn describe(devices: &[DeviceInfo], why: Option<&VerbsError>) -> Vec<v1::RdmaDevice> {
    let ports = |device: &DeviceInfo| {
        let name = device.name.clone();
        let port = move |port: &PortInfo| v1::RdmaDevice {
            name: name.clone(),
            port: port.number.into(),
            link: link(port).into(),
            speed_gbps: port.gbit_per_second,
            netdev: port.netdevs.first().cloned().unwrap_or_default(),
            gids: port.gids.iter().filter_map(gid).collect(),
            message: why.map(ToString::to_string).unwrap_or_default(),
            ..v1::RdmaDevice::default()
        };
        device.ports.iter().map(port).collect::<Vec<_>>()
    };
    devices.iter().flat_map(ports).collect()
}

fn link(port: &PortInfo) -> v1::LinkState {
    match port.state {
        PortState::Unknown => v1::LinkState::Unspecified,
        _ if port.is_active() => v1::LinkState::Up,
        _ => v1::LinkState::Down,
    }
}

/// An address of RoCE; others are of no use here.
fn gid(gid: &Gid) -> Option<v1::GidEntry> {
    gid.netdev.as_ref()?;
    let (version, address) = match gid.kind {
        GidType::RoceV2 => (v1::RoceVersion::V2, gid.ip()?),
        GidType::InfiniBandOrRoceV1 => {
            let address = std::net::Ipv6Addr::from(gid.raw).to_canonical();
            (v1::RoceVersion::V1, address)
        }
    };
    Some(v1::GidEntry {
        r#type: version.into(),
        address: address.to_string(),
        prefix_len: 0,
    })
}

/// The modules that this kernel has, of those that matter. `root` is `/`; `release` that of the kernel.
fn kernel_modules(root: &Path, release: &str) -> Vec<v1::KernelModule> {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let of_release = root.join("lib/modules").join(release);
    let loaded = first_words(&read(&root.join("proc/modules")));
    let builtin = module_names(&read(&of_release.join("modules.builtin")));
    let loadable = module_names(&read(&of_release.join("modules.dep")));
    let state = |name: &str| {
        if loaded.contains(name) {
            Some(v1::ModuleState::Loaded)
        } else if builtin.contains(name) || root.join("sys/module").join(name).is_dir() {
            Some(v1::ModuleState::Builtin)
        } else if loadable.contains(name) {
            Some(v1::ModuleState::Loadable)
        } else {
            None
        }
    };
    let known = MODULES.iter().filter_map(|name| {
        Some(v1::KernelModule {
            name: (*name).to_owned(),
            state: state(name)?.into(),
        })
    });
    known.collect()
}

/// The first word of each line.
fn first_words(text: &str) -> BTreeSet<String> {
    let words = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    words.map(str::to_owned).collect()
}

/// The modules whose files begin the lines: `kernel/drivers/block/nbd.ko.xz: ...` is `nbd`.
fn module_names(text: &str) -> BTreeSet<String> {
    let name = |path: String| {
        let path = path.trim_end_matches(':').to_owned();
        let file = path.rsplit('/').next()?.to_owned();
        Some(file.split_once(".ko")?.0.replace('-', "_"))
    };
    first_words(text).into_iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadstead_verbs::LinkLayer;

    #[test]
    fn modules_are_built_in_loaded_or_loadable() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "proc/modules",
            "nvme_tcp 53248 0 - Live 0x0\nnvme_core 1 2 nvme_tcp, Live 0x0\n",
        );
        write(
            "lib/modules/6.1.0/modules.dep",
            "kernel/drivers/block/nbd.ko.xz:\nkernel/drivers/nvme/host/nvme-rdma.ko: kernel/a.ko\n\
             kernel/drivers/nvme/host/nvme-tcp.ko:\n",
        );
        write(
            "lib/modules/6.1.0/modules.builtin",
            "kernel/fs/fuse/fuse.ko\n",
        );
        write("sys/module/rdma_rxe/refcnt", "0");
        let found = kernel_modules(root.path(), "6.1.0");
        let found: Vec<_> = found.iter().map(|m| (m.name.as_str(), m.state())).collect();
        assert_eq!(
            found,
            [
                ("nvme_tcp", v1::ModuleState::Loaded),
                ("nvme_rdma", v1::ModuleState::Loadable),
                ("nbd", v1::ModuleState::Loadable),
                ("fuse", v1::ModuleState::Builtin),
                ("rdma_rxe", v1::ModuleState::Builtin),
            ]
        );
        assert_eq!(kernel_modules(root.path(), "6.2.0").len(), 2);
    }

    #[test]
    fn ports_are_told_with_the_addresses_of_roce() {
        let gid = |kind, netdev: Option<&str>, last: u8| Gid {
            index: 0,
            raw: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, last],
            kind,
            netdev: netdev.map(str::to_owned),
        };
        let port = PortInfo {
            number: 1,
            state: PortState::Active,
            link_layer: LinkLayer::Ethernet,
            gbit_per_second: 100,
            netdevs: vec!["eth1".into()],
            gids: vec![
                gid(GidType::InfiniBandOrRoceV1, Some("eth1"), 7),
                gid(GidType::RoceV2, Some("eth1"), 7),
                gid(GidType::RoceV2, None, 8),
            ],
        };
        let down = PortInfo {
            number: 2,
            state: PortState::Down,
            ..port.clone()
        };
        let device = DeviceInfo {
            name: "mlx5_0".into(),
            node_guid: String::new(),
            ports: vec![port, down],
        };
        let told = describe(&[device], None);
        let links: Vec<_> = told.iter().map(|d| (d.port, d.link())).collect();
        assert_eq!(links, [(1, v1::LinkState::Up), (2, v1::LinkState::Down)]);
        let gids: Vec<_> = told[0]
            .gids
            .iter()
            .map(|g| (g.r#type(), g.address.as_str()))
            .collect();
        assert_eq!(
            gids,
            [
                (v1::RoceVersion::V1, "192.0.2.7"),
                (v1::RoceVersion::V2, "192.0.2.7")
            ]
        );
        assert_eq!(
            (told[0].netdev.as_str(), told[0].message.as_str()),
            ("eth1", "")
        );
        let why = VerbsError::NoDevice;
        assert!(
            !describe(&[], Some(&why))
                .iter()
                .any(|d| d.message.is_empty())
        );
    }
}
