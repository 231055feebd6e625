//! Daemons that know instances by name. Flow: discover.

use std::{error::Error as StdError, io, path::Path};

use bollard::{API_DEFAULT_VERSION, Docker, models::SystemVersion};
use netdiag_model::doctor::Check;
use tokio::time;

use super::{ANSWER, chain};
use crate::discover::Options;

/// What a trace lacks without Docker's answers.
const WITHOUT_DOCKER: &str = "names, labels, networks and published ports of containers are missing; the containers \
                              themselves are found by their processes";

/// Sockets of libvirt: the daemon of old, and the one per driver that replaces it.
const LIBVIRT: &[&str] = &["/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"];

/// Every daemon.
pub(super) async fn checks(options: &Options) -> Vec<Check> {
    vec![docker(&options.docker_socket).await, libvirt(LIBVIRT)]
}

async fn docker(socket: &Path) -> Check {
    match socket.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Check::ok("Docker", "not on this host"),
        Err(error) => return docker_error(socket, &error),
        Ok(_) => {}
    }
    match time::timeout(ANSWER, docker_version(socket)).await {
        Err(_) => Check::warning("Docker", format!("{}: no answer within {} s", socket.display(), ANSWER.as_secs()))
            .so(WITHOUT_DOCKER)
            .fix("`systemctl status docker` and `journalctl -u docker` tell what it waits for"),
        Ok(Err(error)) => docker_error(socket, &error),
        Ok(Ok(version)) => {
            let of = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
            Check::ok("Docker", format!("{}, API {}", of(version.version), of(version.api_version)))
        }
    }
}

async fn docker_version(socket: &Path) -> Result<SystemVersion, bollard::errors::Error> {
    // The client's own limit comes later than the caller's, which tells a hang from other errors.
    let limit = ANSWER.as_secs() * 2;
    let docker = Docker::connect_with_unix(&socket.to_string_lossy(), limit, API_DEFAULT_VERSION)?;
    docker.version().await
}

fn docker_error(socket: &Path, error: &(dyn StdError + 'static)) -> Check {
    let result = format!("{}: {}", socket.display(), chain(error));
    match kind(error) {
        Some(io::ErrorKind::ConnectionRefused) => {
            Check::warning("Docker", format!("{}: nobody listens", socket.display()))
                .so(WITHOUT_DOCKER)
                .fix("systemctl start docker, if this host is to run containers")
        }
        Some(io::ErrorKind::PermissionDenied) => {
            Check::unknown("Docker", result).so(WITHOUT_DOCKER).fix("run as root, or as a member of the group docker")
        }
        _ => Check::unknown("Docker", result).so(WITHOUT_DOCKER).fix("curl --unix-socket <socket> http://d/version"),
    }
}

/// What the system said, however deep in the error it is.
fn kind(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            // Something wrapped by a library; the system's own word is deeper.
            None | Some(io::ErrorKind::Other) => cause = error.source(),
            found => return found,
        }
    }
    None
}

fn libvirt(sockets: &[&str]) -> Check {
    let found = sockets.iter().find(|socket| Path::new(socket).exists());
    Check::ok("libvirt", found.map_or_else(|| "not on this host".to_owned(), |socket| (*socket).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{ANSWER, docker, libvirt};
    use netdiag_model::doctor::Status;
    use std::{os::unix::net::UnixListener, time::Instant};

    #[tokio::test]
    async fn a_host_without_docker_has_nothing_wrong_with_it() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(docker(&directory.path().join("docker.sock")).await.status, Status::Ok);
    }

    #[tokio::test]
    async fn a_daemon_that_is_gone_and_left_its_socket_is_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        drop(UnixListener::bind(&socket).unwrap());
        let check = docker(&socket).await;
        assert_eq!(check.status, Status::Warning, "{check:?}");
        assert!(check.result.ends_with("nobody listens"), "{check:?}");
    }

    #[tokio::test]
    async fn a_daemon_that_hangs_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let started = Instant::now();
        let check = docker(&socket).await;
        assert_eq!(check.status, Status::Warning, "{check:?}");
        assert!(started.elapsed() < ANSWER * 2);
    }

    #[test]
    fn libvirt_is_found_by_its_socket() {
        assert_eq!(libvirt(&["/no/such/socket"]).result, "not on this host");
        assert_eq!(libvirt(&["/no/such/socket", "/proc/self"]).result, "/proc/self");
    }
}
