//! A descriptor that can be waited for. Flow: policy.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// A descriptor of its own that tokio waits for.
#[derive(Debug)]
pub(crate) struct Source(AsyncFd<OwnedFd>);

impl Source {
    /// Registers a descriptor that does not block.
    #[expect(unsafe_code, reason = "tokio has no safe way to wait for a descriptor of a kind it does not know")]
    pub(crate) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is owned by what is registered, which never changes it and closes it after it has been
        // taken off the reactor.
        unsafe { AsyncFd::register(descriptor) }.map(Self).map_err(Into::into)
    }

    /// Uses the descriptor for what does not wait.
    pub(crate) fn with<T>(&self, work: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        work(self.0.get_ref().as_fd())
    }

    /// Waits until `read` does not find the descriptor empty, and gives what it reads.
    pub(crate) async fn read<T>(&self, mut read: impl FnMut(BorrowedFd<'_>) -> Result<T, Errno>) -> io::Result<T> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(result) = ready.try_io(|source| read(source.get_ref().as_fd()).map_err(Into::into)) {
                return result;
            }
        }
    }
}
