//! A host that begins as it should and then does anything.

pub(crate) mod end;

use std::sync::Arc;

use roadstead_nvme::Sqe;
use roadstead_nvme::command::{Blocks, IoCommand};
use roadstead_target::Registry;
use roadstead_tcp::Pdu;
use roadstead_tcp::pdu::H2cData;
use zerocopy::FromBytes;

use crate::Input;
use end::{End, Mode, table};

/// Commands, data and noise on a connection that is fresh, initialised, an admin queue or an I/O queue.
pub fn target_connection(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mode = Mode::new(input.u8());
    let registry = Arc::new(Registry::new());
    registry.apply(table(true, true, 64));
    let mut admin = End::new(&registry, mode);
    let (mut io, is_io);
    match input.u8() % 4 {
        0 => (io, is_io) = (None, false),
        1 => {
            admin.initialise();
            (io, is_io) = (None, false);
        }
        2 => {
            admin.initialise();
            admin.connect_admin();
            (io, is_io) = (None, false);
        }
        _ => {
            admin.initialise();
            admin.connect_admin();
            let mut end = End::new(&registry, mode);
            end.initialise();
            end.connect_io();
            (io, is_io) = (Some(end), true);
        }
    }
    let end = if is_io {
        io.as_mut().unwrap_or(&mut admin)
    } else {
        &mut admin
    };
    while !input.is_empty() && end.is_open() {
        step(end, &registry, &mut input);
    }
    end.hear();
}

fn step(end: &mut End, registry: &Registry, input: &mut Input<'_>) {
    match input.u8() % 10 {
        0 => {
            let count = usize::from(input.u8());
            end.feed(input.take(count));
        }
        1 | 2 => io_command(end, input),
        3 => {
            // Any command, with data that may be what it says.
            let Ok(sqe) = Sqe::read_from_bytes(&input.array::<64>()) else {
                return;
            };
            let count = usize::from(input.u8()) * 16;
            end.capsule(sqe, input.take(count).to_vec());
        }
        4 => host_data(end, input),
        5 | 6 => end.finish(input.u8()),
        7 => end.hear(),
        8 => end.tick(u64::from(input.u16())),
        _ => {
            let [what, more] = input.array();
            registry.apply(table(what & 1 == 0, what & 2 == 0, 64 + u64::from(more)));
            end.tick(0);
        }
    }
}

/// A command as a good host sends it, but for its numbers.
fn io_command(end: &mut End, input: &mut Input<'_>) {
    let [kind, start, count, nsid] = input.array();
    let blocks = Blocks {
        start: u64::from(start),
        count: u32::from(count) + 1,
    };
    let nsid = u32::from(nsid % 4 != 3);
    let fua = kind & 0x10 != 0;
    let length = usize::try_from(blocks.count).unwrap_or(0) * 512;
    let cid = end.next_cid();
    let command = match kind % 6 {
        0 | 1 => IoCommand::Read { nsid, blocks, fua },
        2 | 3 => IoCommand::Write { nsid, blocks, fua },
        4 => IoCommand::WriteZeroes {
            nsid,
            blocks,
            fua,
            all: false,
            deallocate: true,
        },
        _ => IoCommand::Flush { nsid },
    };
    match command {
        IoCommand::Read { .. } => end.command(command.encode(cid), length),
        IoCommand::Write { .. } if kind & 0x20 != 0 => {
            end.capsule_of(command.encode(cid), vec![kind; length])
        }
        IoCommand::Write { .. } => end.command(command.encode(cid), length),
        _ => end.command(command.encode(cid), 0),
    }
}

/// Data that was asked for, or nearly.
fn host_data(end: &mut End, input: &mut Input<'_>) {
    let [mode, a, b] = input.array();
    let Some(asked) = end.asked(mode) else {
        return;
    };
    let (cid, tag, offset, length) = asked;
    let mut data = H2cData {
        cid,
        tag,
        offset,
        length,
        last: true,
    };
    match mode >> 4 {
        0..9 => {}
        9 | 10 => {
            // A part.
            data.length = (u32::from(a) * 4).min(length);
            data.last = data.length == length;
        }
        11 => data.offset = u32::from(a) * 256,
        12 => data.length = u32::from(b) * 512,
        13 => data.tag = u16::from(a),
        14 => data.cid = u16::from(a),
        _ => data.last = false,
    }
    let bytes = vec![b; usize::try_from(data.length).unwrap_or(0)];
    end.sent_data(mode, data.length);
    end.pdu(&Pdu::H2cData(data), &bytes);
}
