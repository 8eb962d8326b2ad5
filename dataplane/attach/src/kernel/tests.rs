use std::fs;

use uuid::Uuid;

use super::*;

const NQN: &str = "nqn.2026-11.io.roadstead:example";

fn spec() -> Spec {
    Spec {
        id: "a".into(),
        subsystem_nqn: NQN.into(),
        volume_uuid: Uuid::from_u128(5),
        foreign: None,
        paths: ["10.0.0.1", "10.0.0.2"]
            .map(|address| PathSpec {
                address: address.parse().unwrap(),
                port: 4420,
            })
            .into(),
        read_only: false,
        method: None,
        ctrl_loss_timeout_s: 0,
    }
}

fn file(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("{text}\n")).unwrap();
}

fn method(root: &Path) -> KernelMethod {
    let host = HostIdentity {
        nqn: "h".into(),
        id: Uuid::from_u128(1),
    };
    KernelMethod::with_roots(host, root.join("sys"), root.join("dev"))
}

#[test]
fn what_is_missing_is_said() {
    let root = tempfile::tempdir().unwrap();
    let missing = |m: &KernelMethod| match m.available() {
        Availability::Missing(reason) => reason,
        Availability::Available => String::new(),
    };
    let kernel = method(root.path());
    assert!(missing(&kernel).contains("nvme-tcp is not loaded"));
    fs::create_dir_all(root.path().join("sys/module/nvme_tcp")).unwrap();
    assert!(missing(&kernel).contains("nvme-fabrics does not exist"));
    file(root.path(), "dev/nvme-fabrics", "");
    assert_eq!(kernel.available(), Availability::Available);
}

#[test]
fn an_existing_connection_is_found_without_connecting_again() {
    let root = tempfile::tempdir().unwrap();
    for (attribute, value) in [
        ("subsysnqn", NQN),
        ("hostnqn", "h"),
        ("state", "live"),
        ("address", "traddr=10.0.0.1,trsvcid=4420"),
    ] {
        file(
            root.path(),
            &format!("sys/class/nvme/nvme3/{attribute}"),
            value,
        );
    }
    let block = "sys/block/nvme3n1";
    file(
        root.path(),
        &format!("{block}/uuid"),
        &Uuid::from_u128(5).to_string(),
    );
    file(root.path(), &format!("{block}/size"), "2048");
    file(root.path(), &format!("{block}/device/subsysnqn"), NQN);
    file(root.path(), "dev/nvme3n1", "");
    // No /dev/nvme-fabrics here: the second path cannot be connected, and the first need not be.
    let kernel = method(root.path());
    let device = kernel.attach(&spec()).unwrap();
    assert_eq!(device.path, root.path().join("dev/nvme3n1"));
    assert_eq!(device.size_bytes, 1 << 20);
    let states: Vec<_> = kernel.paths(&spec()).iter().map(|p| p.state).collect();
    assert_eq!(states, [PathState::Live, PathState::Failed]);
}

#[test]
fn no_path_is_an_error_with_every_reason() {
    let root = tempfile::tempdir().unwrap();
    let error = method(root.path()).attach(&spec()).unwrap_err().to_string();
    assert!(
        error.contains("10.0.0.1:4420") && error.contains("10.0.0.2:4420"),
        "{error}"
    );
}

/// A subsystem with a connection and two namespaces, 1 and 2.
fn appliance(root: &Path) {
    for (attribute, value) in [
        ("subsysnqn", NQN),
        ("hostnqn", "h"),
        ("state", "live"),
        ("address", "traddr=10.0.0.1,trsvcid=4420"),
        ("delete_controller", ""),
    ] {
        file(root, &format!("sys/class/nvme/nvme3/{attribute}"), value);
    }
    for nsid in [1, 2] {
        let block = format!("sys/block/nvme3n{nsid}");
        file(root, &format!("{block}/nsid"), &nsid.to_string());
        let uuid = Uuid::from_u128(4 + nsid);
        file(root, &format!("{block}/uuid"), &uuid.to_string());
        file(root, &format!("{block}/size"), "2048");
        file(root, &format!("{block}/device/subsysnqn"), NQN);
        file(root, &format!("dev/nvme3n{nsid}"), "");
    }
}

#[test]
fn a_subsystem_stays_connected_while_another_of_its_namespaces_is_attached() {
    let root = tempfile::tempdir().unwrap();
    appliance(root.path());
    let deleted = || {
        let file = root.path().join("sys/class/nvme/nvme3/delete_controller");
        fs::read_to_string(file).unwrap() == "1"
    };
    let kernel = method(root.path());
    let other = Spec {
        id: "b".into(),
        volume_uuid: Uuid::from_u128(6),
        ..spec()
    };
    assert!(kernel.attach(&spec()).unwrap().path.ends_with("nvme3n1"));
    assert!(kernel.attach(&other).unwrap().path.ends_with("nvme3n2"));
    kernel.detach(&spec()).unwrap();
    assert!(!deleted());
    kernel.detach(&other).unwrap();
    assert!(deleted());
}

#[test]
fn a_namespace_with_a_name_is_not_taken_for_one_without() {
    let root = tempfile::tempdir().unwrap();
    appliance(root.path());
    let kernel = method(root.path());
    let unnamed = Spec {
        volume_uuid: Uuid::nil(),
        foreign: Some(crate::Foreign {
            name: Some(crate::ForeignName::Nsid(2)),
            host: None,
        }),
        ..spec()
    };
    assert_eq!(kernel.device(&unnamed), None);
    file(
        root.path(),
        "sys/block/nvme3n2/uuid",
        &Uuid::nil().to_string(),
    );
    let device = kernel.device(&unnamed).unwrap();
    assert!(device.path.ends_with("nvme3n2"));
}
