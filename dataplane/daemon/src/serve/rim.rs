//! What the target's core gets from this reactor: buffers, immediate I/O on memory drives, and the way out.

use std::collections::HashMap;
use std::rc::Rc;

use roadstead_pool::{InFlight, LookupError};
use roadstead_ring::{BufPool, IoBuf, Lender, SharedMemory};
use roadstead_target::{IoError, IoRequest, IoResult, Rim, Tag, VolumeKey, tcp};

use super::drives::{Namespace, Path};

/// Longest read that is copied into the output at once; longer ones take a buffer, which is not copied again
/// when the output grows.
const READ_NOW_MAX: u32 = 32 * 1024;

/// An I/O that the core has handed out.
pub(super) struct Submitted {
    pub(super) tag: Tag,
    pub(super) request: IoRequest,
    pub(super) buf: Option<IoBuf>,
}

/// The data of a command.
pub(super) enum Data {
    /// In a buffer.
    Buffer(IoBuf),
    /// Where it lies on a memory drive. Good for sending alone, so it has no bytes for the core.
    Lent(Lent),
}

impl Data {
    pub(super) fn into_buffer(self) -> Option<IoBuf> {
        match self {
            Self::Buffer(buf) => Some(buf),
            Self::Lent(_) => None,
        }
    }
}

impl AsRef<[u8]> for Data {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Buffer(buf) => buf,
            Self::Lent(_) => &[],
        }
    }
}

impl AsMut<[u8]> for Data {
    fn as_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Buffer(buf) => buf,
            Self::Lent(_) => &mut [],
        }
    }
}

/// A range of a memory drive, and the I/O that keeps it from being given to others.
pub(super) struct Lent {
    namespace: Rc<Namespace>,
    offset_bytes: u64,
    in_flight: Option<InFlight>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(in_flight) = self.in_flight.take() {
            self.namespace.lender.end(in_flight);
        }
    }
}

impl Lender for Namespace {
    fn memory(&self) -> Option<&SharedMemory> {
        match &self.drive.path {
            Path::Memory(memory) => Some(memory),
            Path::File { .. } => None,
        }
    }

    fn returned(&self, receipt: u8) {
        self.lender.end_by_receipt(receipt);
    }
}

/// The storage side.
pub(super) struct Storage {
    pool: BufPool,
    namespaces: HashMap<VolumeKey, Rc<Namespace>>,
    /// The namespace of the last I/O: the next is often for the same.
    last: Option<(VolumeKey, Rc<Namespace>)>,
    /// What was handed out in this call, to be started after it.
    pub(super) submitted: Vec<Submitted>,
    /// Something was read or written since this was last cleared.
    pub(super) did_io: bool,
}

impl Storage {
    pub(super) fn new(pool: BufPool) -> Self {
        Self {
            pool,
            namespaces: HashMap::new(),
            last: None,
            submitted: Vec::new(),
            did_io: false,
        }
    }

    /// Replaces what is served.
    pub(super) fn set(&mut self, namespaces: HashMap<VolumeKey, Rc<Namespace>>) {
        self.namespaces = namespaces;
        self.last = None;
    }

    /// The namespaces in use.
    pub(super) fn namespaces(&self) -> &HashMap<VolumeKey, Rc<Namespace>> {
        &self.namespaces
    }

    pub(super) fn find(&mut self, volume: VolumeKey) -> Option<&Rc<Namespace>> {
        if self.last.as_ref().is_none_or(|(key, _)| *key != volume) {
            let found = self.namespaces.get(&volume)?;
            self.last = Some((volume, Rc::clone(found)));
        }
        self.last.as_ref().map(|(_, namespace)| namespace)
    }
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn gone(_: LookupError) -> IoError {
    IoError::Gone
}

/// `None` while another I/O has the volume for itself.
fn read(
    namespace: &Namespace,
    memory: &SharedMemory,
    request: &IoRequest,
    into: &mut [u8],
) -> Option<IoResult> {
    let reader = &namespace.reader;
    let in_flight = reader.begin();
    let segments = reader.lookup(&in_flight, request.offset, u64::from(request.length));
    let is_busy = matches!(segments, Err(LookupError::Busy));
    let result = segments.map_err(gone).and_then(|mut segments| {
        segments.try_for_each(|segment| {
            let start = index(segment.offset - request.offset);
            let bytes = into
                .get_mut(start..start + index(segment.len))
                .ok_or(IoError::Unavailable)?;
            match segment.drive_offset {
                Some(offset) => memory.read(offset, bytes).map_err(|_| IoError::Read),
                None => {
                    bytes.fill(0);
                    Ok(())
                }
            }
        })
    });
    reader.end(in_flight);
    (!is_busy).then_some(result)
}

/// `None` when the range is not in one place, or while another I/O has the volume for itself.
fn lend(namespace: &Rc<Namespace>, request: &IoRequest) -> Option<Lent> {
    let in_flight = namespace.lender.begin();
    let length = u64::from(request.length);
    let segments = namespace.lender.lookup(&in_flight, request.offset, length);
    let first = segments.ok().and_then(|mut segments| segments.next());
    let whole = first.filter(|segment| segment.len == length);
    let place = whole.and_then(|segment| segment.drive_offset);
    // Made in any case: its drop counts the I/O out.
    let lent = Lent {
        namespace: Rc::clone(namespace),
        offset_bytes: place.unwrap_or(0),
        in_flight: Some(in_flight),
    };
    place.map(|_| lent)
}

/// `None` when something has no place yet, or while another I/O has the volume for itself.
fn write(
    namespace: &Namespace,
    memory: &SharedMemory,
    request: &IoRequest,
    data: &[u8],
) -> Option<IoResult> {
    let reader = &namespace.reader;
    if reader.volume().fault().is_some() {
        return Some(Err(IoError::Unavailable));
    }
    let in_flight = reader.begin();
    let segments = reader.lookup(&in_flight, request.offset, u64::from(request.length));
    let result = match segments {
        Err(LookupError::Busy) => None,
        Err(error) => Some(Err(gone(error))),
        Ok(segments)
            if segments
                .clone()
                .any(|segment| segment.drive_offset.is_none()) =>
        {
            None
        }
        Ok(mut segments) => Some(segments.try_for_each(|segment| {
            let start = index(segment.offset - request.offset);
            let bytes = data
                .get(start..start + index(segment.len))
                .ok_or(IoError::Unavailable)?;
            let offset = segment.drive_offset.ok_or(IoError::Unavailable)?;
            memory.write(offset, bytes).map_err(|_| IoError::Write)
        })),
    };
    reader.end(in_flight);
    if request.fua && result == Some(Ok(())) {
        let handle = &namespace.drive.handle;
        handle.synced(handle.sync_ticket());
    }
    result
}

fn count(namespace: &Namespace, result: IoResult, good: impl FnOnce(&super::counters::Counters)) {
    match result {
        Ok(()) => namespace.count(good),
        Err(_) => namespace.count(super::counters::Counters::failed),
    }
}

impl Rim for Storage {
    type Buffer = Data;

    fn allocate(&mut self, length_bytes: usize) -> Option<Data> {
        self.pool.alloc(length_bytes).map(Data::Buffer)
    }

    fn lend(&mut self, request: &IoRequest) -> Option<Data> {
        self.did_io = true;
        let namespace = self.find(request.volume)?;
        let memory = namespace.memory()?;
        let lent = lend(namespace, request)?;
        memory.expect_read(lent.offset_bytes, index(u64::from(request.length)));
        namespace.count(|counters| counters.read(u64::from(request.length)));
        Some(Data::Lent(lent))
    }

    fn is_immediate(&self, volume: VolumeKey) -> bool {
        let is_memory = |namespace: &Rc<Namespace>| namespace.memory().is_some();
        match &self.last {
            Some((key, namespace)) if *key == volume => is_memory(namespace),
            _ => self.namespaces.get(&volume).is_some_and(is_memory),
        }
    }

    fn reads_now(&self, request: &IoRequest) -> bool {
        request.length <= READ_NOW_MAX && self.is_immediate(request.volume)
    }

    fn read_now(&mut self, request: &IoRequest, into: &mut [u8]) -> Option<IoResult> {
        self.did_io = true;
        let namespace = self.find(request.volume)?;
        let memory = namespace.memory()?;
        let result = read(namespace, memory, request, into)?;
        count(namespace, result, |counters| {
            counters.read(u64::from(request.length))
        });
        Some(result)
    }

    fn write_now(&mut self, request: &IoRequest, data: &[u8]) -> Option<IoResult> {
        self.did_io = true;
        let namespace = self.find(request.volume)?;
        let memory = namespace.memory()?;
        let result = write(namespace, memory, request, data)?;
        count(namespace, result, |counters| {
            counters.wrote(u64::from(request.length))
        });
        Some(result)
    }

    fn submit(&mut self, tag: Tag, request: IoRequest, buffer: Option<Data>) {
        self.did_io = true;
        let buf = buffer.and_then(Data::into_buffer);
        self.submitted.push(Submitted { tag, request, buf });
    }
}

/// The way to one connection's socket.
pub(super) struct Port<'a> {
    pub(super) output: &'a mut roadstead_ring::Output,
    /// Bytes on their way already.
    pub(super) flying: usize,
}

impl tcp::Output<Data> for Port<'_> {
    fn pending(&self) -> usize {
        self.flying + self.output.len()
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.output.put(bytes);
    }

    fn area(&mut self, length: usize) -> &mut [u8] {
        self.output.area(length)
    }

    fn retract(&mut self, length: usize) {
        self.output.retract(length);
    }

    fn buffer(&mut self, buffer: Data, length: usize) {
        let mut lent = match buffer {
            Data::Buffer(buf) => return self.output.put_buf(buf, 0, length),
            Data::Lent(lent) => lent,
        };
        if let Some(in_flight) = lent.in_flight.take() {
            let (lender, receipt) = (Rc::clone(&lent.namespace), in_flight.into_receipt());
            // A volume lies within its drive; should it not, the host gets less than was announced, and notices.
            let _ = self
                .output
                .put_lent(lender, lent.offset_bytes, length, receipt);
        }
    }
}
