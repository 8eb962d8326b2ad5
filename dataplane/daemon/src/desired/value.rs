//! Single values: each is checked here, for the control API and for the file alike.

use std::net::IpAddr;
use std::path::PathBuf;

use roadstead_api::v1;
use roadstead_nvme::AnaState;
use roadstead_nvme::dhchap::{Keys, Secret};
use roadstead_target::limits::ANA_GROUPS_MAX;
use uuid::Uuid;

/// Longest NQN in bytes (NVMe Base 2.0, section 4.5).
const NQN_LENGTH_MAX: usize = 223;
/// Longest serial number of a subsystem (Identify Controller, SN).
const SERIAL_LENGTH_MAX: usize = 20;
/// Longest name of a drive or a volume.
const NAME_LENGTH_MAX: usize = 253;
/// NVMe-oF's well-known discovery service (NVMe Base 2.0, section 4.5.1).
const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// Keys of authentication; what is wrong with one does not show it.
pub(crate) fn keys(keys: Option<&v1::HostKeys>) -> Result<Option<Keys>, String> {
    let Some(keys) = keys else {
        return Ok(None);
    };
    let secret = |name, text| Secret::parse(text).map_err(|error| format!("{name}: {error}"));
    let controller = Some(keys.controller.as_str()).filter(|text| !text.is_empty());
    Ok(Some(Keys {
        host: secret("host", &keys.host)?,
        controller: controller
            .map(|text| secret("controller", text))
            .transpose()?,
    }))
}

pub(super) fn has_room(size_bytes: u64) -> Result<(), String> {
    if size_bytes == 0 {
        Err("the size is 0".to_owned())
    } else {
        Ok(())
    }
}

pub(super) fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("is empty".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

pub(super) fn absolute(path: &str) -> Result<PathBuf, String> {
    if path.starts_with('/') {
        Ok(PathBuf::from(path))
    } else {
        Err(format!("'{path}' is not an absolute path"))
    }
}

/// A name of a drive or a volume: printable, for logs and metrics.
pub(super) fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if text.is_empty() || text.len() > NAME_LENGTH_MAX || !text.chars().all(fits) {
        return Err(format!(
            "'{text}' is not a name: 1 to {NAME_LENGTH_MAX} letters, digits, '-', '_', '.', '/'"
        ));
    }
    Ok(text.to_owned())
}

pub(crate) fn uuid(text: &str) -> Result<Uuid, String> {
    match Uuid::try_parse(text) {
        Ok(uuid) if !uuid.is_nil() => Ok(uuid),
        _ => Err(format!("'{text}' is not a UUID")),
    }
}

pub(super) fn block_size(bytes: u32) -> Result<(), String> {
    match bytes {
        512 | 4096 => Ok(()),
        _ => Err(format!("{bytes} is not possible; write 512 or 4096")),
    }
}

pub(super) fn volume_size(size_bytes: u64, block_size: u32) -> Result<(), String> {
    if size_bytes == 0 || !size_bytes.is_multiple_of(u64::from(block_size)) {
        return Err(format!(
            "{size_bytes} is not a multiple of the block size {block_size}"
        ));
    }
    Ok(())
}

/// NVMe Base 2.0, section 4.5: UTF-8, at most 223 bytes, `nqn.` and more.
pub(crate) fn nqn(text: &str) -> Result<String, String> {
    let fits = |c: char| !c.is_control() && !c.is_whitespace();
    let date_and_more = text.strip_prefix("nqn.").is_some_and(|rest| {
        rest.len() > 8
            && rest
                .bytes()
                .zip(*b"dddd-dd.")
                .all(|(byte, kind)| match kind {
                    b'd' => byte.is_ascii_digit(),
                    literal => byte == literal,
                })
    });
    if !date_and_more || text.len() > NQN_LENGTH_MAX || !text.chars().all(fits) {
        return Err(format!(
            "'{text}' is not an NQN; write e.g. nqn.2026-11.io.roadstead:example, \
             at most {NQN_LENGTH_MAX} bytes"
        ));
    }
    if text == DISCOVERY_NQN {
        return Err(format!("'{text}' is the discovery service's own"));
    }
    Ok(text.to_owned())
}

/// The serial given, or one made from the NQN: the same for ever.
pub(super) fn serial(text: &str, nqn: &str) -> Result<String, String> {
    if text.is_empty() {
        let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, nqn.as_bytes())
            .simple()
            .to_string();
        return Ok(digest.chars().take(SERIAL_LENGTH_MAX).collect());
    }
    let fits = |byte: u8| (0x20..0x7f).contains(&byte);
    if text.len() > SERIAL_LENGTH_MAX || !text.bytes().all(fits) {
        return Err(format!(
            "'{text}' is not a serial: at most {SERIAL_LENGTH_MAX} ASCII letters"
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn transport(number: i32) -> Result<v1::Transport, String> {
    match v1::Transport::try_from(number) {
        Ok(v1::Transport::Unspecified) | Err(_) => Err(format!("{number} is not a transport")),
        Ok(v1::Transport::Local) => {
            Err("a portal is reached over the network: tcp or rdma".to_owned())
        }
        Ok(known) => Ok(known),
    }
}

pub(super) fn ip_address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is not an IP address; 0.0.0.0 and :: listen on all"))
}

pub(super) fn port(number: u32) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("{number} is not a port number from 1 to 65535")),
    }
}

/// The ANA group of a namespace that does not say.
pub(super) const ANA_GROUP_DEFAULT: u32 = 1;

pub(super) fn ana_group(number: u32) -> Result<u32, String> {
    match number {
        0 => Ok(ANA_GROUP_DEFAULT),
        1..=ANA_GROUPS_MAX => Ok(number),
        _ => Err(format!(
            "{number} is not an ANA group from 1 to {ANA_GROUPS_MAX}"
        )),
    }
}

pub(super) fn ana_state(number: i32) -> Result<AnaState, String> {
    use v1::AnaState as Wire;
    match Wire::try_from(number) {
        Ok(Wire::Unspecified | Wire::Optimized) => Ok(AnaState::Optimized),
        Ok(Wire::NonOptimized) => Ok(AnaState::NonOptimized),
        Ok(Wire::Inaccessible) => Ok(AnaState::Inaccessible),
        Ok(Wire::PersistentLoss) => Ok(AnaState::PersistentLoss),
        Ok(Wire::Change) => Ok(AnaState::Change),
        Err(_) => Err(format!("{number} is not an ANA state")),
    }
}

/// The state as the control API has it.
pub(crate) fn ana_state_message(state: AnaState) -> v1::AnaState {
    match state {
        AnaState::Optimized => v1::AnaState::Optimized,
        AnaState::NonOptimized => v1::AnaState::NonOptimized,
        AnaState::Inaccessible => v1::AnaState::Inaccessible,
        AnaState::PersistentLoss => v1::AnaState::PersistentLoss,
        AnaState::Change => v1::AnaState::Change,
    }
}
