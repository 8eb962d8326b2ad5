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

/// A namespace identifier.
pub(crate) fn nsid(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "minimum": 1, "maximum": 4_294_967_294_u32})
}

/// A block size in bytes.
pub(crate) fn block_size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int32", "enum": [512, 4096]})
}
