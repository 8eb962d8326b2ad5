//! The transport decision: every row of the table, every workload, every combination of capabilities, and properties.

#![allow(clippy::expect_used)] // the helpers of the tests are test code

mod capabilities;
mod measured;
mod properties;
mod rows;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::jiff::Timestamp;
use roadstead_crds::TransportPolicySpec;
use roadstead_crds::transport::{Fallback, Need, NetworkTransport, TransportChoice, Workload};
use roadstead_operator::policy::*;

/// Everything that a decision needs, owned.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) policy: TransportPolicySpec,
    pub(crate) needs: Needs,
    pub(crate) host: Host,
    pub(crate) target: TargetNode,
    pub(crate) measured: BTreeMap<PathKey, Measured>,
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

pub(crate) fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

pub(crate) fn key(transport: NetworkTransport) -> PathKey {
    PathKey {
        transport,
        address: address(1),
        port: 4420,
    }
}

pub(crate) fn rdma_port(version: RoceVersion, last: u8) -> RdmaPort {
    RdmaPort {
        device: "mlx5_0".into(),
        link: Link::Up,
        mtu_bytes: 4096,
        gids: vec![Gid {
            version,
            address: address(last),
            prefix_len: 24,
        }],
        problem: None,
    }
}

pub(crate) fn portal(transport: NetworkTransport) -> Portal {
    Portal {
        key: key(transport),
        listening: true,
        problem: String::new(),
        link: Link::Up,
        versions: match transport {
            NetworkTransport::Tcp => Vec::new(),
            NetworkTransport::Roce => vec![RoceVersion::V2],
        },
        mtu_bytes: 4096,
    }
}

/// Two nodes that can do everything; the pod is not on the volume's node.
pub(crate) fn everything() -> Case {
    Case {
        policy: TransportPolicySpec::default(),
        needs: Needs::default(),
        host: Host {
            node: "node-b".into(),
            tcp: true,
            rdma: true,
            local: true,
            kernel_rdma: true,
            ports: vec![rdma_port(RoceVersion::V2, 2)],
            methods: vec![Method::Kernel, Method::Fuse],
        },
        target: TargetNode {
            node: "node-a".into(),
            ports: vec![rdma_port(RoceVersion::V2, 1)],
            portals: vec![
                portal(NetworkTransport::Tcp),
                portal(NetworkTransport::Roce),
            ],
        },
        measured: BTreeMap::new(),
    }
}

/// Two nodes without RDMA.
pub(crate) fn tcp_only() -> Case {
    let mut case = everything();
    case.host.rdma = false;
    case.host.ports.clear();
    case.target.ports.clear();
    case.target.portals.truncate(1);
    case
}

impl Case {
    pub(crate) fn needs(mut self, rows: &[Need]) -> Self {
        self.needs.rows = rows.iter().copied().collect();
        self
    }

    pub(crate) fn workload(mut self, workload: Workload) -> Self {
        self.needs.workload = workload;
        self
    }

    pub(crate) fn asks(mut self, transport: TransportChoice, fallback: Option<Fallback>) -> Self {
        self.needs.transport = transport;
        self.needs.fallback = fallback;
        self
    }

    /// The pod runs on the volume's node.
    pub(crate) fn at_home(mut self) -> Self {
        self.host.node.clone_from(&self.target.node);
        self
    }

    pub(crate) fn decide(&self) -> Decision {
        decide(&Input {
            policy_name: "default",
            policy: &self.policy,
            needs: &self.needs,
            host: &self.host,
            target: &self.target,
            measured: &self.measured,
            now: now(),
        })
    }

    /// The paths in order, as words; or why there are none.
    pub(crate) fn outcome(&self) -> String {
        match self.decide().outcome {
            Err(why) => format!("pending: {why}"),
            Ok(choice) if choice.paths.is_empty() => choice.transport.word().into(),
            Ok(choice) => {
                let words: Vec<&str> = choice
                    .paths
                    .iter()
                    .map(|p| p.key.transport.word())
                    .collect();
                words.join(", ")
            }
        }
    }

    /// Why.
    pub(crate) fn why(&self) -> String {
        self.decide()
            .outcome
            .map_or_else(|why| why, |choice| choice.reason)
    }

    /// The sentences about all candidates.
    pub(crate) fn reasons(&self) -> String {
        let reasons: Vec<String> = self
            .decide()
            .candidates
            .into_iter()
            .map(|c| c.reason)
            .collect();
        reasons.join("\n")
    }
}
