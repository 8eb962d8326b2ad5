//! Data pointers (base specification, section 4.1.2; RDMA transport specification, section 3.2).

use roadstead_nvme::{SglDescriptor, Status};
use zerocopy::little_endian::{U32, U64};

/// Most bytes that one descriptor can stand for.
pub const LENGTH_MAX: u32 = (1 << 24) - 1;

/// A keyed data block at an address.
const KEYED: u8 = 0x40;
/// The same; the controller invalidates the key with the response.
const KEYED_INVALIDATE: u8 = 0x4f;

/// Memory of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where, in the address space that the key opens.
    pub address: u64,
    /// The remote key.
    pub key: u32,
    /// Bytes, at most [`LENGTH_MAX`].
    pub length: u32,
    /// The host wants the key to be invalidated by the response.
    pub invalidate: bool,
}

impl Remote {
    /// No memory, for commands without data.
    pub const NONE: Self = Self {
        address: 0,
        key: 0,
        length: 0,
        invalidate: false,
    };

    /// The key that the response has to invalidate.
    #[must_use]
    pub fn key_to_invalidate(&self) -> Option<u32> {
        self.invalidate.then_some(self.key)
    }
}

/// Where the data of a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPointer {
    /// In the command capsule, behind the entry.
    InCapsule {
        /// Bytes from the start of the capsule's data.
        offset: u64,
        /// Bytes.
        length: u32,
    },
    /// In memory of the host; zero bytes when the command has no data.
    Remote(Remote),
}

impl DataPointer {
    /// Reads a descriptor. One of zeros stands for no data, as some hosts send it.
    ///
    /// # Errors
    /// [`Status::SGL_TYPE_INVALID`] for every descriptor that NVMe/RDMA does not know.
    pub fn parse(sgl: &SglDescriptor) -> Result<Self, Status> {
        let word = sgl.length.get();
        let [low, middle, high] = sgl.reserved;
        let remote = |invalidate| {
            let [.., first] = word.to_le_bytes();
            Self::Remote(Remote {
                address: sgl.address.get(),
                key: u32::from_le_bytes([first, low, middle, high]),
                length: word & LENGTH_MAX,
                invalidate,
            })
        };
        match sgl.identifier {
            KEYED => Ok(remote(false)),
            KEYED_INVALIDATE => Ok(remote(true)),
            SglDescriptor::IN_CAPSULE => Ok(Self::InCapsule {
                offset: sgl.address.get(),
                length: word,
            }),
            0 if word == 0 => Ok(Self::Remote(Remote::NONE)),
            _ => Err(Status::SGL_TYPE_INVALID),
        }
    }

    /// Writes a descriptor. Lengths above [`LENGTH_MAX`] cannot be said of memory and are cut to it.
    #[must_use]
    pub fn encode(self) -> SglDescriptor {
        match self {
            Self::InCapsule { offset, length } => SglDescriptor {
                address: U64::new(offset),
                length: U32::new(length),
                reserved: [0; 3],
                identifier: SglDescriptor::IN_CAPSULE,
            },
            Self::Remote(remote) => {
                let [first, low, middle, high] = remote.key.to_le_bytes();
                let length = remote.length.min(LENGTH_MAX);
                SglDescriptor {
                    address: U64::new(remote.address),
                    length: U32::new(length | u32::from(first) << 24),
                    reserved: [low, middle, high],
                    identifier: if remote.invalidate {
                        KEYED_INVALIDATE
                    } else {
                        KEYED
                    },
                }
            }
        }
    }

    /// Bytes that the descriptor stands for.
    #[must_use]
    pub fn length(self) -> u32 {
        match self {
            Self::InCapsule { length, .. } => length,
            Self::Remote(remote) => remote.length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::{FromBytes, IntoBytes};

    #[test]
    fn golden_bytes() {
        let remote = Remote {
            address: 0x1122_3344_5566_7788,
            key: 0xdead_beef,
            length: 0x0a_0b0c,
            invalidate: true,
        };
        let bytes = [
            0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x0c, 0x0b, 0x0a, 0xef, 0xbe, 0xad,
            0xde, 0x4f,
        ];
        let pointer = DataPointer::Remote(remote);
        assert_eq!(pointer.encode().as_bytes(), bytes);
        let read = SglDescriptor::read_from_bytes(&bytes).unwrap();
        assert_eq!(DataPointer::parse(&read), Ok(pointer));
        assert_eq!(remote.key_to_invalidate(), Some(0xdead_beef));
    }

    #[test]
    fn what_is_no_pointer_of_this_transport() {
        for identifier in [0x5a, 0x02, 0x10, 0x41, 0x4a, 0x50, 0xff] {
            let sgl = SglDescriptor {
                identifier,
                ..DataPointer::Remote(Remote::NONE).encode()
            };
            assert_eq!(DataPointer::parse(&sgl), Err(Status::SGL_TYPE_INVALID));
        }
        let zeros = SglDescriptor::read_from_bytes(&[0; 16]).unwrap();
        assert_eq!(DataPointer::parse(&zeros).unwrap().length(), 0);
    }

    proptest! {
        #[test]
        fn pointers_survive(address: u64, key: u32, length in 0..=LENGTH_MAX, invalidate: bool, offset: u64, inner: u32) {
            let remote = DataPointer::Remote(Remote { address, key, length, invalidate });
            prop_assert_eq!(DataPointer::parse(&remote.encode()), Ok(remote));
            let capsule = DataPointer::InCapsule { offset, length: inner };
            prop_assert_eq!(DataPointer::parse(&capsule.encode()), Ok(capsule));
        }
    }
}
