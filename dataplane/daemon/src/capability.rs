//! What this node can do for volumes: RDMA devices and kernel modules, read from the kernel's files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use roadstead_api::v1;
use roadstead_verbs::{DeviceInfo, Gid, GidType, PortInfo, PortState, VerbsError};

use crate::netdev::{self, Address};

/// Where the kernel describes devices.
const SYS: &str = "/sys";

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
    pub(crate) netdevs: Vec<v1::Netdev>,
}

impl Capabilities {
    /// The transports by which this node can connect, with these methods. RDMA takes a device with an address; the
    /// kernel's host needs its module, other methods nothing.
    pub(crate) fn transports(&self, methods: &[&str]) -> Vec<v1::Transport> {
        let has_module = |name: &str| self.kernel_modules.iter().any(|m| m.name == name);
        let is_usable = |d: &v1::RdmaDevice| d.message.is_empty() && !d.gids.is_empty();
        let kernel = has_module("nvme_rdma") && has_module("nvme_fabrics");
        let carries = |method: &&str| *method != "kernel" || kernel;
        let rdma = methods.iter().any(carries) && self.rdma_devices.iter().any(is_usable);
        let rdma = rdma.then_some(v1::Transport::Rdma);
        [v1::Transport::Tcp].into_iter().chain(rdma).collect()
    }
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
        let addresses = netdev::addresses();
        let capabilities = Capabilities {
            rdma_devices: rdma_devices(&addresses),
            kernel_modules: kernel_modules(Path::new("/"), release),
            netdevs: netdev::netdevs(Path::new(SYS), &addresses),
        };
        *known = Some((Instant::now(), capabilities.clone()));
        capabilities
    }
}

/// The ports of all RDMA devices. What cannot be read is none: the log says why.
fn rdma_devices(addresses: &[Address]) -> Vec<v1::RdmaDevice> {
    let why = roadstead_verbs::available().err();
    match roadstead_verbs::devices() {
        Ok(devices) => describe(Path::new(SYS), &devices, addresses, why.as_ref()),
        Err(error) => {
            tracing::warn!(%error, "RDMA devices cannot be read");
            Vec::new()
        }
    }
}

/// `sys` is `/sys`. `why`: no device can be used at all.
fn describe(
    sys: &Path,
    devices: &[DeviceInfo],
    addresses: &[Address],
    why: Option<&VerbsError>,
) -> Vec<v1::RdmaDevice> {
    let ports = |device: &DeviceInfo| {
        let name = device.name.clone();
        let driver = driver(&sys.join("class/infiniband").join(&device.name));
        let port = move |port: &PortInfo| v1::RdmaDevice {
            name: name.clone(),
            port: port.number.into(),
            link: link(port).into(),
            speed_gbps: port.gbit_per_second,
            mtu_bytes: mtu_bytes(sys, port),
            netdev: port.netdevs.first().cloned().unwrap_or_default(),
            gids: port
                .gids
                .iter()
                .filter_map(|one| gid(one, addresses))
                .collect(),
            driver: driver.clone(),
            message: why.map(ToString::to_string).unwrap_or_default(),
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

/// The kernel's module behind a device. The soft device has no hardware, but names the interface it is on.
fn driver(device: &Path) -> String {
    let driver = fs::read_link(device.join("device/driver")).ok();
    let name = driver.and_then(|path| path.file_name()?.to_str().map(str::to_owned));
    let soft = || {
        device
            .join("parent")
            .exists()
            .then(|| "rdma_rxe".to_owned())
    };
    name.or_else(soft).unwrap_or_default()
}

/// From the smallest of its interfaces: the kernel has no file with it.
fn mtu_bytes(sys: &Path, port: &PortInfo) -> u32 {
    let frames = port.netdevs.iter().filter_map(|name| {
        let text = fs::read_to_string(sys.join("class/net").join(name).join("mtu"));
        text.ok()?.trim().parse().ok()
    });
    netdev::rdma_mtu_bytes(frames.min().unwrap_or_default())
}

/// An address of RoCE that means the same everywhere; others are of no use here.
fn gid(gid: &Gid, addresses: &[Address]) -> Option<v1::GidEntry> {
    let netdev = gid.netdev.as_ref()?;
    let (version, address) = match gid.kind {
        GidType::RoceV2 => (v1::RoceVersion::V2, gid.ip()?),
        GidType::InfiniBandOrRoceV1 => {
            let address = std::net::Ipv6Addr::from(gid.raw).to_canonical();
            (v1::RoceVersion::V1, address)
        }
    };
    let is_it = |one: &&Address| one.ip == address && one.netdev == *netdev;
    let prefix_len = addresses.iter().find(is_it).map(|one| one.prefix_len);
    netdev::is_routable(address).then(|| v1::GidEntry {
        r#type: version.into(),
        address: address.to_string(),
        prefix_len: prefix_len.unwrap_or_default().into(),
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
                Gid {
                    raw: [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
                    ..gid(GidType::RoceV2, Some("eth1"), 0)
                },
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
        let root = tempfile::tempdir().unwrap();
        let net = root.path().join("class/net/eth1");
        fs::create_dir_all(&net).unwrap();
        fs::write(net.join("mtu"), "1500\n").unwrap();
        let rdma = root.path().join("class/infiniband/mlx5_0/device");
        fs::create_dir_all(&rdma).unwrap();
        std::os::unix::fs::symlink("../../bus/pci/drivers/mlx5_core", rdma.join("driver")).unwrap();
        let addresses = [Address {
            netdev: "eth1".into(),
            ip: "192.0.2.7".parse().unwrap(),
            prefix_len: 24,
        }];
        let told = describe(root.path(), &[device], &addresses, None);
        assert_eq!(
            (told[0].driver.as_str(), told[0].mtu_bytes),
            ("mlx5_core", 1024)
        );
        assert!(told[0].gids.iter().all(|gid| gid.prefix_len == 24));
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
            !describe(root.path(), &[], &[], Some(&why))
                .iter()
                .any(|d| d.message.is_empty())
        );
    }

    #[test]
    fn rdma_takes_a_device_with_an_address_and_the_kernel_its_module() {
        let module = |name: &str| v1::KernelModule {
            name: name.into(),
            state: v1::ModuleState::Loadable.into(),
        };
        let all = Capabilities {
            rdma_devices: vec![v1::RdmaDevice {
                gids: vec![v1::GidEntry::default()],
                ..v1::RdmaDevice::default()
            }],
            kernel_modules: vec![module("nvme_rdma"), module("nvme_fabrics")],
            netdevs: Vec::new(),
        };
        let has_rdma = |capabilities: &Capabilities, methods: &[&str]| {
            let all = capabilities.transports(methods);
            assert_eq!(all[0], v1::Transport::Tcp);
            all.contains(&v1::Transport::Rdma)
        };
        assert!(has_rdma(&all, &["kernel", "fuse"]));
        assert!(!has_rdma(&all, &[]));
        let no_modules = Capabilities {
            kernel_modules: Vec::new(),
            ..all.clone()
        };
        assert!(has_rdma(&no_modules, &["fuse"]));
        let change = |f: fn(&mut Capabilities)| {
            let mut less = all.clone();
            f(&mut less);
            has_rdma(&less, &["kernel"])
        };
        assert!(!change(|c| c.rdma_devices.clear()));
        assert!(!change(|c| c.rdma_devices[0].gids.clear()));
        assert!(!change(|c| c.rdma_devices[0].message = "no library".into()));
        assert!(!change(|c| drop(c.kernel_modules.remove(0))));
        assert!(!change(|c| drop(c.kernel_modules.pop())));
        // The soft device has no driver that it names.
        let root = tempfile::tempdir().unwrap();
        assert_eq!(driver(root.path()), "");
        fs::write(root.path().join("parent"), "eth0\n").unwrap();
        assert_eq!(driver(root.path()), "rdma_rxe");
    }
}
