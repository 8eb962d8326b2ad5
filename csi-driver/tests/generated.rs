//! The generated code must be what the proto files say.

use std::path::Path;

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(
        ["csi/v1/csi.proto", "pluginregistration/registration.proto"],
        [root.join("proto")],
    )
    .unwrap();
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .btree_map(".")
        .generate_default_stubs(true)
        .out_dir(out.path())
        .compile_fds(descriptors)
        .unwrap();
    for (generated, checked_in) in [
        ("csi.v1.rs", "src/proto/csi.rs"),
        ("pluginregistration.rs", "src/proto/registration.rs"),
    ] {
        let fresh = std::fs::read_to_string(out.path().join(generated)).unwrap();
        let checked_in = root.join(checked_in);
        if std::env::var_os("ROADSTEAD_GENERATE").is_some() {
            std::fs::write(&checked_in, &fresh).unwrap();
        }
        assert!(
            std::fs::read_to_string(&checked_in).unwrap_or_default() == fresh,
            "{} is stale; renew it with: ROADSTEAD_GENERATE=1 cargo test -p roadstead-csi --test generated",
            checked_in.display()
        );
    }
}
