//! A program with RDMA starts on a machine without its libraries.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails"
)]

use roadstead_verbs::{VerbsError, available};

/// Names of files that the loader wants before the program starts, as the program's own file says: the strings of its
/// dynamic section's entries of kind "needed".
fn needed() -> Vec<String> {
    let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let word = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
    let half = |at: usize| usize::from(u16::from_le_bytes(file[at..at + 2].try_into().unwrap()));
    assert_eq!(file[..6], *b"\x7fELF\x02\x01", "64 bits, little endian");
    let (table, size, count) = (word(32), half(54), half(56));
    let kind = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let headers: Vec<usize> = (0..count).map(|n| table + n * size).collect();
    // From an address in memory to a place in the file.
    let place = |address: usize| {
        let load = headers.iter().find(|&&at| {
            kind(at) == 1 && (word(at + 16)..word(at + 16) + word(at + 32)).contains(&address)
        });
        load.map(|at| address - word(at + 16) + word(at + 8))
            .unwrap()
    };
    let dynamic = *headers.iter().find(|&&at| kind(at) == 2).unwrap();
    let entries = (word(dynamic + 8)..word(dynamic + 8) + word(dynamic + 32)).step_by(16);
    let entries: Vec<_> = entries.map(|at| (word(at), word(at + 8))).collect();
    let strings = entries.iter().find(|(tag, _)| *tag == 5).unwrap().1;
    let name = |&(_, offset): &(usize, usize)| {
        let text = &file[place(strings) + offset..];
        let end = text.iter().position(|byte| *byte == 0).unwrap();
        String::from_utf8(text[..end].to_vec()).unwrap()
    };
    entries
        .iter()
        .filter(|(tag, _)| *tag == 1)
        .map(name)
        .collect()
}

#[test]
fn the_program_does_not_need_the_libraries_to_start() {
    // It uses them, or the linker would have left them out anyway.
    let _ = available();
    let needed = needed();
    assert!(needed.iter().any(|name| name.starts_with("libc.so")));
    for name in ["ibverbs", "rdmacm"] {
        let found = needed.iter().find(|needed| needed.contains(name));
        assert_eq!(found, None, "in {needed:?}");
    }
}

#[test]
fn a_missing_library_is_named_with_what_to_install() {
    let error = VerbsError::NoLibrary {
        library: "librdmacm.so.1",
        why: "cannot open shared object file".to_owned(),
    };
    let text = error.to_string();
    assert!(
        text.contains("librdmacm.so.1") && text.contains("librdmacm1"),
        "{text}"
    );
    // What this machine has says the same thing, or nothing.
    println!("here: {:?}", available().map_err(|error| error.to_string()));
    match available() {
        Ok(()) | Err(VerbsError::NoLibrary { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}
