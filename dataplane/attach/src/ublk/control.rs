//! Commands to /dev/ublk-control.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::wire::{Control, DeviceInfo, Params, control};

/// Where commands go.
pub(super) const CONTROL: &str = "/dev/ublk-control";
/// How long a command may take: the start of a device waits for its server.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// No device, no queue.
const NONE: u32 = u32::MAX;
const NO_QUEUE: u16 = u16::MAX;

/// What goes with a command: memory that the kernel reads or writes, and a number.
fn command<T: IntoBytes + FromBytes + Immutable>(
    operation: u32,
    device: u32,
    data: u64,
    buffer: &mut Box<T>,
) -> io::Result<()> {
    let file: File = OpenOptions::new().read(true).write(true).open(CONTROL)?;
    let mut ring = IoUring::<squeue::Entry128, cqueue::Entry>::builder().build(2)?;
    let bytes = buffer.as_mut().as_mut_bytes();
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    let address = if bytes.is_empty() {
        0
    } else {
        bytes.as_mut_ptr() as u64
    };
    let command = Control {
        device,
        queue: NO_QUEUE,
        length,
        address,
        data,
        path: [0; 2],
        reserved: 0,
    };
    let mut place = [0; 80];
    if let Some(start) = place.get_mut(..size_of::<Control>()) {
        start.copy_from_slice(command.as_bytes());
    }
    let entry = opcode::UringCmd80::new(Fd(file.as_raw_fd()), operation)
        .cmd(place)
        .build();
    // SAFETY: the file is open until the ring is dropped, and the memory named in the command is the caller's box,
    // borrowed until this returns; after a time-out it is given up below and never freed.
    unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    let timeout = Timespec::new().sec(COMMAND_TIMEOUT.as_secs());
    loop {
        let arguments = SubmitArgs::new().timespec(&timeout);
        let waited = ring.submitter().submit_with_args(1, &arguments);
        if let Some(completion) = ring.completion().next() {
            let result = completion.result();
            return if result < 0 {
                Err(io::Error::from_raw_os_error(-result))
            } else {
                Ok(())
            };
        }
        match waited {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                give_up(buffer);
                return Err(error);
            }
            Ok(_) => {}
        }
    }
}

/// The kernel may still write to this memory.
fn give_up<T: FromZeros>(buffer: &mut Box<T>) {
    Box::leak(std::mem::replace(buffer, Box::new(T::new_zeroed())));
}

/// A command with a number and no memory.
fn simple(operation: u32, device: u32, data: u64) -> io::Result<()> {
    command(operation, device, data, &mut Box::new([0_u8; 0]))
}

/// What the kernel's driver can do.
pub(super) fn features() -> io::Result<u64> {
    let mut features = Box::new(0_u64);
    command(control::GET_FEATURES, NONE, 0, &mut features)?;
    Ok(*features)
}

/// Makes a device, still without a server. Returns it as it is.
pub(super) fn add(wanted: DeviceInfo) -> io::Result<DeviceInfo> {
    let mut info = Box::new(DeviceInfo {
        device: NONE,
        ..wanted
    });
    command(control::ADD_DEV, NONE, 0, &mut info)?;
    Ok(*info)
}

/// A device as it is.
pub(super) fn info(device: u32) -> io::Result<DeviceInfo> {
    let mut info = Box::new(DeviceInfo::new_zeroed());
    command(control::GET_DEV_INFO, device, 0, &mut info)?;
    Ok(*info)
}

/// Says what the block device shall be, before its start.
pub(super) fn set_params(device: u32, params: Params) -> io::Result<()> {
    command(control::SET_PARAMS, device, 0, &mut Box::new(params))
}

/// Makes the block device; its server has asked for requests, or will.
pub(super) fn start(device: u32) -> io::Result<()> {
    simple(control::START_DEV, device, std::process::id().into())
}

/// Takes the block device away.
pub(super) fn stop(device: u32) -> io::Result<()> {
    simple(control::STOP_DEV, device, 0)
}

/// Removes the device.
pub(super) fn delete(device: u32) -> io::Result<()> {
    simple(control::DEL_DEV, device, 0)
}

/// Has a new server take a device up whose server is gone.
pub(super) fn start_recovery(device: u32) -> io::Result<()> {
    simple(control::START_USER_RECOVERY, device, 0)
}

/// The new server has asked for requests, or will; those that were not answered come again.
pub(super) fn end_recovery(device: u32) -> io::Result<()> {
    let pid = std::process::id().into();
    simple(control::END_USER_RECOVERY, device, pid)
}

/// Changes the size of a device.
pub(super) fn update_size(device: u32, sectors: u64) -> io::Result<()> {
    simple(control::UPDATE_SIZE, device, sectors)
}

/// The numbers of all devices.
pub(super) fn devices(sysfs: &Path) -> Vec<u32> {
    let Ok(listing) = std::fs::read_dir(sysfs.join("class/ublk-char")) else {
        return Vec::new();
    };
    let number = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_prefix("ublkc")?.parse().ok()
    };
    listing.flatten().filter_map(number).collect()
}
