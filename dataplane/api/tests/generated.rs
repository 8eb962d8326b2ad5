//! The generated code must be what the proto file says.

use std::path::Path;

#[test]
fn keys_are_not_shown() {
    let keys = roadstead_api::v1::HostKeys {
        host: "DHHC-1:00:x:".into(),
        controller: "DHHC-1:00:y:".into(),
    };
    let external = roadstead_api::v1::External {
        keys: Some(keys),
        ..Default::default()
    };
    let shown = format!("{external:?}");
    assert!(
        shown.contains("HostKeys") && !shown.contains("DHHC"),
        "{shown}"
    );
}

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(["roadstead/v1/node.proto"], [root.join("proto")]).unwrap();
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .skip_debug(["roadstead.v1.HostKeys"])
        .out_dir(out.path())
        .compile_fds(descriptors)
        .unwrap();
    let fresh = std::fs::read_to_string(out.path().join("roadstead.v1.rs")).unwrap();
    let checked_in = root.join("src/v1.rs");
    if std::env::var_os("ROADSTEAD_GENERATE").is_some() {
        std::fs::write(&checked_in, &fresh).unwrap();
    }
    assert!(
        std::fs::read_to_string(&checked_in).unwrap_or_default() == fresh,
        "src/v1.rs is stale; renew it with: ROADSTEAD_GENERATE=1 cargo test -p roadstead-api --test generated"
    );
}
