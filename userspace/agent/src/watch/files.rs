//! A directory of policy files, by inotify. Flow: policy.
//!
//! Editors write a file beside the old one and rename it, or truncate and write; configuration management does it for
//! several files in a row. So the bell rings once the directory has been quiet for a moment.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Bell, Changes, source::Source};

/// How long a directory must have been quiet.
const SETTLE: Duration = Duration::from_millis(200);
/// The longest to wait for that: somebody who writes all the time must not keep a change from being seen.
const LONGEST_SETTLE: Duration = Duration::from_secs(2);
/// How often to look for a directory that does not exist.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Room for events; what they say is not read.
const BUFFER: usize = 4096;

/// Rings whenever something happens in a directory; never ends.
pub(crate) async fn watch(directory: PathBuf, bell: Arc<Bell>) {
    loop {
        if let Ok(inotify) = open(&directory) {
            // What happened before the watch began has been missed.
            bell.ring(Changes::FILES);
            // It ends when the directory does, or is replaced by another of its name.
            drop(ring(&inotify, &directory, &bell).await);
            bell.ring(Changes::FILES);
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn open(directory: &Path) -> io::Result<Source> {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    inotify::add_watch(
        &inotify,
        directory,
        WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR,
    )?;
    Source::new(inotify)
}

async fn ring(inotify: &Source, directory: &Path, bell: &Bell) -> io::Result<()> {
    let watched = identity(directory)?;
    loop {
        drain(inotify).await?;
        let end = Instant::now() + LONGEST_SETTLE;
        loop {
            let quiet = (Instant::now() + SETTLE).min(end);
            match timeout_at(quiet, drain(inotify)).await {
                Ok(more) => more?,
                Err(_) => break,
            }
        }
        bell.ring(Changes::FILES);
        if identity(directory)? != watched {
            return Ok(());
        }
    }
}

/// What a name leads to.
fn identity(directory: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::stat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Waits for events and reads all there are.
async fn drain(inotify: &Source) -> io::Result<()> {
    let mut buffer = [0; BUFFER];
    inotify.read(|inotify| rustix::io::read(inotify, &mut buffer).map(drop)).await
}

#[cfg(test)]
mod tests {
    use super::watch;
    use crate::watch::{Bell, Changes};
    use std::{fs, path::Path, sync::Arc, time::Duration};

    /// Begins to watch, and takes what the beginning rings for.
    async fn begin(directory: &Path) -> Arc<Bell> {
        let bell = Arc::new(Bell::default());
        tokio::spawn(watch(directory.to_owned(), Arc::clone(&bell)));
        if directory.exists() {
            heard(&bell).await;
        }
        bell
    }

    async fn heard(bell: &Bell) {
        tokio::time::timeout(Duration::from_secs(20), bell.heard()).await.expect("the bell rings");
        assert_eq!(bell.take(), Changes::FILES);
    }

    async fn silent(bell: &Bell) {
        assert!(tokio::time::timeout(Duration::from_millis(500), bell.heard()).await.is_err(), "{}", bell.take());
    }

    #[tokio::test]
    async fn a_file_that_is_written_renamed_or_removed_rings_once_when_it_is_quiet() {
        let directory = tempfile::tempdir().unwrap();
        let (file, other) = (directory.path().join("a.yaml"), directory.path().join(".a.yaml.new"));
        let bell = begin(directory.path()).await;
        for part in ["security_", "groups: []"] {
            fs::write(&file, part).unwrap();
        }
        heard(&bell).await;
        silent(&bell).await;
        fs::write(&other, "").unwrap();
        fs::rename(&other, &file).unwrap();
        heard(&bell).await;
        fs::remove_file(&file).unwrap();
        heard(&bell).await;
    }

    #[tokio::test]
    async fn a_directory_that_comes_later_or_is_replaced_is_watched_all_the_same() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("policy.d");
        let bell = begin(&directory).await;
        fs::create_dir(&directory).unwrap();
        heard(&bell).await;
        fs::rename(&directory, parent.path().join("old")).unwrap();
        fs::create_dir(&directory).unwrap();
        heard(&bell).await;
        // The new one is found within a second or two.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        bell.take();
        fs::write(directory.join("a.yaml"), "").unwrap();
        heard(&bell).await;
    }
}
