//! Pieces of the schemas that schemars would not write the way Kubernetes wants them.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A number of bytes. (schemars' own `uint64` is a format that the API server does not know.)
pub(crate) fn bytes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "minimum": 0})
}

/// A TCP port.
pub(crate) fn port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535})
}

/// A transport in NVMe's words.
pub(crate) fn wire_transport(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 8, "enum": ["tcp", "rdma"]})
}

/// An RDMA MTU in bytes; the active MTU of a port is a power of two.
pub(crate) fn rdma_mtu(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 256, "maximum": 4096})
}

/// A part of a million.
pub(crate) fn ppm(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 1_000_000})
}

/// A number of seconds, up to a day.
pub(crate) fn seconds(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 86400})
}

/// A small number that was counted or measured.
pub(crate) fn count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "minimum": 0})
}

/// A namespace identifier.
pub(crate) fn nsid(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "minimum": 1, "maximum": 4_294_967_294_u32})
}

/// A block size in bytes.
pub(crate) fn block_size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "enum": [512, 4096]})
}
