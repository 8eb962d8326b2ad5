//! A small model of a cluster: an API server with versions and finalizers, nodes with drives, and an operator that
//! can be killed between any two of its writes.

// Each test file uses its part; a model that is used wrongly should fail the test at once.
#![allow(dead_code, unused_imports, unreachable_pub)]
#![allow(clippy::expect_used, clippy::panic)]

mod api;
mod node;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use roadstead_api::v1::NodeState;
use roadstead_crds::condition::{READY, find};
use roadstead_crds::{Condition, NVMeNamespaceSpec};
use roadstead_operator::plan::{Plan, plan};
use roadstead_operator::snapshot::{Credentials, Dataplane, Link, NodeInfo, Snapshot};

pub use api::Api;
pub use node::{Data, MIB, Node};

/// Steps after which everything must have settled.
const STEPS_MAX: usize = 200;

/// The whole model.
pub struct World {
    pub now: Timestamp,
    pub api: Api,
    pub nodes: BTreeMap<String, Node>,
    /// What the operator's process remembers of its connections.
    pub links: BTreeMap<String, Dataplane>,
    /// Snapshots that an operator with a slow watch might still plan from.
    pub past: VecDeque<Snapshot>,
    /// Reasons of the Events, in order.
    pub events: Vec<String>,
    /// Credentials for appliances, by Secret.
    pub credentials: BTreeMap<String, Arc<Credentials>>,
}

impl World {
    /// A cluster with the nodes `names`, without drives.
    pub fn new(names: &[&str]) -> Self {
        let nodes: BTreeMap<_, _> = names
            .iter()
            .map(|name| (name.to_string(), Node::new(name)))
            .collect();
        let mut world = World {
            now: Timestamp::from_second(1_800_000_000).expect("a time"),
            api: Api::default(),
            nodes,
            links: BTreeMap::new(),
            past: VecDeque::new(),
            events: Vec::new(),
            credentials: BTreeMap::new(),
        };
        world.restart_operator();
        world
    }

    /// Adds a Target with drives of these sizes, named d0, d1, ...
    pub fn add_target(&mut self, name: &str, node: &str, sizes_mib: &[u64]) {
        self.api
            .create_target(name, node, sizes_mib.len(), self.now);
        let node = self.nodes.get_mut(node).expect("a node");
        for (i, size) in sizes_mib.iter().enumerate() {
            node.drives.insert(format!("{name}/d{i}"), size * MIB);
        }
    }

    pub fn add_volume(&mut self, name: &str, size_mib: u64) {
        self.add_volume_with(name, size_mib, |_| {});
    }

    pub fn add_volume_with(
        &mut self,
        name: &str,
        size_mib: u64,
        f: impl FnOnce(&mut NVMeNamespaceSpec),
    ) {
        let mut spec = NVMeNamespaceSpec {
            size: format!("{size_mib}Mi"),
            block_size: 4096,
            ..NVMeNamespaceSpec::default()
        };
        f(&mut spec);
        self.api.create_namespace(name, spec, self.now);
    }

    pub fn attach(&mut self, name: &str, volume: &str, node: &str) {
        self.api.create_attachment(name, volume, node, self.now);
    }

    pub fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// The operator is killed and another one starts: it knows nothing but the API.
    pub fn restart_operator(&mut self) {
        self.links = self
            .nodes
            .iter()
            .map(|(name, node)| {
                let view = Dataplane {
                    address: node.address.clone(),
                    link: Link::Connecting,
                    report: None,
                    sent: Vec::new(),
                    refusal: None,
                };
                (name.clone(), view)
            })
            .collect();
    }

    /// Connections come and go, and reports come in.
    pub fn connect(&mut self) {
        for (name, view) in &mut self.links {
            let node = &self.nodes[name];
            if node.daemon_up {
                view.link = Link::Up;
                view.report = Some(Arc::new(node.report()));
            } else if !matches!(view.link, Link::Lost { .. }) {
                view.link = Link::Lost {
                    since: self.now,
                    error: "connection refused".into(),
                };
            }
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        let nodes = self.nodes.iter().filter(|(_, node)| node.exists);
        Snapshot {
            now: self.now,
            targets: self.api.targets.clone(),
            namespaces: self.api.namespaces.clone(),
            attachments: self.api.attachments.clone(),
            hosts: self.api.hosts.clone(),
            policies: self.api.policies.clone(),
            credentials: self.credentials.clone(),
            nodes: nodes
                .map(|(name, node)| {
                    let info = NodeInfo {
                        uid: format!("node-{name}"),
                        internal_ip: Some(node.address.clone()),
                        ready: node.ready,
                        out_of_service: node.out_of_service,
                    };
                    (name.clone(), info)
                })
                .collect(),
            dataplanes: self.links.clone(),
        }
    }

    /// One turn of the operator's loop, killed after `writes` writes; how many were done.
    pub fn turn(&mut self, writes: usize) -> usize {
        self.connect();
        let snapshot = self.snapshot();
        let plan = plan(&snapshot);
        self.past.push_back(snapshot);
        if self.past.len() > 5 {
            self.past.pop_front();
        }
        self.carry_out(plan, writes)
    }

    /// One turn that plans from an old snapshot (with the present connections).
    pub fn stale_turn(&mut self, age: usize) -> usize {
        self.connect();
        let Some(mut snapshot) = self.past.iter().rev().nth(age).cloned() else {
            return 0;
        };
        snapshot.dataplanes = self.links.clone();
        let plan = plan(&snapshot);
        // What a deposed operator tells the nodes is not modelled: it stops before another one starts.
        let stale = Plan {
            states: BTreeMap::new(),
            ..plan
        };
        self.carry_out(stale, usize::MAX)
    }

    fn carry_out(&mut self, plan: Plan, writes: usize) -> usize {
        for (name, state) in plan.states {
            self.push(&name, state);
        }
        let mut done = 0;
        for write in plan.writes.iter().take(writes) {
            if self.api.write(write, self.now) {
                done += 1;
                self.events
                    .extend(write.notes.iter().map(|n| n.reason.clone()));
            }
        }
        done
    }

    fn push(&mut self, name: &str, state: NodeState) {
        let node = self.nodes.get_mut(name).expect("a node");
        let view = self.links.get_mut(name).expect("a link");
        if view.link == Link::Up && node.daemon_up && node.desired.revision != state.revision {
            view.sent.push(Arc::new(state.clone()));
            node.desired = state;
        }
    }

    /// Every daemon works on its desired state; whether that changed what they report.
    pub fn work(&mut self) -> bool {
        let mut changed = false;
        for node in self.nodes.values_mut().filter(|n| n.daemon_up) {
            let before = node.report();
            node.work();
            changed |= before != node.report();
        }
        changed
    }

    /// Turns until nothing changes any more.
    pub fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            let done = self.turn(usize::MAX);
            let worked = self.work();
            if done == 0 && !worked {
                return;
            }
        }
        panic!("it does not settle");
    }

    /// `Ready` of an object: status, reason and message.
    pub fn ready_of(conditions: Option<&Vec<Condition>>) -> (String, String, String) {
        let ready = conditions.and_then(|c| find(c, READY));
        ready.map_or_else(Default::default, |c| {
            (c.status.clone(), c.reason.clone(), c.message.clone())
        })
    }

    pub fn volume_ready(&self, name: &str) -> (String, String, String) {
        let status = self
            .api
            .namespaces
            .get(name)
            .and_then(|n| n.status.as_ref());
        Self::ready_of(status.map(|s| &s.conditions))
    }

    pub fn target_ready(&self, name: &str) -> (String, String, String) {
        let status = self.api.targets.get(name).and_then(|n| n.status.as_ref());
        Self::ready_of(status.map(|s| &s.conditions))
    }

    pub fn attachment_ready(&self, name: &str) -> (String, String, String) {
        let status = self
            .api
            .attachments
            .get(name)
            .and_then(|n| n.status.as_ref());
        Self::ready_of(status.map(|s| &s.conditions))
    }
}
