//! Which socket is Docker's. Flow: discover.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use netdiag_model::fact::{Gap, SourceKind};

use super::listed;
use crate::discover::Options;

/// Where Podman's service listens when it runs for all users.
pub(super) const PODMAN: &str = "/run/podman/podman.sock";

/// Where Docker's socket may be, first to last.
pub(super) struct Search {
    candidates: Vec<PathBuf>,
    /// A `DOCKER_HOST` that leads to no socket of this host.
    elsewhere: Option<String>,
}

impl Search {
    /// A socket that was configured is the only one. Otherwise `DOCKER_HOST` says where it is, as it does to Docker's
    /// own client, and the usual places come after it.
    pub(super) fn new(configured: &Path, docker_host: Option<&str>) -> Self {
        let usual = Options::default().docker_socket;
        if configured != usual {
            return Self { candidates: vec![configured.into()], elsewhere: None };
        }
        let docker_host = docker_host.filter(|host| !host.is_empty());
        let socket = docker_host.and_then(|host| host.strip_prefix("unix://"));
        let elsewhere = docker_host.filter(|_| socket.is_none()).map(str::to_owned);
        let candidates = socket.map(PathBuf::from).into_iter().chain([usual, "/var/run/docker.sock".into()]).collect();
        Self { candidates, elsewhere }
    }

    /// The first that is there; one that may not be looked at counts as there, so that its gap says why.
    pub(super) fn found(&self) -> Option<PathBuf> {
        let there = |path: &Path| match fs::metadata(path) {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        self.candidates.iter().find(|path| there(path)).cloned()
    }

    /// All places, in words.
    pub(super) fn how(&self) -> String {
        listed(&self.candidates)
    }

    /// The gap of a host without Docker.
    pub(super) fn absent(&self) -> Gap {
        Gap {
            source: SourceKind::Docker,
            netns: None,
            object: self.how(),
            why: "there is no such socket: this host has no Docker, or its daemon does not run".to_owned(),
            fix: "start Docker (`systemctl start docker`), or name its socket, if this host should have it".to_owned(),
            absent: true,
        }
    }

    /// The gap of a daemon that is not on this host.
    pub(super) fn elsewhere(&self) -> Option<Gap> {
        self.elsewhere.as_ref().map(|host| Gap {
            source: SourceKind::Docker,
            netns: None,
            object: format!("DOCKER_HOST={host}"),
            why: "only a daemon of this host can have containers here, and only its unix socket is read".to_owned(),
            fix: "unset DOCKER_HOST, or set it to unix:// and the path of the socket".to_owned(),
            absent: false,
        })
    }
}

/// True where both paths lead to one socket: podman-docker makes Docker's a link to Podman's.
pub(super) fn same(one: Option<&Path>, other: &Path) -> bool {
    let canonical = |path: &Path| fs::canonicalize(path).ok();
    one.and_then(canonical).is_some_and(|one| canonical(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::{Search, same};
    use std::{fs, os::unix::fs::symlink, path::Path};

    const USUAL: &str = "/run/docker.sock";

    #[test]
    fn a_configured_socket_is_the_only_one() {
        let search = Search::new(Path::new("/tmp/own.sock"), Some("unix:///tmp/other.sock"));
        assert_eq!(search.how(), "unix:/tmp/own.sock");
    }

    #[test]
    fn docker_host_comes_before_the_usual_places() {
        let search = Search::new(Path::new(USUAL), Some("unix:///tmp/other.sock"));
        assert_eq!(search.how(), "unix:/tmp/other.sock, unix:/run/docker.sock, unix:/var/run/docker.sock");
        assert!(search.elsewhere().is_none());
    }

    #[test]
    fn a_docker_host_over_the_network_is_a_gap_and_the_usual_places_are_read() {
        for host in ["tcp://10.0.0.1:2375", "ssh://host", "garbage"] {
            let search = Search::new(Path::new(USUAL), Some(host));
            assert_eq!(search.how(), "unix:/run/docker.sock, unix:/var/run/docker.sock");
            assert_eq!(search.elsewhere().unwrap().object, format!("DOCKER_HOST={host}"));
        }
        assert!(Search::new(Path::new(USUAL), Some("")).elsewhere().is_none());
    }

    #[test]
    fn no_socket_at_all_means_no_docker() {
        let directory = tempfile::tempdir().unwrap();
        let search = Search::new(&directory.path().join("docker.sock"), None);
        assert_eq!(search.found(), None);
        assert!(search.absent().absent);
    }

    #[test]
    fn a_link_to_the_other_socket_is_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("podman.sock"), directory.path().join("docker.sock"));
        fs::write(&real, "").unwrap();
        symlink(&real, &link).unwrap();
        assert!(same(Some(&link), &real));
        assert!(!same(Some(directory.path()), &real));
        assert!(!same(None, &real));
    }
}
