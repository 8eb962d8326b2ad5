//! Good and bad files, with the exact words that a user sees.

use super::*;

const GOOD: &str = "\
reactors: 2
portals:
  - address: 127.0.0.1
drives:
  - name: fast
    memory:
      size: 1GiB
  - name: big
    path: /dev/disk/by-id/x
    force: true
subsystems:
  - nqn: nqn.2026-11.io.roadstead:a
    allowAnyHost: true
    namespaces:
      - name: one
        drive: fast
        size: 512MiB
      - name: two
        uuid: 9d1c1a3e-55a4-4f9b-8d9e-3b0a4f0a7c11
        nsid: 7
        drive: big
        size: 1073741824
        blockSize: 512
      - name: old
        drive: big
        size: 1GiB
        absent: true
  - nqn: nqn.2026-11.io.roadstead:b
    allowedHosts:
      - nqn.2014-08.org.nvmexpress:uuid:1
";

#[test]
fn a_good_file() {
    let config = parse(GOOD).unwrap();
    let state = &config.state;
    assert_eq!(config.reactors, Some(2));
    assert_eq!(state.portals[0].port, 4420);
    assert_eq!(state.drives.len(), 2);
    assert!(state.drives[1].force && !state.drives[0].force);
    let names: Vec<&str> = state
        .volumes
        .iter()
        .map(|volume| volume.name.as_str())
        .collect();
    assert_eq!(names, ["one", "two", "old"]);
    assert!(state.volumes[2].absent);
    assert_eq!(state.volumes[0].size_bytes, 512 << 20);
    assert_eq!(state.volumes[1].block_size, 512);
    let nsids: Vec<u32> = state.subsystems[0]
        .namespaces
        .iter()
        .map(|n| n.nsid)
        .collect();
    assert_eq!(nsids, [1, 7]);
    assert_eq!(state.subsystems[1].allowed_hosts.len(), 1);
    assert!(desired::parse(state).is_ok());
}

#[test]
fn portals_and_discovery() {
    let text = format!(
        "{GOOD}\
discovery:
  - address: 127.0.0.1
referrals:
  - {{address: 10.0.0.9, port: 8010}}
"
    );
    let portal = "portals:
  - {address: 127.0.0.2, transport: rdma}
  - address: 127.0.0.2
    anaState: nonOptimized
    anaGroups:
      - {group: 2, state: inaccessible}
";
    let text = text.replacen("portals:\n", portal, 1).replacen(
        "drive: fast\n        size",
        "anaGroup: 2\n        drive: fast\n        size",
        1,
    );
    let state = parse(&text).unwrap().state;
    assert_eq!(state.portals[0].transport(), v1::Transport::Rdma);
    let lost = &state.portals[1];
    assert_eq!(lost.ana_state(), v1::AnaState::NonOptimized);
    let group = (lost.ana_groups[0].group, lost.ana_groups[0].state());
    assert_eq!(group, (2, v1::AnaState::Inaccessible));
    assert_eq!(state.portals[2].ana_state(), v1::AnaState::Unspecified);
    assert_eq!(state.subsystems[0].namespaces[0].ana_group, 2);
    assert_eq!(
        (state.discovery[0].port, state.referrals[0].port),
        (8009, 8010)
    );
    let desired = desired::parse(&state).unwrap();
    assert_eq!(desired.portals.len(), 4);
    assert_eq!(desired.rules.discovery_only.len(), 1);
}

#[test]
fn limits_of_controllers() {
    assert_eq!(
        parse(GOOD).unwrap().controllers,
        ControllerLimits::default()
    );
    let parsed = parse(&format!("queueEntries: 65536\nioQueues: 65535\n{GOOD}"));
    let limits = parsed.unwrap().controllers;
    assert_eq!((limits.queue_entries(), limits.io_queues()), (65536, 65535));
    let parsed = parse(&format!("ioQueues: 4\n{GOOD}"));
    let limits = parsed.unwrap().controllers;
    assert_eq!((limits.queue_entries(), limits.io_queues()), (128, 4));
}

#[test]
fn a_name_makes_the_same_uuid_for_ever() {
    assert_eq!(
        volume_uuid("nqn.2026-11.io.roadstead:example", "example").to_string(),
        "7dfc46a5-1dcf-5785-be25-21d63383abfe",
    );
}

#[test]
fn the_example_of_the_documentation_is_good() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/examples/standalone.yaml"
    );
    let config = load(Path::new(path)).unwrap();
    assert_eq!(config.reactors, Some(1));
    let subsystem = &config.state.subsystems[0];
    assert_eq!(subsystem.nqn, "nqn.2026-11.io.roadstead:example");
    assert!(subsystem.allow_any_host);
    assert_eq!(config.state.volumes[0].size_bytes, 1 << 30);
    let portal = &config.state.portals[0];
    assert_eq!((portal.address.as_str(), portal.port), ("127.0.0.1", 4420));
}

/// `GOOD` with one text replaced, and all that is then said about it.
#[test]
fn bad_files() {
    let nqn = "nqn.2026-11.io.roadstead:a";
    let unknown =
        "unknown field; known are absent, anaGroup, blockSize, drive, name, nsid, size, uuid";
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "size: 1GiB\n  - name: big",
            "size: 1Gx\n  - name: big",
            &["f.yaml:7: drives[0].memory.size: '1Gx' is not a size; write e.g. 1GiB"],
        ),
        (
            "size: 512MiB",
            "size: -1",
            &["f.yaml:17: subsystems[0].namespaces[0].size: '-1' is not a size; write e.g. 1GiB"],
        ),
        (
            "size: 512MiB",
            "size: 0",
            &[
                "f.yaml:17: subsystems[0].namespaces[0].size: '0' is no room at all; write e.g. 1GiB",
            ],
        ),
        (
            "size: 512MiB",
            "size: 1000",
            &["f.yaml:17: subsystems[0].namespaces[0].size: \
             1000 is not a multiple of the block size 4096"],
        ),
        (
            "size: 512MiB",
            "siez: 512MiB",
            &[
                "f.yaml:15: subsystems[0].namespaces[0]: field 'size' is missing",
                &format!("f.yaml:17: subsystems[0].namespaces[0].siez: {unknown}"),
            ],
        ),
        (
            "size: 512MiB",
            "size: [1GiB]",
            &["f.yaml:17: subsystems[0].namespaces[0].size: is a list, but must be a single value"],
        ),
        (
            "size: 512MiB",
            "size:",
            &[
                "f.yaml:17: subsystems[0].namespaces[0].size: has no value; write one or remove the field",
            ],
        ),
        (
            "blockSize: 512",
            "blockSize: 1024",
            &["f.yaml:23: subsystems[0].namespaces[1].blockSize: \
             1024 is not possible; write 512 or 4096"],
        ),
        (
            "name: big\n",
            "name: fast\n",
            &["f.yaml:8: drives[1].name: another drive has the name 'fast' too"],
        ),
        (
            "drive: fast",
            "drive: quick",
            &[
                "f.yaml:16: subsystems[0].namespaces[0].drive: there is no drive of the name 'quick'",
            ],
        ),
        (
            "name: two",
            "name: one",
            &[
                "f.yaml:18: subsystems[0].namespaces[1].name: another namespace has the name 'one' too",
            ],
        ),
        (
            "nsid: 7",
            "nsid: 1",
            &["f.yaml:20: subsystems[0].namespaces[1].nsid: \
             another namespace of the subsystem has 1 too"],
        ),
        (
            "nsid: 7",
            "nsid: 0",
            &["f.yaml:20: subsystems[0].namespaces[1].nsid: '0' is not a number from 1 to 1024"],
        ),
        (
            "uuid: 9d1c1a3e",
            "uuid: zz",
            &["f.yaml:19: subsystems[0].namespaces[1].uuid: \
             'zz-55a4-4f9b-8d9e-3b0a4f0a7c11' is not a UUID"],
        ),
        (
            "roadstead:b",
            "roadstead:a",
            &[&format!(
                "f.yaml:28: subsystems[1].nqn: another subsystem has the NQN '{nqn}' too"
            )],
        ),
        (
            "nqn.2026-11.io.roadstead:b",
            "example",
            &["f.yaml:28: subsystems[1].nqn: 'example' is not an NQN; \
             write e.g. nqn.2026-11.io.roadstead:example, at most 223 bytes"],
        ),
        (
            "allowAnyHost: true",
            "serial: abc",
            &["f.yaml:12: subsystems[0]: one of allowAnyHost, allowedHosts is missing"],
        ),
        (
            "allowedHosts:",
            "allowAnyHost: true\n    allowedHosts:",
            &["f.yaml:28: subsystems[1]: 'allowAnyHost' and 'allowedHosts' exclude each other"],
        ),
        (
            "allowAnyHost: true",
            "allowAnyHost: yes",
            &["f.yaml:13: subsystems[0].allowAnyHost: 'yes' is neither true nor false"],
        ),
        (
            "path: /dev/disk/by-id/x",
            "path: sdb",
            &["f.yaml:9: drives[1].path: 'sdb' is not an absolute path"],
        ),
        (
            "path: /dev/disk/by-id/x",
            "serial: 1\n    model: 2",
            &["f.yaml:8: drives[1]: 'serial' and 'model' exclude each other"],
        ),
        (
            "    path: /dev/disk/by-id/x\n",
            "",
            &["f.yaml:8: drives[1]: one of path, serial, model, file, memory is missing"],
        ),
        (
            "path: /dev/disk/by-id/x",
            "file:\n      path: /f",
            &["f.yaml:10: drives[1].file: field 'size' is missing"],
        ),
        (
            "address: 127.0.0.1",
            "address: localhost",
            &[
                "f.yaml:3: portals[0].address: 'localhost' is not an IP address; \
             0.0.0.0 and :: listen on all",
            ],
        ),
        (
            "address: 127.0.0.1",
            "address: 127.0.0.1\n    port: 99999",
            &["f.yaml:4: portals[0].port: '99999' is not a number from 1 to 65535"],
        ),
        (
            "address: 127.0.0.1",
            "address: 127.0.0.1\n  - address: 127.0.0.1",
            &["f.yaml:4: portals[1].address: 127.0.0.1:4420 is given twice"],
        ),
        (
            "reactors: 2",
            "reactors: none",
            &["f.yaml:1: reactors: 'none' is not a number from 1 to 64"],
        ),
        (
            "  - address: 127.0.0.1",
            "  - address: 127.0.0.1\n    anaState: lost",
            &[
                "f.yaml:4: portals[0].anaState: 'lost' is not an ANA state: optimized, nonOptimized, \
                 inaccessible, persistentLoss or change",
            ],
        ),
        (
            "  - address: 127.0.0.1",
            "  - address: 127.0.0.1\n    anaGroups: [{group: 1, state: change}, {group: 1, state: change}]",
            &["f.yaml:4: portals[0].anaGroups: group 1 is there twice"],
        ),
        (
            "reactors: 2",
            "queueEntries: 31\nioQueues: 65536",
            &[
                "f.yaml:1: queueEntries: 31 entries of a queue are not possible; write a number from 32 to 65536",
                "f.yaml:2: ioQueues: '65536' is not a number from 1 to 65535",
            ],
        ),
        (
            "reactors: 2",
            "reactors: 2\ndiscovery: [{address: 127.0.0.1, port: 4420}]",
            &["f.yaml:2: discovery[0].address: 127.0.0.1:4420 is given twice"],
        ),
        (
            "reactors: 2",
            "reactors: 2\nreactors: 3",
            &["f.yaml:2: reactors: given twice; the first is on line 1"],
        ),
        (
            "reactors: 2",
            "reactor: 2\nsocket: here",
            &[
                "f.yaml:1: reactor: unknown field; known are discovery, drives, hostNqn, ioQueues, mdns, metricsListen, \
             portals, queueEntries, reactors, referrals, socket, stateDir, subsystems",
                "f.yaml:2: socket: 'here' is not an absolute path",
            ],
        ),
        (
            "reactors: 2",
            "metricsListen: 7421",
            &["f.yaml:1: metricsListen: '7421' is not ADDRESS:PORT; write e.g. 127.0.0.1:7421"],
        ),
        ("reactors: 2", "reactors: *x", &["f.yaml:1: not YAML: "]),
        (
            "reactors: 2",
            "reactors: &x 2",
            &["f.yaml:1: reactors: anchors, aliases and tags are not understood"],
        ),
        (
            "reactors: 2",
            "reactors: 2\n---\nmore: 1\n---",
            &["f.yaml:3: a second document"],
        ),
        ("    memory:\n", "   memory:\n", &["f.yaml:6: not YAML: "]),
    ];
    for (from, to, expected) in cases {
        assert!(GOOD.contains(from), "{from}");
        let mistakes = parse(&GOOD.replacen(from, to, 1)).expect_err(to);
        let shown = ConfigError::Mistakes {
            file: "f.yaml".into(),
            mistakes,
        }
        .to_string();
        let lines: Vec<&str> = shown.lines().collect();
        let same = lines.len() == expected.len()
            && lines
                .iter()
                .zip(*expected)
                .all(|(line, start)| line.starts_with(start));
        assert!(same, "{from:?} -> {to:?}:\n{shown}");
    }
}

#[test]
fn a_machine_may_serve_nothing_if_the_file_says_so() {
    let config = parse("portals: []\ndrives: []").unwrap();
    assert!(config.state.portals.is_empty() && config.state.drives.is_empty());
}

#[test]
fn an_empty_file_lacks_what_is_required() {
    let shown = ConfigError::Mistakes {
        file: "f".into(),
        mistakes: parse("").unwrap_err(),
    };
    assert_eq!(
        shown.to_string(),
        "f:1: field 'drives' is missing\nf:1: field 'portals' is missing"
    );
}

#[test]
fn no_text_makes_the_parser_panic() {
    use proptest::prelude::*;
    proptest!(|(text in "[a-z0-9:\\-\\[\\]{}&*!|>'\" \n#]{0,200}")| {
        let _ = parse(&text);
    });
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("1", 1),
        ("4096", 4096),
        ("1KiB", 1024),
        ("2 GiB", 2 << 30),
        ("1Gi", 1 << 30),
        ("5MB", 5_000_000),
    ] {
        assert_eq!(size_bytes(text), Ok(bytes), "{text}");
    }
    for text in [
        "",
        "GiB",
        "1.5GiB",
        "1GiB2",
        "99999999999TiB",
        "0x10",
        "1 G",
        "0GiB",
    ] {
        assert!(size_bytes(text).is_err(), "{text}");
    }
}
