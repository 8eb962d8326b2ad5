//! Writes the CRDs into `charts/roadstead/crds` (or into the folder given).

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let folder = std::env::args_os().nth(1).map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../charts/roadstead/crds"
            ))
        },
        PathBuf::from,
    );
    match write_all(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crdgen: {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn write_all(folder: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(folder)?;
    for manifest in roadstead_crds::manifests()? {
        std::fs::write(folder.join(manifest.file_name), manifest.yaml)?;
    }
    Ok(())
}
