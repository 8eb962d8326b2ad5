//! What connections work on.

use std::time::Instant;

use roadstead_host::Host;

use crate::buffers::Buffers;
use crate::spec::Spec;

/// What a connection works on.
pub(crate) struct Surroundings<'a> {
    pub(crate) host: &'a mut Host,
    pub(crate) buffers: &'a mut Buffers,
    pub(crate) spec: &'a Spec,
    pub(crate) now: Instant,
}
