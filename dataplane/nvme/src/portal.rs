//! Where a subsystem port is: a transport and an address.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::str::FromStr;

/// How NVMe over Fabrics is carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// NVMe/TCP.
    #[default]
    Tcp,
    /// NVMe/RDMA, over RoCE.
    Rdma,
    /// Within a process, which is host and target: NVMe/TCP's PDUs without a network.
    Local,
}

impl Transport {
    /// The name that hosts know it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Rdma => "rdma",
            Self::Local => "local",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A port of a subsystem. The same address may be one on each network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Portal {
    /// The transport.
    pub transport: Transport,
    /// The address; unspecified, with port 0, for [`Self::LOCAL`].
    pub address: SocketAddr,
}

impl Portal {
    /// The way within the process. No other process reaches it, so no log lists it.
    pub const LOCAL: Self = Self {
        transport: Transport::Local,
        address: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    };

    /// An NVMe/TCP portal.
    #[must_use]
    pub fn tcp(address: SocketAddr) -> Self {
        Self {
            transport: Transport::Tcp,
            address,
        }
    }

    /// An NVMe/RDMA portal.
    #[must_use]
    pub fn rdma(address: SocketAddr) -> Self {
        Self {
            transport: Transport::Rdma,
            address,
        }
    }

    /// This transport at another address.
    #[must_use]
    pub fn at(self, address: SocketAddr) -> Self {
        Self { address, ..self }
    }
}

/// Over TCP.
impl From<SocketAddr> for Portal {
    fn from(address: SocketAddr) -> Self {
        Self::tcp(address)
    }
}

/// `192.0.2.1:4420` for TCP and `rdma:192.0.2.1:4420`, as [`FromStr`] reads them; `local`, which is no address to read.
impl fmt::Display for Portal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport {
            Transport::Tcp => self.address.fmt(f),
            Transport::Rdma => write!(f, "rdma:{}", self.address),
            Transport::Local => f.write_str(Transport::Local.name()),
        }
    }
}

/// What is no portal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoPortal;

impl fmt::Display for NoPortal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write ADDRESS:PORT for TCP or rdma:ADDRESS:PORT, an IPv6 address in []")
    }
}

impl core::error::Error for NoPortal {}

impl FromStr for Portal {
    type Err = NoPortal;

    fn from_str(text: &str) -> Result<Self, NoPortal> {
        let (transport, address) = match text.split_once(':') {
            Some(("tcp", rest)) => (Transport::Tcp, rest),
            Some(("rdma", rest)) => (Transport::Rdma, rest),
            _ => (Transport::Tcp, text),
        };
        let address = address.parse().map_err(|_| NoPortal)?;
        Ok(Self { transport, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portals_as_text() {
        for (text, transport, shown) in [
            ("192.0.2.1:4420", Transport::Tcp, "192.0.2.1:4420"),
            ("tcp:192.0.2.1:4420", Transport::Tcp, "192.0.2.1:4420"),
            (
                "rdma:192.0.2.1:4420",
                Transport::Rdma,
                "rdma:192.0.2.1:4420",
            ),
            (
                "rdma:[2001:db8::1]:4420",
                Transport::Rdma,
                "rdma:[2001:db8::1]:4420",
            ),
            ("[2001:db8::1]:4420", Transport::Tcp, "[2001:db8::1]:4420"),
        ] {
            let portal: Portal = text.parse().unwrap();
            assert_eq!(
                (portal.transport, portal.to_string()),
                (transport, shown.into())
            );
        }
        for text in [
            "",
            "rdma",
            "roce:192.0.2.1:4420",
            "192.0.2.1",
            "rdma:host:4420",
            "local",
        ] {
            assert_eq!(text.parse::<Portal>(), Err(NoPortal), "{text}");
        }
        assert_eq!(Portal::LOCAL.to_string(), "local");
    }
}
