//! Unix sockets that are root's from the first moment.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

/// Listens at `path`, in place of whatever socket an earlier process left there.
///
/// The socket is made under a hidden name, given mode 0600 and moved into place, so that nobody else can
/// connect at any time, and a watcher of the directory sees it once it answers.
///
/// # Errors
/// What the system said, with the path.
pub fn listen(path: &Path) -> io::Result<UnixListenerStream> {
    let told = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("cannot listen at {}: {error}", path.display()),
        )
    };
    let hidden = hidden_name(path).ok_or_else(|| {
        told(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a file name",
        ))
    })?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(told)?;
    }
    match std::fs::remove_file(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(told(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&hidden).map_err(told)?;
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600)).map_err(told)?;
    std::fs::rename(&hidden, path).map_err(told)?;
    Ok(UnixListenerStream::new(listener))
}

/// `/a/b.sock` to `/a/.b.sock`.
fn hidden_name(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    Some(path.with_file_name(format!(".{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replaces_a_socket_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/csi.sock");
        for _ in 0..2 {
            let _listener = listen(&path).unwrap();
            tokio::net::UnixStream::connect(&path).await.unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert!(listen(Path::new("/")).is_err());
    }
}
