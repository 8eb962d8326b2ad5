use std::fs;

use roadstead_nvme::Portal;
use uuid::Uuid;

use super::*;
use crate::PathState;

const NQN: &str = "nqn.2026-11.io.roadstead:example";

fn spec() -> Spec {
    Spec {
        id: "a".into(),
        subsystem_nqn: NQN.into(),
        volume_uuid: Uuid::from_u128(5),
        foreign: None,
        paths: ["10.0.0.1:4420", "rdma:10.0.0.2:4420"]
            .map(|text| text.parse::<Portal>().unwrap().into())
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
        keys: None,
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
        ("transport", "tcp"),
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

#[test]
fn rdma_takes_its_module_or_a_device() {
    let root = tempfile::tempdir().unwrap();
    let kernel = method(root.path());
    let carries = |transport| kernel.carries(transport) == Availability::Available;
    fs::create_dir_all(root.path().join("sys/module/nvme_tcp")).unwrap();
    assert!(carries(Transport::Tcp) && !carries(Transport::Rdma));
    // No device yet.
    fs::create_dir_all(root.path().join("sys/class/infiniband")).unwrap();
    assert!(!carries(Transport::Rdma));
    fs::create_dir_all(root.path().join("sys/class/infiniband/mlx5_0")).unwrap();
    assert!(carries(Transport::Rdma));
    let root = tempfile::tempdir().unwrap();
    let kernel = method(root.path());
    fs::create_dir_all(root.path().join("sys/module/nvme_rdma")).unwrap();
    let carries = |transport| kernel.carries(transport) == Availability::Available;
    assert!(!carries(Transport::Tcp) && carries(Transport::Rdma));
    fs::create_dir_all(root.path().join("sys/module/nvme_loop")).unwrap();
    assert!(!carries(Transport::Local), "that is not for this daemon");
    file(root.path(), "dev/nvme-fabrics", "");
    assert_eq!(kernel.available(), Availability::Available);
}

/// A controller to `address` over `transport`, which a fake kernel deletes when it is told to.
fn controller(root: &Path, name: &str, transport: &str, address: &str, state: &str) -> PathBuf {
    let address = format!("traddr={address},trsvcid=4420");
    for (attribute, value) in [
        ("subsysnqn", NQN),
        ("hostnqn", "h"),
        ("state", state),
        ("transport", transport),
        ("address", &address),
        ("delete_controller", "0"),
    ] {
        file(root, &format!("sys/class/nvme/{name}/{attribute}"), value);
    }
    root.join(format!("sys/class/nvme/{name}/delete_controller"))
}

#[test]
fn a_path_is_closed_once_another_is_live_and_not_before() {
    let root = tempfile::tempdir().unwrap();
    let kernel = method(root.path());
    let [tcp, rdma] = [spec().paths[0], spec().paths[1]];
    let deleted = |path: &Path| fs::read_to_string(path).unwrap() == "1";
    let old = controller(root.path(), "nvme0", "tcp", "10.0.0.1", "live");
    // The new one cannot be connected: there is no /dev/nvme-fabrics here.
    assert_eq!(kernel.follow(&spec(), &[rdma]), [rdma, tcp]);
    assert!(!deleted(&old));
    let new = controller(root.path(), "nvme1", "rdma", "10.0.0.2", "connecting");
    assert_eq!(kernel.follow(&spec(), &[rdma]), [rdma, tcp]);
    assert!(!deleted(&old), "the other one is not live");
    controller(root.path(), "nvme1", "rdma", "10.0.0.2", "live");
    // Another attachment of the subsystem may go over the old one.
    kernel.users().insert(NQN.into(), ["b".into()].into());
    assert_eq!(kernel.follow(&spec(), &[rdma]), [rdma, tcp]);
    assert!(!deleted(&old));
    kernel.users().clear();
    assert_eq!(kernel.follow(&spec(), &[rdma]), [rdma]);
    assert!(deleted(&old) && !deleted(&new));
}

#[test]
fn paths_that_are_wanted_stay() {
    let root = tempfile::tempdir().unwrap();
    let kernel = method(root.path());
    let all = [
        controller(root.path(), "nvme0", "tcp", "10.0.0.1", "live"),
        controller(root.path(), "nvme1", "rdma", "10.0.0.2", "live"),
    ];
    let [tcp, rdma] = [spec().paths[0], spec().paths[1]];
    assert_eq!(kernel.follow(&spec(), &[rdma, tcp]), [rdma, tcp]);
    for file in all {
        assert_eq!(fs::read_to_string(file).unwrap(), "0\n");
    }
}

/// A subsystem with a connection and two namespaces, 1 and 2.
fn appliance(root: &Path) {
    for (attribute, value) in [
        ("subsysnqn", NQN),
        ("hostnqn", "h"),
        ("state", "live"),
        ("transport", "tcp"),
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
