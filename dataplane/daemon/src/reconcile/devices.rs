//! Block devices of this machine, by path, serial number or model.

use std::path::PathBuf;

use roadstead_pool::OpenError;

use crate::desired::Source;
use crate::status::DriveAbout;

/// A device that may be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) path: PathBuf,
    pub(crate) serial: String,
    pub(crate) model: String,
}

impl Device {
    /// What the report says of it.
    pub(crate) fn about(&self) -> DriveAbout {
        DriveAbout {
            path: self.path.display().to_string(),
            serial: self.serial.clone(),
            model: self.model.clone(),
        }
    }
}

/// Finds the device that is meant.
pub(crate) fn find(source: &Source, _force: bool) -> Result<Device, OpenError> {
    match source {
        Source::Path(path) => Ok(Device {
            path: path.clone(),
            serial: String::new(),
            model: String::new(),
        }),
        _ => Err(OpenError::NotFound {
            what: "a device".to_owned(),
        }),
    }
}
