//! The life of a volume's host in one test: connect, identify, write, read back; in every mode of the transport.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;

use common::{BLOCK, BLOCKS, HOST, Host, Options, SUBSYSTEM, registry};
use roadstead_nvme::identify::{IdentifyController, IdentifyNamespace, NamespaceDescriptor, cns};
use roadstead_nvme::property;
use roadstead_nvme::{AdminCommand, FabricsCommand, Status, name};
use zerocopy::FromBytes;

fn life(options: Options) {
    let registry = registry();
    let (mut admin, mut io) = Host::pair(&registry, options);

    let ready = admin.fabrics(FabricsCommand::PropertyGet {
        offset: property::CSTS,
        wide: false,
    });
    assert!(property::Status(u32::try_from(ready.result).unwrap()).is_ready());

    let done = admin.run_admin(AdminCommand::Identify {
        cns: cns::CONTROLLER,
        cntlid: 0,
        nsid: 0,
        command_set: 0,
    });
    let controller = IdentifyController::read_from_bytes(&done.data).unwrap();
    assert_eq!(name::text(&controller.subsystem_nqn), SUBSYSTEM);
    let done = admin.run_admin(AdminCommand::Identify {
        cns: cns::NAMESPACE,
        cntlid: 0,
        nsid: 1,
        command_set: 0,
    });
    let namespace = IdentifyNamespace::read_from_bytes(&done.data).unwrap();
    assert_eq!(
        (namespace.size.get(), namespace.block_shift()),
        (BLOCKS, Some(9))
    );
    let names = AdminCommand::Identify {
        cns: cns::NAMESPACE_DESCRIPTORS,
        cntlid: 0,
        nsid: 1,
        command_set: 0,
    };
    let names = NamespaceDescriptor::read_list(&admin.run_admin(names).data);
    assert_eq!(
        names,
        [
            NamespaceDescriptor::Uuid([9; 16]),
            NamespaceDescriptor::CommandSet(0)
        ]
    );

    // Through the capsule, and by R2T in several pieces.
    for (start, blocks) in [(3, 8), (100, 16), (1000, 300), (8, 1)] {
        let length = usize::try_from(blocks * BLOCK).unwrap();
        let data: Vec<u8> = (0..length)
            .map(|at| u8::try_from((at / 7 + length) % 251).unwrap())
            .collect();
        assert_eq!(io.write(start, &data).status, Status::SUCCESS);
        let read = io.read(start, u32::try_from(blocks).unwrap());
        assert_eq!(read.status, Status::SUCCESS);
        assert_eq!(read.data, data);
        assert_eq!(read.sqhd.is_some(), options.flow_control);
    }
    assert_eq!(io.closed, None);

    let info = registry.controllers();
    assert_eq!(
        (info.len(), info[0].host.as_str(), info[0].io_queues),
        (1, HOST, 1)
    );
    drop(io);
    assert_eq!(registry.controllers()[0].io_queues, 0);
    drop(admin);
    assert_eq!(registry.controllers(), []);
}

#[test]
fn every_mode() {
    for bits in 0..64_u32 {
        let bit = |at: u32| bits >> at & 1 != 0;
        life(Options {
            header_digest: bit(0),
            data_digest: bit(1),
            alignment: if bit(2) { 31 } else { 0 },
            flow_control: bit(3),
            immediate: bit(4),
            reluctant: bit(5),
            max_data: if bit(0) { 4096 } else { 1 << 20 },
            ..Options::default()
        });
    }
}

#[test]
fn every_cut() {
    for chunk in [1, 7, 8, 24, 71, 72, 73, 100, 4096, 5000] {
        for immediate in [false, true] {
            life(Options {
                chunk,
                immediate,
                data_digest: true,
                ..Options::default()
            });
            life(Options {
                chunk,
                immediate,
                header_digest: true,
                ..Options::default()
            });
        }
    }
}
