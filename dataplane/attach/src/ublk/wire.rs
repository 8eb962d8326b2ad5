//! The kernel's ublk interface (linux/ublk_cmd.h), as far as it is used here, and what its requests mean.

use roadstead_initiator::Op;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::served::Shape;

/// Number of a command without and with an answer in its buffer, by the rules of linux/ioctl.h.
const fn command(direction: u32, number: u32, bytes: u32) -> u32 {
    direction << 30 | bytes << 16 | (b'u' as u32) << 8 | number
}
const READ: u32 = 2;
const READ_WRITE: u32 = 3;
const CONTROL_BYTES: u32 = 32;
const IO_BYTES: u32 = 16;

/// Commands to /dev/ublk-control.
pub(super) mod control {
    use super::{CONTROL_BYTES, READ, READ_WRITE, command};

    pub(in super::super) const GET_DEV_INFO: u32 = command(READ, 0x02, CONTROL_BYTES);
    pub(in super::super) const ADD_DEV: u32 = command(READ_WRITE, 0x04, CONTROL_BYTES);
    pub(in super::super) const DEL_DEV: u32 = command(READ_WRITE, 0x05, CONTROL_BYTES);
    pub(in super::super) const START_DEV: u32 = command(READ_WRITE, 0x06, CONTROL_BYTES);
    pub(in super::super) const STOP_DEV: u32 = command(READ_WRITE, 0x07, CONTROL_BYTES);
    pub(in super::super) const SET_PARAMS: u32 = command(READ_WRITE, 0x08, CONTROL_BYTES);
    pub(in super::super) const START_USER_RECOVERY: u32 = command(READ_WRITE, 0x10, CONTROL_BYTES);
    pub(in super::super) const END_USER_RECOVERY: u32 = command(READ_WRITE, 0x11, CONTROL_BYTES);
    pub(in super::super) const GET_FEATURES: u32 = command(READ, 0x13, CONTROL_BYTES);
    pub(in super::super) const UPDATE_SIZE: u32 = command(READ_WRITE, 0x15, CONTROL_BYTES);
}

/// Commands to /dev/ublkcN.
pub(super) mod io {
    use super::{IO_BYTES, READ_WRITE, command};

    pub(in super::super) const FETCH: u32 = command(READ_WRITE, 0x20, IO_BYTES);
    pub(in super::super) const COMMIT_AND_FETCH: u32 = command(READ_WRITE, 0x21, IO_BYTES);
}

/// Flags of a device, and of the kernel's features.
pub(super) mod feature {
    pub(in super::super) const USER_RECOVERY: u64 = 1 << 3;
    pub(in super::super) const USER_RECOVERY_REISSUE: u64 = 1 << 4;
    pub(in super::super) const CMD_IOCTL_ENCODE: u64 = 1 << 6;
    pub(in super::super) const UPDATE_SIZE: u64 = 1 << 10;
}

/// States of a device.
pub(super) mod state {
    pub(in super::super) const DEAD: u16 = 0;
}

/// Kinds and flags of a request.
mod request {
    pub(super) const READ: u32 = 0;
    pub(super) const WRITE: u32 = 1;
    pub(super) const FLUSH: u32 = 2;
    pub(super) const DISCARD: u32 = 3;
    pub(super) const WRITE_ZEROES: u32 = 5;
    pub(super) const KIND: u32 = 0xFF;
    pub(super) const FUA: u32 = 1 << 13;
    pub(super) const NOUNMAP: u32 = 1 << 15;
}

/// A control command; it stands in the submission entry.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct Control {
    pub(super) device: u32,
    pub(super) queue: u16,
    /// Bytes at `address`.
    pub(super) length: u16,
    pub(super) address: u64,
    pub(super) data: u64,
    pub(super) path: [u16; 2],
    pub(super) reserved: u32,
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct DeviceInfo {
    pub(super) queues: u16,
    pub(super) depth: u16,
    pub(super) state: u16,
    pub(super) pad0: u16,
    pub(super) request_bytes_max: u32,
    pub(super) device: u32,
    pub(super) server_pid: i32,
    pub(super) pad1: u32,
    pub(super) flags: u64,
    /// The kernel keeps it for the server and does not look at it.
    pub(super) server_flags: u64,
    pub(super) owner: [u32; 2],
    pub(super) reserved: [u64; 2],
}

/// What the block device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct Params {
    pub(super) length: u32,
    pub(super) types: u32,
    pub(super) attributes: u32,
    pub(super) logical_block_shift: u8,
    pub(super) physical_block_shift: u8,
    pub(super) io_opt_shift: u8,
    pub(super) io_min_shift: u8,
    pub(super) sectors_max: u32,
    pub(super) chunk_sectors: u32,
    pub(super) device_sectors: u64,
    pub(super) virt_boundary_mask: u64,
    pub(super) discard_alignment: u32,
    pub(super) discard_granularity: u32,
    pub(super) discard_sectors_max: u32,
    pub(super) zeroes_sectors_max: u32,
    pub(super) discard_segments_max: u16,
    pub(super) reserved: [u16; 3],
}

/// A request, where the kernel puts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct Descriptor {
    pub(super) op_flags: u32,
    pub(super) sectors: u32,
    pub(super) start_sector: u64,
    pub(super) address: u64,
}

/// Gives a tag's last result, if it has one, and takes its next request.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct IoCommand {
    pub(super) queue: u16,
    pub(super) tag: u16,
    pub(super) result: i32,
    /// Of the tag's buffer.
    pub(super) address: u64,
}

const _: () = assert!(size_of::<Control>() == CONTROL_BYTES as usize);
const _: () = assert!(size_of::<DeviceInfo>() == 64);
const _: () = assert!(size_of::<Params>() == 64);
const _: () = assert!(size_of::<Descriptor>() == 24);
const _: () = assert!(size_of::<IoCommand>() == IO_BYTES as usize);

const TYPE_BASIC: u32 = 1 << 0;
const TYPE_DISCARD: u32 = 1 << 1;
const ATTRIBUTE_READ_ONLY: u32 = 1 << 0;
const ATTRIBUTE_VOLATILE_CACHE: u32 = 1 << 2;
const ATTRIBUTE_FUA: u32 = 1 << 3;
/// Bytes of [`Params`] that mean something.
const PARAMS_BYTES: u32 = 60;
/// The kernel's unit.
const SECTOR_BYTES: u64 = 512;
/// Most that one discard or write of zeroes covers, in sectors: its length in bytes is a 32-bit number.
const ZEROES_SECTORS_MAX: u32 = u32::MAX / 512;

/// Sectors of a size.
pub(super) fn sectors(size_bytes: u64) -> u64 {
    size_bytes / SECTOR_BYTES
}

impl Params {
    /// For a device with requests of `request_bytes_max` at most.
    pub(super) fn new(shape: &Shape, request_bytes_max: u32) -> Self {
        let shift = u8::try_from(shape.block_bytes.trailing_zeros()).unwrap_or(u8::MAX);
        let zeroes = shape.zeroes && !shape.read_only;
        let or = |flag: bool, value: u32| if flag { value } else { 0 };
        Self {
            length: PARAMS_BYTES,
            types: TYPE_BASIC | or(zeroes, TYPE_DISCARD),
            attributes: ATTRIBUTE_VOLATILE_CACHE
                | ATTRIBUTE_FUA
                | or(shape.read_only, ATTRIBUTE_READ_ONLY),
            logical_block_shift: shift,
            physical_block_shift: shift,
            io_opt_shift: shift,
            io_min_shift: shift,
            sectors_max: request_bytes_max / 512,
            chunk_sectors: 0,
            device_sectors: sectors(shape.size_bytes),
            virt_boundary_mask: 0,
            discard_alignment: 0,
            discard_granularity: or(zeroes, shape.block_bytes),
            discard_sectors_max: or(zeroes, ZEROES_SECTORS_MAX),
            zeroes_sectors_max: or(zeroes, ZEROES_SECTORS_MAX),
            discard_segments_max: u16::from(zeroes),
            reserved: [0; 3],
        }
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) op: Op,
    pub(super) lba: u64,
    pub(super) blocks: u32,
    /// Bytes of data in or out: the answer to a success.
    pub(super) data_bytes: u32,
}

impl Descriptor {
    /// In blocks of the device. `None`: not known here, or not in whole blocks.
    pub(super) fn asked(&self, block_bytes: u32) -> Option<Asked> {
        let (op, has_data) = match self.op_flags & request::KIND {
            request::READ => (Op::Read, true),
            request::WRITE => {
                let durable = self.op_flags & request::FUA != 0;
                (Op::Write { durable }, true)
            }
            request::FLUSH => {
                return Some(Asked {
                    op: Op::Flush,
                    lba: 0,
                    blocks: 0,
                    data_bytes: 0,
                });
            }
            request::DISCARD => (Op::WriteZeroes { deallocate: true }, false),
            request::WRITE_ZEROES => {
                let deallocate = self.op_flags & request::NOUNMAP == 0;
                (Op::WriteZeroes { deallocate }, false)
            }
            _ => return None,
        };
        let per_block = u64::from(block_bytes) / SECTOR_BYTES;
        let count = u64::from(self.sectors);
        if count == 0
            || per_block == 0
            || !count.is_multiple_of(per_block)
            || !self.start_sector.is_multiple_of(per_block)
        {
            return None;
        }
        let data_bytes = if has_data {
            self.sectors.checked_mul(512)?
        } else {
            0
        };
        Some(Asked {
            op,
            lba: self.start_sector / per_block,
            blocks: u32::try_from(count / per_block).ok()?,
            data_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_kernels_numbers() {
        assert_eq!(control::GET_DEV_INFO, 0x8020_7502);
        assert_eq!(control::ADD_DEV, 0xC020_7504);
        assert_eq!(control::GET_FEATURES, 0x8020_7513);
        assert_eq!(io::FETCH, 0xC010_7520);
        assert_eq!(io::COMMIT_AND_FETCH, 0xC010_7521);
    }

    fn shape() -> Shape {
        Shape {
            size_bytes: 1 << 30,
            block_bytes: 4096,
            read_only: false,
            zeroes: true,
        }
    }

    #[test]
    fn parameters() {
        let params = Params::new(&shape(), 512 << 10);
        assert_eq!(params.types, 3);
        assert_eq!(params.attributes, 0b1100);
        assert_eq!(params.logical_block_shift, 12);
        assert_eq!(params.sectors_max, 1024);
        assert_eq!(params.device_sectors, 2 << 20);
        assert_eq!(params.discard_granularity, 4096);
        assert_eq!(params.discard_segments_max, 1);
        // Golden: where the kernel looks for the size and for the limit of zeroes.
        let bytes = params.as_bytes();
        assert_eq!(bytes[24..32], (2_u64 << 20).to_le_bytes());
        assert_eq!(bytes[52..56], ZEROES_SECTORS_MAX.to_le_bytes());
        assert_eq!(bytes[56..58], 1_u16.to_le_bytes());

        let read_only = Shape {
            read_only: true,
            ..shape()
        };
        let params = Params::new(&read_only, 512 << 10);
        assert_eq!((params.types, params.attributes), (1, 0b1101));
        let plain = Shape {
            zeroes: false,
            ..shape()
        };
        assert_eq!(Params::new(&plain, 4096).types, 1);
    }

    #[test]
    fn requests() {
        let zeroes = |deallocate| Op::WriteZeroes { deallocate };
        let write = |durable| Op::Write { durable };
        let table = [
            ((0, 8, 16), 512, Some((Op::Read, 16, 8, 4096))),
            ((0, 8, 16), 4096, Some((Op::Read, 2, 1, 4096))),
            ((1, 16, 0), 4096, Some((write(false), 0, 2, 8192))),
            ((1 | 1 << 13, 8, 0), 4096, Some((write(true), 0, 1, 4096))),
            ((1 | 1 << 8, 8, 0), 4096, Some((write(false), 0, 1, 4096))),
            ((2, 0, 0), 4096, Some((Op::Flush, 0, 0, 0))),
            ((3, 8, 8), 4096, Some((zeroes(true), 1, 1, 0))),
            ((5, 8, 8), 4096, Some((zeroes(true), 1, 1, 0))),
            ((5 | 1 << 15, 8, 8), 4096, Some((zeroes(false), 1, 1, 0))),
            ((0, 1, 0), 4096, None),
            ((0, 8, 1), 4096, None),
            ((0, 0, 0), 4096, None),
            ((4, 8, 0), 4096, None),
            ((13, 8, 0), 512, None),
        ];
        for ((op_flags, sectors, start_sector), block_bytes, wanted) in table {
            let descriptor = Descriptor {
                op_flags,
                sectors,
                start_sector,
                address: 0,
            };
            let asked = descriptor.asked(block_bytes);
            let asked = asked.map(|a| (a.op, a.lba, a.blocks, a.data_bytes));
            assert_eq!(asked, wanted, "{descriptor:?} in {block_bytes}");
        }
    }
}
