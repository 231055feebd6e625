//! Docker, and Podman where it speaks Docker's API, by its socket. Flow: discover.
//!
//! All containers are listed and each is inspected. What the list says of a container is kept where inspecting it
//! fails, so a daemon that hangs on one container costs the details of that one.

use std::{
    collections::BTreeMap,
    env,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error as ApiError,
    models::{ContainerInspectResponse, ContainerSummary},
    query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder, ListNetworksOptions},
};
use futures_util::{StreamExt as _, stream};
use netdiag_model::{
    fact::{ContainerFact, Facts, Gap, Runtime, SourceKind},
    id::NetnsId,
};
use tokio::{net::UnixStream, time::Instant};

use self::socket::{PODMAN, Search};
use super::{Scope, cause, procfs::Procfs, report};
use crate::{netns::Namespace, oddities::Oddities};

/// Answers of the API to facts.
mod convert;
/// Which socket is Docker's.
mod socket;

/// How many containers are inspected at once.
const CONCURRENT: usize = 8;

/// Docker's socket, where there is one.
pub(crate) fn found_socket(configured: &Path) -> Option<PathBuf> {
    Search::new(configured, env::var("DOCKER_HOST").ok().as_deref()).found()
}

/// Reads every daemon of this host. The futures are boxed: those of the API's client are large.
pub(super) async fn read(scope: &Scope) -> Facts {
    let docker_host = env::var("DOCKER_HOST").ok();
    let search = Search::new(&scope.options.docker_socket, docker_host.as_deref());
    let docker = async {
        match search.found() {
            Some(socket) => Box::pin(read_daemon(scope, &socket)).await,
            None => report(SourceKind::Docker, search.how(), vec![search.absent()]),
        }
    };
    let podman = async {
        if socket::same(search.found().as_deref(), Path::new(PODMAN)) || !Path::new(PODMAN).exists() {
            Facts::default()
        } else {
            Box::pin(read_daemon(scope, Path::new(PODMAN))).await
        }
    };
    let (mut facts, podman) = tokio::join!(docker, podman);
    facts.merge(podman);
    if let (Some(report), Some(gap)) = (facts.reports.first_mut(), search.elsewhere()) {
        report.gaps.push(gap);
    }
    facts
}

/// Why one request was not answered.
#[derive(Debug, thiserror::Error)]
enum DaemonError {
    #[error("{what}: no answer within {} ms", .after.as_millis())]
    Hangs { what: &'static str, after: Duration },
    #[error("{what}")]
    Api {
        what: &'static str,
        #[source]
        source: ApiError,
    },
}

impl DaemonError {
    const fn is_hang(&self) -> bool {
        matches!(self, Self::Hangs { .. })
    }

    /// True where the daemon does not know what it was asked for.
    const fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { source: ApiError::DockerResponseServerError { status_code: 404, .. }, .. })
    }
}

/// A daemon that answered, and how long it is waited for.
struct Daemon {
    api: Docker,
    runtime: Runtime,
    /// The most one request may take.
    bound: Duration,
    /// When the last request must have ended.
    end: Instant,
}

async fn read_daemon(scope: &Scope, socket: &Path) -> Facts {
    let how = format!("unix:{}", socket.display());
    let timeout = scope.options.timeout;
    // Version, lists and inspections follow each other, and together they must end before the source is cut off.
    let (bound, end) = (timeout * 3 / 10, Instant::now() + timeout * 9 / 10);
    match Daemon::connect(socket, bound, end).await {
        Ok(daemon) => daemon.read(&how, scope).await,
        Err((why, fix)) => {
            let gap = gap(&how, why, fix);
            report(SourceKind::Docker, how, vec![gap])
        }
    }
}

impl Daemon {
    /// Connects and agrees on a version; an error is why not, and what to do about it.
    async fn connect(socket: &Path, bound: Duration, end: Instant) -> Result<Self, (String, &'static str)> {
        // Connecting first by hand tells a missing permission from a dead daemon; the API's client tells neither.
        UnixStream::connect(socket).await.map(drop).map_err(|error| (error.to_string(), connect_fix(error.kind())))?;
        let path = socket.to_str().ok_or_else(|| ("its path is not UTF-8".to_owned(), "name another path"))?;
        let negotiate = async {
            let api = Docker::connect_with_unix(path, bound.as_secs().max(1), API_DEFAULT_VERSION)?;
            let api = api.negotiate_version().await?;
            let version = api.version().await?;
            Ok((api, version))
        };
        match within(bound, "version", negotiate).await {
            Ok((api, version)) => Ok(Self { api, runtime: convert::runtime(&version), bound, end }),
            Err(error) => Err((
                cause::chain(&error),
                "see whether `docker version` answers; give it longer with --timeout, or look at its log",
            )),
        }
    }

    async fn read(&self, how: &str, scope: &Scope) -> Facts {
        let mut gaps = Vec::new();
        let (containers, networks) = tokio::join!(
            self.list(true),
            within(self.bound, "list networks", self.api.list_networks(None::<ListNetworksOptions>)),
        );
        let containers = match containers {
            Ok(containers) => containers,
            Err(error) => {
                gaps.push(gap(how, cause::chain(&error), "see whether `docker ps --all` answers"));
                // One container in a state the API's client does not know spoils the whole list; one that runs has none.
                if error.is_hang() { Vec::new() } else { self.list(false).await.unwrap_or_default() }
            }
        };
        let networks = networks.unwrap_or_else(|error| {
            gaps.push(gap(how, cause::chain(&error), "see whether `docker network ls` answers"));
            Vec::new()
        });
        let mut notes = Notes::default();
        let mut facts = Facts {
            docker_networks: networks
                .into_iter()
                .filter_map(|network| convert::network(self.runtime, network, &mut notes.odd))
                .collect(),
            containers: self.inspect_all(containers, &mut notes).await,
            ..Facts::default()
        };
        enter(&mut facts.containers, scope, &mut notes.lost);
        facts.containers.sort_by(|one, other| one.id.cmp(&other.id));
        facts.docker_networks.sort_by(|one, other| one.name.cmp(&other.name));
        gaps.extend(notes.gaps(how));
        facts.merge(report(SourceKind::Docker, how.to_owned(), gaps));
        facts
    }

    async fn list(&self, all: bool) -> Result<Vec<ContainerSummary>, DaemonError> {
        let options = ListContainersOptionsBuilder::new().all(all).build();
        within(self.bound, "list containers", self.api.list_containers(Some(options))).await
    }

    /// Inspects containers, as many as time allows.
    async fn inspect_all(&self, listed: Vec<ContainerSummary>, notes: &mut Notes) -> Vec<ContainerFact> {
        let mut facts = Vec::new();
        let mut left: BTreeMap<_, _> = listed
            .into_iter()
            .filter_map(|summary| convert::listed(self.runtime, summary, &mut notes.odd))
            .map(|fact| (fact.id.clone(), fact))
            .collect();
        let ids: Vec<_> = left.keys().cloned().collect();
        let mut answers = stream::iter(ids).map(|id| self.inspect(id)).buffer_unordered(CONCURRENT);
        while let Ok(Some((id, answer))) = tokio::time::timeout_at(self.end, answers.next()).await {
            let Some(mut fact) = left.remove(&id) else { continue };
            match answer {
                Ok(inspected) => convert::inspected(&mut fact, inspected, &mut notes.odd),
                // It was removed after it had been listed.
                Err(error) if error.is_not_found() => continue,
                Err(error) => notes.failed.note(format_args!("{id}: {}", cause::chain(&error))),
            }
            facts.push(fact);
        }
        for id in left.keys() {
            notes.failed.note(format_args!("{id}: no time left to ask"));
        }
        facts.extend(left.into_values());
        facts
    }

    async fn inspect(&self, id: String) -> (String, Result<ContainerInspectResponse, DaemonError>) {
        let request = self.api.inspect_container(&id, None::<InspectContainerOptions>);
        let answer = within(self.bound, "inspect", request).await;
        (id, answer)
    }
}

/// What did not fit or could not be read, of all containers and networks together.
#[derive(Default)]
struct Notes {
    /// Values in no form the API promises.
    odd: Oddities,
    /// Containers that could not be inspected.
    failed: Oddities,
    /// Containers whose namespace could not be found.
    lost: Oddities,
}

impl Notes {
    fn gaps(&self, how: &str) -> Vec<Gap> {
        [
            (&self.odd, "values of its answers", "compare with `docker inspect`; the rest of the answers was read"),
            (&self.failed, "details of containers", "see whether `docker inspect` of them answers, then try again"),
            (&self.lost, "namespaces of containers", "run as root in the daemon's pid namespace, then try again"),
        ]
        .into_iter()
        .filter(|(notes, ..)| !notes.is_empty())
        .map(|(notes, object, fix)| gap(&format!("{object} in {how}"), notes.to_string(), fix))
        .collect()
    }
}

async fn within<T>(
    after: Duration,
    what: &'static str,
    request: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, DaemonError> {
    match tokio::time::timeout(after, request).await {
        Ok(Err(ApiError::RequestTimeoutError)) | Err(_) => Err(DaemonError::Hangs { what, after }),
        Ok(answer) => answer.map_err(|source| DaemonError::Api { what, source }),
    }
}

/// Finds the namespaces of running containers by their pids.
fn enter(containers: &mut [ContainerFact], scope: &Scope, lost: &mut Oddities) {
    let procfs = Procfs::new(&scope.options.proc_dir);
    for container in containers {
        let Some(pid) = container.pid else { continue };
        match netns(&procfs, pid, &scope.namespaces) {
            Ok(id) => container.netns = Some(id),
            Err(why) => lost.note(format_args!("{}, pid {pid}: {why}", container.id)),
        }
    }
}

fn netns(procfs: &Procfs, pid: u32, namespaces: &[Namespace]) -> Result<NetnsId, String> {
    let inode = procfs.netns(pid).map_err(|error| error.to_string())?;
    let found = namespaces.iter().find(|namespace| namespace.id.inode == inode);
    found
        .map(|namespace| namespace.id)
        .ok_or_else(|| format!("net:[{inode}] was not there when namespaces were listed"))
}

fn gap(object: &str, why: String, fix: &str) -> Gap {
    Gap { source: SourceKind::Docker, netns: None, object: object.to_owned(), why, fix: fix.to_owned(), absent: false }
}

fn connect_fix(kind: ErrorKind) -> &'static str {
    if kind == ErrorKind::PermissionDenied {
        "run as root, or in the group that owns the socket"
    } else {
        "start the daemon (`systemctl start docker`), or remove its socket if it is gone for good"
    }
}

/// The name a gap gives to a socket that was looked for.
fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("unix:{}", path.display())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
