//! Socket addresses as the connection manager has them.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

/// A socket address in C's layout.
pub(crate) union Raw {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Raw {
    pub(crate) fn new(address: SocketAddr) -> Self {
        // Both families have constants of one byte, and the types of C's fields hold them.
        match address {
            SocketAddr::V4(v4) => Self {
                v4: libc::sockaddr_in {
                    sin_family: u16::try_from(libc::AF_INET).unwrap_or(0),
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(v4.ip().octets()),
                    },
                    sin_zero: [0; 8],
                },
            },
            SocketAddr::V6(v6) => Self {
                v6: libc::sockaddr_in6 {
                    sin6_family: u16::try_from(libc::AF_INET6).unwrap_or(0),
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: v6.ip().octets(),
                    },
                    sin6_scope_id: v6.scope_id(),
                },
            },
        }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        std::ptr::from_mut(self).cast()
    }
}

/// Reads an address of either family; `None` for others.
///
/// # Safety
/// `storage` points to a whole `sockaddr_in` or `sockaddr_in6`, as its family says.
pub(crate) unsafe fn read(storage: *const libc::sockaddr) -> Option<SocketAddr> {
    // SAFETY: passed on: at least the family is there.
    let family = unsafe { (*storage).sa_family };
    if libc::c_int::from(family) == libc::AF_INET {
        // SAFETY: passed on: the family says that it is this structure.
        let v4 = unsafe { storage.cast::<libc::sockaddr_in>().read_unaligned() };
        let ip = v4.sin_addr.s_addr.to_ne_bytes().into();
        Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
    } else if libc::c_int::from(family) == libc::AF_INET6 {
        // SAFETY: as above.
        let v6 = unsafe { storage.cast::<libc::sockaddr_in6>().read_unaligned() };
        let (port, scope) = (u16::from_be(v6.sin6_port), v6.sin6_scope_id);
        Some(SocketAddrV6::new(v6.sin6_addr.s6_addr.into(), port, v6.sin6_flowinfo, scope).into())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive() {
        for text in ["192.0.2.1:4420", "[2001:db8::1]:4420", "[fe80::1%3]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut raw = Raw::new(address);
            // SAFETY: it was just made with a family that says what it is.
            assert_eq!(unsafe { read(raw.as_mut_ptr()) }, Some(address));
        }
    }
}
