//! The socket itself: who may connect, and whose it is. Flow: policy.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use tokio::net::UnixListener;

/// Owner and group.
const MODE: u32 = 0o660;

/// Listens at a path, in the place of whatever a dead agent left there. Whoever may connect from the first moment on is
/// who may connect for good.
///
/// # Errors
/// The directory does not exist or may not be written, or there is no such group.
pub(crate) fn listen(path: &Path, group: Option<u32>) -> io::Result<UnixListener> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    // Of an agent with the same pid that did not come to rename it.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(MODE))?;
    chown(&new, None, group)?;
    fs::rename(&new, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::listen;
    use std::os::unix::{fs::PermissionsExt as _, net::UnixStream};

    #[tokio::test]
    async fn a_socket_takes_the_place_of_the_one_before_and_lets_only_owner_and_group_in() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        drop(listen(&path, None).unwrap());
        assert!(UnixStream::connect(&path).is_err(), "nobody listens any more");
        let _listener = listen(&path, None).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(directory.path().read_dir().unwrap().count(), 1);
    }
}
