use roadstead_nvme::{Portal, Transport};
use uuid::Uuid;

use super::*;
use crate::{Availability, PathSpec};

/// A method that keeps its devices in memory and fails when told to.
#[derive(Default, Clone)]
struct Fake(Arc<Mutex<FakeState>>);

#[derive(Default)]
struct FakeState {
    devices: Vec<String>,
    mounted: bool,
    unreachable: bool,
    missing: bool,
    size_bytes: u64,
    during_follow: Option<Box<dyn FnOnce() + Send>>,
}

impl Fake {
    fn with<T>(&self, f: impl FnOnce(&mut FakeState) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }
}

impl Method for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn available(&self) -> Availability {
        match self.with(|s| s.missing) {
            true => Availability::Missing("not loaded".into()),
            false => Availability::Available,
        }
    }

    fn carries(&self, transport: Transport) -> Availability {
        match transport {
            Transport::Rdma => Availability::Missing("no device".into()),
            Transport::Tcp | Transport::Local => Availability::Available,
        }
    }

    fn follow(&self, _: &Spec, paths: &[PathSpec]) -> Vec<PathSpec> {
        if let Some(meanwhile) = self.with(|s| s.during_follow.take()) {
            meanwhile();
        }
        paths.to_vec()
    }

    fn attach(&self, spec: &Spec) -> Result<Device, AttachError> {
        self.with(|s| {
            if s.unreachable {
                return Err(AttachError::Unreachable {
                    nqn: spec.subsystem_nqn.clone(),
                    reason: "refused".into(),
                });
            }
            if !s.devices.contains(&spec.id) {
                s.devices.push(spec.id.clone());
            }
            Ok(Device {
                path: format!("/dev/{}", spec.id).into(),
                size_bytes: s.size_bytes,
            })
        })
    }

    fn detach(&self, spec: &Spec) -> Result<(), AttachError> {
        self.with(|s| {
            if s.mounted {
                return Err(AttachError::Busy {
                    device: "/dev/x".into(),
                });
            }
            s.devices.retain(|id| *id != spec.id);
            Ok(())
        })
    }

    fn rescan(&self, _: &Spec) -> Result<u64, AttachError> {
        Ok(self.with(|s| s.size_bytes))
    }

    fn device(&self, _: &Spec) -> Option<Device> {
        None
    }

    fn paths(&self, _: &Spec) -> Vec<PathStatus> {
        Vec::new()
    }
}

fn path(text: &str) -> PathSpec {
    text.parse::<Portal>().unwrap().into()
}

fn spec(id: &str) -> Spec {
    Spec {
        id: id.into(),
        subsystem_nqn: "nqn.2026-11.io.roadstead:example".into(),
        volume_uuid: Uuid::from_u128(7),
        foreign: None,
        paths: vec![path("10.0.0.1:4420")],
        read_only: false,
        method: None,
        ctrl_loss_timeout_s: 0,
    }
}

fn manager(dir: &Path, fake: &Fake) -> Manager {
    Manager::open(dir, vec![Box::new(fake.clone())]).unwrap()
}

#[test]
fn attaching_twice_gives_the_same_device() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let manager = manager(dir.path(), &fake);
    let first = manager.attach(spec("a")).unwrap();
    let second = manager.attach(spec("a")).unwrap();
    assert_eq!(first.device, second.device);
    assert_eq!(first.spec.method.as_deref(), Some("fake"));
    assert_eq!(manager.attachments().len(), 1);
}

#[test]
fn a_transport_takes_a_method_that_can_work() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let manager = manager(dir.path(), &fake);
    assert!(manager.carries(Transport::Local) && !manager.carries(Transport::Rdma));
    fake.with(|s| s.missing = true);
    assert!(!manager.carries(Transport::Local));
}

#[test]
fn the_local_path_is_kept_over_a_restart() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let mut own = spec("a");
    own.paths = vec![Portal::LOCAL.into()];
    manager(dir.path(), &fake).attach(own.clone()).unwrap();
    let second = manager(dir.path(), &fake);
    assert_eq!(second.restore(), 0);
    assert_eq!(second.attachments()[0].spec.paths, own.paths);
    own.paths.push(path("10.0.0.1:4420"));
    assert!(second.attach(own).is_err(), "alone or not at all");
}

#[test]
fn another_volume_under_the_same_id_is_refused() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let manager = manager(dir.path(), &fake);
    manager.attach(spec("a")).unwrap();
    let mut other = spec("a");
    other.volume_uuid = Uuid::from_u128(8);
    assert!(matches!(
        manager.attach(other),
        Err(AttachError::Conflict {
            field: "volume_uuid",
            ..
        })
    ));
    let mut moved = spec("a");
    moved.paths[0].port = 4421;
    assert!(manager.attach(moved).is_ok(), "paths may change");
}

#[test]
fn a_failed_attach_leaves_nothing() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let manager = manager(dir.path(), &fake);
    fake.with(|s| s.unreachable = true);
    assert!(manager.attach(spec("a")).is_err());
    assert!(manager.attachments().is_empty());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_device_in_use_stays_attached() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let manager = manager(dir.path(), &fake);
    manager.attach(spec("a")).unwrap();
    fake.with(|s| s.mounted = true);
    assert!(matches!(manager.detach("a"), Err(AttachError::Busy { .. })));
    assert_eq!(manager.attachments().len(), 1);
    fake.with(|s| s.mounted = false);
    manager.detach("a").unwrap();
    manager.detach("a").unwrap();
    assert!(manager.attachments().is_empty());
}

#[test]
fn a_restarted_daemon_attaches_again() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    manager(dir.path(), &fake).attach(spec("a")).unwrap();
    fake.with(|s| {
        s.devices.clear();
        s.unreachable = true;
    });
    let second = manager(dir.path(), &fake);
    assert!(second.attachments()[0].device.is_none());
    assert_eq!(second.restore(), 1);
    assert!(
        second.attachments()[0].error.is_some(),
        "kept, with its error"
    );
    fake.with(|s| s.unreachable = false);
    assert_eq!(second.restore(), 0);
    assert!(second.attachments()[0].device.is_some());
    second.detach("a").unwrap();
    assert!(manager(dir.path(), &fake).attachments().is_empty());
}

#[test]
fn a_rescan_updates_the_size() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let manager = manager(dir.path(), &fake);
    assert!(matches!(
        manager.rescan("a"),
        Err(AttachError::Unknown { .. })
    ));
    manager.attach(spec("a")).unwrap();
    fake.with(|s| s.size_bytes = 4096);
    assert_eq!(manager.rescan("a").unwrap(), 4096);
    assert_eq!(
        manager.attachments()[0].device.as_ref().unwrap().size_bytes,
        4096
    );
}

#[test]
fn an_unusable_method_says_why() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let manager = manager(dir.path(), &fake);
    fake.with(|s| s.missing = true);
    let error = manager.attach(spec("a")).err().unwrap().to_string();
    assert!(error.contains("not loaded"), "{error}");
    let mut unknown = spec("b");
    unknown.method = Some("ublk".into());
    let error = manager.attach(unknown).err().unwrap().to_string();
    assert!(error.contains("known are: fake"), "{error}");
    assert!(manager.available_methods().is_empty());
}

#[test]
fn attachments_follow_the_paths_that_they_should_have() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let manager = manager(dir.path(), &fake);
    let others = vec![path("rdma:10.0.0.1:4420"), path("10.0.0.1:4420")];
    let want = |id: &str, paths: &[PathSpec]| {
        manager.want_paths([(id.to_owned(), paths.to_vec())].into());
        manager.follow();
    };
    // One that is not there is not made.
    want("a", &others);
    assert!(manager.attachments().is_empty() && fake.with(|s| s.devices.is_empty()));
    manager.attach(spec("a")).unwrap();
    manager.follow();
    assert_eq!(manager.attachments()[0].spec.paths, others);
    // It is remembered over a restart, and kept when nobody says anything.
    want("b", &others);
    assert_eq!(manager.attachments()[0].spec.paths, others);
    let again = self::manager(dir.path(), &fake);
    assert_eq!(again.attachments()[0].spec.paths, others);
}

#[test]
fn a_path_that_is_connected_after_the_detach_goes_again() {
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let manager = Arc::new(manager(dir.path(), &fake));
    manager.attach(spec("a")).unwrap();
    let during = Arc::clone(&manager);
    let connected = fake.clone();
    fake.with(|s| {
        s.during_follow = Some(Box::new(move || {
            during.detach("a").unwrap();
            connected.with(|s| s.devices.push("a".into()));
        }));
    });
    manager.follow();
    assert!(fake.with(|s| s.devices.is_empty()), "it is detached anew");
    assert!(manager.attachments().is_empty());
}

#[test]
fn what_is_kept_is_for_root_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    // An earlier version left it.
    let left = dir.path().join("a.new");
    fs::write(&left, "{").unwrap();
    fs::set_permissions(&left, fs::Permissions::from_mode(0o644)).unwrap();
    let manager = manager(dir.path(), &Fake::default());
    manager.attach(spec("a")).unwrap();
    let kept = fs::metadata(dir.path().join("a.json")).unwrap();
    assert_eq!(kept.permissions().mode() & 0o777, 0o600);
    assert!(!left.exists());
}
