//! Enters network namespaces; the only `setns` in the project.
//!
//! A thread that has entered a namespace never goes back: it ends with the work it was made for, so no other work can
//! find itself in the wrong namespace. A handle keeps its namespace alive, so one that is removed while it is read can
//! still be read to the end.

use std::{
    fs::File,
    future::Future,
    io,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use netdiag_model::id::NetnsId;
use rustix::{
    fs::{FsWord, fstat, stat, statfs},
    io::Errno,
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinSet,
    time::Instant,
};

/// Namespaces worked in at once. More would not be faster: the kernel takes one lock for most of it.
pub(crate) const AT_ONCE: usize = 16;

/// `NSFS_MAGIC` of `linux/magic.h`: the file system a namespace's file is on.
const NSFS_MAGIC: FsWord = 0x6e73_6673;

/// Device and inode of the namespace a path leads to; none where it leads to something else, as a name does before its namespace
/// is mounted there.
///
/// # Errors
/// The path leads nowhere, or cannot be asked.
pub(crate) fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    // Asked before anything is opened: to open a FIFO somebody put there would block for ever.
    if statfs(path)?.f_type != NSFS_MAGIC {
        return Ok(None);
    }
    let data = stat(path)?;
    Ok(Some((data.st_dev, data.st_ino)))
}

/// A network namespace held open.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Identity.
    pub id: NetnsId,
    /// True for the namespace of process 1.
    pub host: bool,
    file: Arc<File>,
}

/// Why work in a namespace was not done.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The file could not be opened.
    #[error("open {path}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not a network namespace, or has ceased to be one.
    #[error("enter network namespace {path}")]
    Enter {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A new network namespace could not be made, or the thread in it did not finish.
    #[error("make a network namespace and work in it")]
    New(#[source] io::Error),
    /// The thread could not be started or did not finish.
    #[error("run in {id}")]
    Thread {
        /// Which namespace.
        id: NetnsId,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl NetnsError {
    /// What the system said, without what was tried with which file: like causes are counted together.
    pub fn into_cause(self) -> io::Error {
        match self {
            Self::Open { source, .. }
            | Self::Enter { source, .. }
            | Self::Thread { source, .. }
            | Self::New(source) => source,
        }
    }
}

impl Namespace {
    /// Opens the namespace at a path (`/proc/<pid>/ns/net`, `/run/netns/<name>`) and reads its identity.
    ///
    /// # Errors
    /// The path cannot be opened, or no namespace is mounted there.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let file = File::open(path).map_err(|source| NetnsError::Open { path: path.into(), source })?;
        let entered = |source| NetnsError::Enter { path: path.into(), source };
        let inode = fstat(&file).map_err(|errno| entered(errno.into()))?.st_ino;
        let file = Arc::new(file);
        let inside = Arc::clone(&file);
        // The cookie is an attribute of a socket, and a socket belongs to the namespace its thread was in.
        let cookie = thread::scope(|scope| {
            scope.spawn(move || enter(&inside).and_then(|()| cookie())).join().map_err(|_| io::Error::other("panicked"))
        })
        .and_then(|result| result)
        .map_err(entered)?;
        Ok(Self { id: NetnsId { inode, cookie }, host: false, file })
    }

    /// The open file, for netlink requests that name a namespace by descriptor.
    pub fn as_file(&self) -> &File {
        &self.file
    }

    /// Runs blocking work on a thread that has entered this namespace; a child process it starts is in it as well.
    ///
    /// # Errors
    /// The thread could not be started, could not enter the namespace, or panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, NetnsError> {
        let failed = |source| NetnsError::Thread { id: self.id, source };
        let (send, receive) = oneshot::channel();
        let file = Arc::clone(&self.file);
        thread::Builder::new()
            .name(format!("netns-{}", self.id.inode))
            .spawn(move || {
                let result = enter(&file).map(|()| work());
                // The receiver is gone when the caller ran out of time; nobody wants the result then.
                drop(send.send(result));
            })
            .map_err(failed)?;
        receive.await.map_err(|_| failed(io::Error::other("the thread panicked")))?.map_err(failed)
    }
}

/// Does the same work in many namespaces, in at most [`AT_ONCE`] of them at any moment; results come in the order of the
/// namespaces. What is not done in time is given up, so that one slow namespace costs only itself.
pub(crate) async fn in_each<T, E, F>(
    namespaces: &[Namespace],
    deadline: Instant,
    work: impl Fn(Namespace) -> F,
) -> Vec<Result<T, E>>
where
    T: Send + 'static,
    E: From<NetnsError> + Send + 'static,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for (place, namespace) in namespaces.iter().enumerate() {
        let (permits, work) = (Arc::clone(&permits), work(namespace.clone()));
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            (place, work.await)
        });
    }
    let mut results: Vec<_> = namespaces.iter().map(|_| None).collect();
    let in_time = async {
        while let Some(joined) = tasks.join_next().await {
            if let Ok((place, result)) = joined {
                results[place] = Some(result);
            }
        }
    };
    let why = match tokio::time::timeout_at(deadline, in_time).await {
        Ok(()) => "the work panicked",
        Err(_) => "not done in time",
    };
    let undone = |id| NetnsError::Thread { id, source: io::Error::other(why) };
    let results = namespaces.iter().zip(results);
    results.map(|(namespace, result)| result.unwrap_or_else(|| Err(undone(namespace.id).into()))).collect()
}

/// Runs blocking work on a thread in a network namespace of its own. Unless the work hands the namespace on, it ends
/// with the thread, and every device in it with it.
///
/// # Errors
/// The namespace could not be made (it takes `CAP_SYS_ADMIN`), or the thread panicked.
pub async fn in_new<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NetnsError> {
    let (send, receive) = oneshot::channel();
    thread::Builder::new()
        .name("netns-new".to_owned())
        .spawn(move || {
            let result = leave_for_new().map(|()| work());
            // As above: the receiver may have run out of time.
            drop(send.send(result));
        })
        .map_err(NetnsError::New)?;
    receive.await.map_err(|_| NetnsError::New(io::Error::other("the thread panicked")))?.map_err(NetnsError::New)
}

#[expect(unsafe_code, reason = "unshare can take the table of open files away from under other threads")]
fn leave_for_new() -> io::Result<()> {
    // SAFETY: `NEWNET` alone is asked for, so the thread goes on sharing its open files with the others.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(Into::into)
}

fn enter(file: &File) -> io::Result<()> {
    match move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)) {
        // Staying where one is takes no privilege, but setns asks for it all the same.
        Err(Errno::PERM) if is_in(file)? => Ok(()),
        entered => entered.map_err(Into::into),
    }
}

/// True where the calling thread is in the namespace of a file.
fn is_in(file: &File) -> io::Result<bool> {
    let (there, here) = (fstat(file)?, stat("/proc/thread-self/ns/net")?);
    Ok((there.st_dev, there.st_ino) == (here.st_dev, here.st_ino))
}

/// The cookie of the calling thread's namespace; 0 before Linux 5.14, which has none.
fn cookie() -> io::Result<u64> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)?;
    match netns_cookie(&socket) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(0),
        result => result,
    }
}

/// `SO_NETNS_COOKIE`, which rustix does not wrap.
#[expect(unsafe_code, reason = "getsockopt with an option rustix does not know")]
fn netns_cookie(socket: &impl AsRawFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the whole call, `cookie` has room for the `length` bytes the kernel may write,
    // and both pointers are to live, exclusively borrowed locals.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use std::time::Duration;

    use tokio::time::Instant;

    use super::{AT_ONCE, Namespace, NetnsError, in_each, in_new};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test]
    async fn one_namespace_has_one_identity_whatever_path_leads_to_it() {
        let one = Namespace::open(Path::new("/proc/self/ns/net")).unwrap();
        let other = Namespace::open(Path::new(&format!("/proc/{}/ns/net", std::process::id()))).unwrap();
        assert_eq!(one.id, other.id);
    }

    #[tokio::test]
    async fn the_own_namespace_can_be_worked_in_without_privilege() {
        let own = Namespace::open(Path::new("/proc/self/ns/net")).unwrap();
        assert_eq!(own.run(|| 42).await.unwrap(), 42);
    }

    #[tokio::test]
    async fn work_in_many_namespaces_keeps_their_order_and_survives_a_panic() {
        let own = Namespace::open(Path::new("/proc/self/ns/net")).unwrap();
        let mut many = vec![own; 3];
        many[1].host = true;
        let results: Vec<Result<bool, NetnsError>> = in_each(&many, soon(), |namespace| async move {
            if namespace.host {
                return namespace.run(|| panic!("for the test")).await;
            }
            Ok(namespace.host)
        })
        .await;
        assert!(matches!(results[..], [Ok(false), Err(NetnsError::Thread { .. }), Ok(false)]));
    }

    #[tokio::test]
    async fn a_namespace_that_takes_too_long_costs_only_itself() {
        let own = Namespace::open(Path::new("/proc/self/ns/net")).unwrap();
        let mut many = vec![own; 2];
        many[1].host = true;
        let deadline = Instant::now() + Duration::from_secs(2);
        let results: Vec<Result<(), NetnsError>> = in_each(&many, deadline, |namespace| async move {
            if namespace.host {
                std::future::pending::<()>().await;
            }
            Ok(())
        })
        .await;
        assert!(matches!(results[..], [Ok(()), Err(NetnsError::Thread { .. })]));
    }

    #[tokio::test]
    async fn no_more_namespaces_are_worked_in_at_once_than_allowed() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static BUSY: AtomicUsize = AtomicUsize::new(0);
        let many = vec![Namespace::open(Path::new("/proc/self/ns/net")).unwrap(); 3 * AT_ONCE];
        let results: Vec<Result<usize, NetnsError>> = in_each(&many, soon(), |_| async {
            let busy = BUSY.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::task::yield_now().await;
            BUSY.fetch_sub(1, Ordering::SeqCst);
            Ok(busy)
        })
        .await;
        assert_eq!(results.into_iter().map(Result::unwrap).max(), Some(AT_ONCE));
    }

    #[tokio::test]
    async fn a_new_namespace_is_another_one_and_empty_but_for_loopback() {
        let identity = || Namespace::open(Path::new("/proc/thread-self/ns/net")).map(|here| here.id);
        let inside = in_new(move || (identity(), std::fs::read_to_string("/proc/thread-self/net/dev"))).await;
        let Ok((inside, devices)) = inside else {
            // Without CAP_SYS_ADMIN it must say so and not panic.
            assert!(matches!(inside, Err(NetnsError::New(_))));
            return;
        };
        assert_ne!(inside.unwrap(), identity().unwrap());
        assert_eq!(devices.unwrap().lines().filter(|line| line.contains(": ")).count(), 1);
    }

    #[test]
    fn a_file_that_is_no_namespace_is_an_error_with_its_path() {
        let error = Namespace::open(Path::new("/proc/self/status")).unwrap_err();
        assert_eq!(error.to_string(), "enter network namespace /proc/self/status");
    }
}
