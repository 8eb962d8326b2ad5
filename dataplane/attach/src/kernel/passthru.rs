//! Commands of ours through the kernel's host, by its controller's character device.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

/// Keep Alive (NVMe Base Specification 2.1, section 5.2.23), the one command that does nothing.
const KEEP_ALIVE: u8 = 0x18;

/// `struct nvme_passthru_cmd` of linux/nvme_ioctl.h.
#[repr(C)]
#[derive(Default)]
struct Command {
    opcode: u8,
    flags: u8,
    reserved: u16,
    nsid: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    address: u64,
    metadata_len_bytes: u32,
    data_len_bytes: u32,
    cdw10_to_15: [u32; 6],
    timeout_ms: u32,
    result: u32,
}

/// `_IOWR('N', 0x41, struct nvme_passthru_cmd)` of linux/nvme_ioctl.h.
const NVME_IOCTL_ADMIN_CMD: libc::c_ulong = 0xC048_4E41;
const _: () = assert!(size_of::<Command>() == 0x48);

/// Sends a Keep Alive over a controller's admin queue and waits for its end; false if it was not answered. When it is not
/// within `timeout`, the kernel takes the controller for lost, at its next look, about a second later at most: it ends the
/// connection, sends I/O over other paths, and connects again.
pub(super) fn keep_alive(controller: &Path, timeout: Duration) -> bool {
    let Ok(device) = File::open(controller) else {
        return false;
    };
    let mut command = Command {
        opcode: KEEP_ALIVE,
        timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        ..Command::default()
    };
    // SAFETY: `device` is open; the kernel reads and writes one `Command`, whose layout is that of its header (its size
    // is part of the request's number), and no other memory, for the command has no data and no metadata.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), NVME_IOCTL_ADMIN_CMD, &raw mut command) };
    // A positive number is the status of an answer.
    result >= 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_controller_does_not_answer() {
        assert!(!keep_alive(
            Path::new("/nonexistent"),
            Duration::from_secs(1)
        ));
        assert!(!keep_alive(Path::new("/dev/null"), Duration::from_secs(1)));
    }
}
