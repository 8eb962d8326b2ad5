//! The words of transport policy: closed sets, parsed once where text comes in.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A word that is not in its set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{word}' is no {what}; known are: {known}")]
pub struct UnknownWord {
    /// As given.
    pub word: String,
    /// What it should have been.
    pub what: &'static str,
    /// The whole set.
    pub known: String,
}

/// A closed set of words as an enum, with its schema.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident: $what:literal { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant),+
        }

        impl $name {
            /// Every word, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word as it is written.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                let found = Self::ALL.iter().find(|known| known.word() == word);
                found.copied().ok_or_else(|| UnknownWord {
                    word: word.into(),
                    what: $what,
                    known: [$($word),+].join(", "),
                })
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "maxLength": 32, "enum": [$($word),+]})
            }
        }
    };
}

words! {
    /// Which transport a volume asks for.
    #[derive(Default)]
    TransportChoice: "transport" {
        /// The policy decides.
        #[default]
        Auto = "auto",
        /// NVMe/TCP and nothing else.
        Tcp = "tcp",
        /// RoCE; without `fallback: tcp` nothing else.
        Roce = "roce",
    }
}

words! {
    /// What is taken where nothing fits.
    Fallback: "fallback" {
        /// NVMe/TCP, with the reason on the attachment.
        Tcp = "tcp",
        /// Nothing: the attachment waits and says why.
        None = "none",
    }
}

words! {
    /// What kind of application uses the volume.
    #[derive(Default)]
    Workload: "workload" {
        /// Anything.
        #[default]
        General = "general",
        /// Much data, moderate speed.
        Capacity = "capacity",
        /// Many operations and much throughput.
        HighPerformance = "high-performance",
        /// Each operation is waited for.
        LowLatency = "low-latency",
    }
}

words! {
    /// A row of the policy's table.
    Need: "need" {
        /// No driver and no network card but the usual ones.
        StandardDriverAndNic = "standard-driver-and-nic",
        /// Host and target are cabled to each other, without a switch.
        DirectConnect = "direct-connect",
        /// The latency of a local NVMe SSD.
        LatencyAsLocalSsd = "latency-as-local-ssd",
        /// As little CPU time as possible.
        MinimiseCpuLoad = "minimise-cpu-load",
        /// It takes the place of iSCSI.
        ReplacesIscsi = "replaces-iscsi",
        /// It takes the place of InfiniBand.
        ReplacesInfiniband = "replaces-infiniband",
        /// It is an alternative to Fibre Channel.
        AlternativeToFc = "alternative-to-fc",
    }
}

words! {
    /// How a volume reaches a node.
    TransportKind: "transport" {
        /// Without the network: the node's own daemon serves it.
        Local = "local",
        /// NVMe/TCP.
        Tcp = "tcp",
        /// NVMe over RDMA on Ethernet.
        Roce = "roce",
    }
}

words! {
    /// A transport of the network.
    NetworkTransport: "transport" {
        /// NVMe/TCP.
        Tcp = "tcp",
        /// NVMe over RDMA on Ethernet.
        Roce = "roce",
    }
}

impl TransportKind {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Tcp => "TCP",
            Self::Roce => "RoCE",
        }
    }
}

impl Need {
    /// For people: the row as the table has it.
    pub fn title(self) -> &'static str {
        match self {
            Self::StandardDriverAndNic => "standard driver and NIC",
            Self::DirectConnect => "direct connect",
            Self::LatencyAsLocalSsd => "latency as a local NVMe SSD",
            Self::MinimiseCpuLoad => "minimise CPU load",
            Self::ReplacesIscsi => "replaces iSCSI",
            Self::ReplacesInfiniband => "replaces InfiniBand",
            Self::AlternativeToFc => "alternative to FC",
        }
    }
}

impl From<NetworkTransport> for TransportKind {
    fn from(transport: NetworkTransport) -> Self {
        match transport {
            NetworkTransport::Tcp => Self::Tcp,
            NetworkTransport::Roce => Self::Roce,
        }
    }
}
