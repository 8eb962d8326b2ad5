//! The RDMA devices of a machine, as the kernel's files describe them: no library is needed.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use crate::error::VerbsError;

/// Where the kernel describes RDMA devices.
pub const SYSFS: &str = "/sys/class/infiniband";
/// Most entries of a port's address table that are looked at.
const ADDRESSES_MAX: usize = 1024;

/// An RDMA device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// The identifier of its hardware, such as `5054:00ff:fe12:3456`.
    pub node_guid: String,
    /// Its ports, by number.
    pub ports: Vec<PortInfo>,
}

/// A port of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Its number, from 1.
    pub number: u8,
    /// Whether it can be used.
    pub state: PortState,
    /// What is under it.
    pub link_layer: LinkLayer,
    /// Its rate in Gbit/s; 0 when the kernel does not say.
    pub gbit_per_second: u32,
    /// The network devices under it, each once.
    pub netdevs: Vec<String>,
    /// Its addresses.
    pub gids: Vec<Gid>,
}

/// Whether a port can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// Nothing is connected.
    Down,
    /// It is being set up.
    Init,
    /// It waits for the last step.
    Armed,
    /// It can be used.
    Active,
    /// It is active, and sees errors for a moment.
    ActiveDefer,
    /// Whatever else the kernel says.
    Unknown,
}

/// What is under a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// InfiniBand.
    InfiniBand,
    /// Ethernet: RoCE or iWARP.
    Ethernet,
    /// Whatever else the kernel says.
    Unknown,
}

/// How packets from an address look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GidType {
    /// InfiniBand, or RoCE version 1: in frames of their own.
    InfiniBandOrRoceV1,
    /// RoCE version 2: in UDP packets.
    RoceV2,
}

/// An address of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gid {
    /// Its place in the port's table.
    pub index: u16,
    /// The address itself.
    pub raw: [u8; 16],
    /// How packets from it look.
    pub kind: GidType,
    /// The network device that it comes from.
    pub netdev: Option<String>,
}

impl Gid {
    /// The IP address that it stands for, of RoCE version 2.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        let v6 = Ipv6Addr::from(self.raw);
        (self.kind == GidType::RoceV2).then(|| v6.to_canonical())
    }
}

impl PortInfo {
    /// Whether it can be used.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.state, PortState::Active | PortState::ActiveDefer)
    }

    /// The IP addresses at which it speaks RoCE version 2, each once.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> = self.gids.iter().filter_map(Gid::ip).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// The devices of this machine, by name. None, where the kernel has no RDMA.
///
/// # Errors
/// [`VerbsError::Sysfs`].
pub fn devices() -> Result<Vec<DeviceInfo>, VerbsError> {
    devices_in(Path::new(SYSFS))
}

/// The devices that the files under `root` describe.
///
/// # Errors
/// [`VerbsError::Sysfs`].
pub fn devices_in(root: &Path) -> Result<Vec<DeviceInfo>, VerbsError> {
    let mut devices = Vec::new();
    for name in names(root)? {
        let path = root.join(&name);
        // A device that goes while it is looked at is none.
        let Some(node_guid) = text(&path.join("node_guid"))? else {
            continue;
        };
        let mut ports = Vec::new();
        for number in numbers(&path.join("ports"))? {
            let number = u8::try_from(number).unwrap_or(u8::MAX);
            ports.extend(port(&path.join("ports").join(number.to_string()), number)?);
        }
        devices.push(DeviceInfo {
            name,
            node_guid,
            ports,
        });
    }
    Ok(devices)
}

fn port(path: &Path, number: u8) -> Result<Option<PortInfo>, VerbsError> {
    let Some(state) = text(&path.join("state"))? else {
        return Ok(None);
    };
    let link_layer = text(&path.join("link_layer"))?.unwrap_or_default();
    let rate = text(&path.join("rate"))?.unwrap_or_default();
    let gids = gids(path)?;
    let mut netdevs: Vec<String> = gids.iter().filter_map(|gid| gid.netdev.clone()).collect();
    netdevs.sort_unstable();
    netdevs.dedup();
    Ok(Some(PortInfo {
        number,
        state: parse_state(&state),
        link_layer: parse_link_layer(&link_layer),
        gbit_per_second: parse_rate(&rate),
        netdevs,
        gids,
    }))
}

fn gids(port: &Path) -> Result<Vec<Gid>, VerbsError> {
    let mut gids = Vec::new();
    for index in numbers(&port.join("gids"))?.into_iter().take(ADDRESSES_MAX) {
        let name = index.to_string();
        let raw = text(&port.join("gids").join(&name))?;
        let Some(raw) = raw.as_deref().and_then(parse_gid) else {
            continue;
        };
        let kind = text(&port.join("gid_attrs/types").join(&name))?;
        gids.push(Gid {
            index,
            raw,
            kind: parse_kind(kind.as_deref().unwrap_or_default()),
            netdev: text(&port.join("gid_attrs/ndevs").join(&name))?,
        });
    }
    Ok(gids)
}

/// A state such as `4: ACTIVE`.
fn parse_state(text: &str) -> PortState {
    match text.split(':').next().map(str::trim) {
        Some("1") => PortState::Down,
        Some("2") => PortState::Init,
        Some("3") => PortState::Armed,
        Some("4") => PortState::Active,
        Some("5") => PortState::ActiveDefer,
        _ => PortState::Unknown,
    }
}

fn parse_link_layer(text: &str) -> LinkLayer {
    match text {
        "InfiniBand" => LinkLayer::InfiniBand,
        "Ethernet" => LinkLayer::Ethernet,
        _ => LinkLayer::Unknown,
    }
}

/// A rate such as `100 Gb/sec (4X EDR)` or `2.5 Gb/sec (1X SDR)`, which is rounded down.
fn parse_rate(text: &str) -> u32 {
    let digits = text.split(['.', ' ']).next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

/// Eight groups of hexadecimal digits; an unused entry of the table is all zeros, and no address.
fn parse_gid(text: &str) -> Option<[u8; 16]> {
    let raw = text.parse::<Ipv6Addr>().ok()?.octets();
    (raw != [0; 16]).then_some(raw)
}

fn parse_kind(text: &str) -> GidType {
    match text {
        "RoCE v2" => GidType::RoceV2,
        _ => GidType::InfiniBandOrRoceV1,
    }
}

/// What a file says; `None` where there is none, or nothing in it. The kernel says so in several ways.
fn text(path: &Path) -> Result<Option<String>, VerbsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(error) if is_nothing(&error) => Ok(None),
        Err(source) => Err(VerbsError::Sysfs {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The names in a directory, in order; none where it is not.
fn names(path: &Path) -> Result<Vec<String>, VerbsError> {
    let failed = |source| VerbsError::Sysfs {
        path: path.to_owned(),
        source,
    };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if is_nothing(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        names.extend(name.into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// The numbers among the names in a directory, in order.
fn numbers(path: &Path) -> Result<Vec<u16>, VerbsError> {
    let names = names(path)?;
    let mut numbers: Vec<u16> = names.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Entries of tables that are not used cannot be read: "invalid argument", or nothing there.
fn is_nothing(error: &io::Error) -> bool {
    let codes = [libc::EINVAL, libc::ENODEV, libc::ENXIO];
    error.kind() == io::ErrorKind::NotFound
        || error
            .raw_os_error()
            .is_some_and(|code| codes.contains(&code))
}
