//! The API server of the model.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use roadstead_crds::{
    DriveSpec, MemorySource, NVMeAttachment, NVMeAttachmentSpec, NVMeHost, NVMeHostSpec,
    NVMeNamespace, NVMeNamespaceSpec, Target, TargetSpec, TransportPolicy, TransportPolicySpec,
};
use roadstead_operator::plan::{Change, Kind, ObjectVersion, Write};
use uuid::Uuid;

type Map<K> = BTreeMap<String, Arc<K>>;

#[derive(Default)]
pub struct Api {
    pub targets: Map<Target>,
    pub namespaces: Map<NVMeNamespace>,
    pub attachments: Map<NVMeAttachment>,
    pub hosts: Map<NVMeHost>,
    pub policies: Map<TransportPolicy>,
    version: u64,
}

impl Api {
    fn meta(&mut self, name: &str, now: Timestamp) -> ObjectMeta {
        self.version += 1;
        ObjectMeta {
            name: Some(name.into()),
            uid: Some(Uuid::from_u128(u128::from(self.version)).to_string()),
            resource_version: Some(self.version.to_string()),
            creation_timestamp: Some(Time(now)),
            generation: Some(1),
            ..ObjectMeta::default()
        }
    }

    pub fn create_target(&mut self, name: &str, node: &str, drives: usize, now: Timestamp) {
        let drives = (0..drives)
            .map(|i| DriveSpec {
                name: format!("d{i}"),
                memory: Some(MemorySource { size: "1Gi".into() }),
                ..DriveSpec::default()
            })
            .collect();
        let spec = TargetSpec {
            node: node.into(),
            drives,
            external: None,
        };
        self.create_target_with(name, spec, now);
    }

    pub fn create_target_with(&mut self, name: &str, spec: TargetSpec, now: Timestamp) {
        let metadata = self.meta(name, now);
        let target = Target {
            metadata,
            spec,
            status: None,
        };
        self.targets
            .entry(name.into())
            .or_insert_with(|| Arc::new(target));
    }

    pub fn create_namespace(&mut self, name: &str, spec: NVMeNamespaceSpec, now: Timestamp) {
        let metadata = self.meta(name, now);
        let namespace = NVMeNamespace {
            metadata,
            spec,
            status: None,
        };
        self.namespaces
            .entry(name.into())
            .or_insert_with(|| Arc::new(namespace));
    }

    pub fn create_attachment(&mut self, name: &str, volume: &str, node: &str, now: Timestamp) {
        let spec = NVMeAttachmentSpec {
            namespace: volume.into(),
            node: node.into(),
            read_only: false,
        };
        let metadata = self.meta(name, now);
        let attachment = NVMeAttachment {
            metadata,
            spec,
            status: None,
        };
        self.attachments
            .entry(name.into())
            .or_insert_with(|| Arc::new(attachment));
    }

    pub fn create_policy(&mut self, name: &str, spec: TransportPolicySpec, now: Timestamp) {
        let metadata = self.meta(name, now);
        let policy = TransportPolicy {
            metadata,
            spec,
            status: None,
        };
        self.policies.insert(name.into(), Arc::new(policy));
    }

    pub fn delete(&mut self, kind: Kind, name: &str, now: Timestamp) {
        self.version += 1;
        let version = self.version;
        match kind {
            Kind::Target => delete(&mut self.targets, name, now, version),
            Kind::Namespace => delete(&mut self.namespaces, name, now, version),
            Kind::Attachment => delete(&mut self.attachments, name, now, version),
            Kind::Host => delete(&mut self.hosts, name, now, version),
            Kind::Policy => delete(&mut self.policies, name, now, version),
        }
    }

    pub fn edit_namespace(&mut self, name: &str, f: impl FnOnce(&mut NVMeNamespaceSpec)) {
        self.version += 1;
        if let Some(object) = self.namespaces.get_mut(name) {
            let object = Arc::make_mut(object);
            f(&mut object.spec);
            bump(&mut object.metadata, self.version);
        }
    }

    pub fn edit_target(&mut self, name: &str, f: impl FnOnce(&mut TargetSpec)) {
        self.version += 1;
        if let Some(object) = self.targets.get_mut(name) {
            let object = Arc::make_mut(object);
            f(&mut object.spec);
            bump(&mut object.metadata, self.version);
        }
    }

    /// Does a write; `false` if it was for another version.
    pub fn write(&mut self, write: &Write, now: Timestamp) -> bool {
        if let Change::CreateHost { .. } = write.change {
            let metadata = self.meta(&write.object.name, now);
            let host = NVMeHost {
                metadata,
                spec: NVMeHostSpec {},
                status: None,
            };
            self.hosts
                .entry(write.object.name.clone())
                .or_insert_with(|| Arc::new(host));
            return true;
        }
        self.version += 1;
        let version = self.version;
        let change = &write.change;
        match write.object.kind {
            Kind::Target => change_one(
                &mut self.targets,
                &write.object,
                version,
                |o| match change {
                    Change::Finalizers(list) => o.metadata.finalizers = Some(list.clone()),
                    Change::TargetStatus(status) => o.status = Some(status.clone()),
                    other => panic!("a Target cannot take {other:?}"),
                },
            ),
            Kind::Namespace => {
                change_one(
                    &mut self.namespaces,
                    &write.object,
                    version,
                    |o| match change {
                        Change::Finalizers(list) => o.metadata.finalizers = Some(list.clone()),
                        Change::NamespaceStatus(status) => o.status = Some(status.clone()),
                        other => panic!("a volume cannot take {other:?}"),
                    },
                )
            }
            Kind::Attachment => {
                change_one(
                    &mut self.attachments,
                    &write.object,
                    version,
                    |o| match change {
                        Change::Finalizers(list) => o.metadata.finalizers = Some(list.clone()),
                        Change::AttachmentStatus(status) => o.status = Some(status.clone()),
                        other => panic!("an attachment cannot take {other:?}"),
                    },
                )
            }
            Kind::Host => change_one(&mut self.hosts, &write.object, version, |o| match change {
                Change::HostStatus(status) => o.status = Some(status.clone()),
                other => panic!("a host cannot take {other:?}"),
            }),
            Kind::Policy => change_one(
                &mut self.policies,
                &write.object,
                version,
                |o| match change {
                    Change::PolicyStatus(status) => o.status = Some(status.clone()),
                    other => panic!("a policy cannot take {other:?}"),
                },
            ),
        }
    }
}

fn bump(meta: &mut ObjectMeta, version: u64) {
    meta.resource_version = Some(version.to_string());
    meta.generation = meta.generation.map(|g| g + 1);
}

fn delete<K: Resource + Clone>(map: &mut Map<K>, name: &str, now: Timestamp, version: u64) {
    let Some(object) = map.get_mut(name) else {
        return;
    };
    let meta = Arc::make_mut(object).meta_mut();
    if meta.finalizers.as_ref().is_none_or(Vec::is_empty) {
        map.remove(name);
    } else if meta.deletion_timestamp.is_none() {
        meta.deletion_timestamp = Some(Time(now));
        bump(meta, version);
    }
}

fn change_one<K: Resource + Clone>(
    map: &mut Map<K>,
    wanted: &ObjectVersion,
    version: u64,
    f: impl FnOnce(&mut K),
) -> bool {
    let Some(object) = map.get_mut(&wanted.name) else {
        return false;
    };
    let meta = object.meta();
    if meta.resource_version.as_ref() != Some(&wanted.resource_version)
        || meta.uid.as_ref() != Some(&wanted.uid)
    {
        return false;
    }
    let object = Arc::make_mut(object);
    f(object);
    let meta = object.meta_mut();
    meta.resource_version = Some(version.to_string());
    if meta.deletion_timestamp.is_some() && meta.finalizers.as_ref().is_none_or(Vec::is_empty) {
        map.remove(&wanted.name);
    }
    true
}
