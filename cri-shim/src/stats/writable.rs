//! How much a container has written: a walk over its upper directory, at most ten seconds old.
//!
//! A walk of a large layer does not hold up the answer for long: what is older is told with the time of its walk, and the
//! new walk goes on behind.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::usage::{self, Usage};

/// How old an answer may be before it is walked again.
const FRESH: Duration = Duration::from_secs(10);
/// How long an answer waits for a walk.
const PATIENCE: Duration = Duration::from_secs(2);

/// What lies in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) bytes: u64,
    pub(super) inodes: u64,
    /// Of its file system.
    pub(super) disk: Disk,
    /// Nanoseconds since the epoch.
    pub(super) timestamp: i64,
    at: Instant,
}

/// What a file system holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) bytes: u64,
    pub(super) inodes: u64,
    pub(super) inodes_free: u64,
}

/// The walks that are known, and those under way.
#[derive(Debug, Default)]
pub(super) struct Walks {
    done: Mutex<HashMap<String, Written>>,
    under_way: Mutex<HashMap<String, watch::Receiver<()>>>,
}

impl Walks {
    /// What a container has written; `None` when nothing is known yet.
    pub(super) async fn of(self: &Arc<Self>, id: &str, directory: &Path) -> Option<Written> {
        let known = lock(&self.done).get(id).copied();
        if known.is_some_and(|written| written.at.elapsed() < FRESH) {
            return known;
        }
        let mut walk = self.walk(id, directory.to_owned());
        // An error means that the walk is done and its sender gone.
        let _ = tokio::time::timeout(PATIENCE, walk.changed()).await;
        lock(&self.done).get(id).copied()
    }

    /// Forgets containers that are gone.
    pub(super) fn keep(&self, ids: &BTreeSet<String>) {
        lock(&self.done).retain(|id, _| ids.contains(id));
    }

    /// Joins the walk under way, or starts one.
    fn walk(self: &Arc<Self>, id: &str, directory: PathBuf) -> watch::Receiver<()> {
        let mut under_way = lock(&self.under_way);
        if let Some(walk) = under_way.get(id) {
            return walk.clone();
        }
        let (done, walk) = watch::channel(());
        under_way.insert(id.to_owned(), walk.clone());
        let (walks, id) = (Arc::clone(self), id.to_owned());
        tokio::task::spawn_blocking(move || {
            let timestamp = crate::fresh::now();
            let Usage { bytes, inodes } = usage::measure(&directory);
            let disk = disk(&directory);
            let written = Written { bytes, inodes, disk, timestamp, at: Instant::now() };
            lock(&walks.done).insert(id.clone(), written);
            lock(&walks.under_way).remove(&id);
            drop(done);
        });
        walk
    }
}

fn disk(directory: &Path) -> Disk {
    let stat = rustix::fs::statvfs(directory).map(|s| Disk {
        bytes: s.f_blocks.saturating_mul(s.f_frsize),
        inodes: s.f_files,
        inodes_free: s.f_ffree,
    });
    stat.unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_is_measured_once_in_ten_seconds() {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("a");
        std::fs::write(&file, vec![1u8; 100_000]).expect("file");
        std::fs::hard_link(&file, directory.path().join("b")).expect("link");
        std::fs::create_dir(directory.path().join("d")).expect("directory");
        let walks = Arc::new(Walks::default());
        let first = walks.of("c", directory.path()).await.expect("measured");
        assert!(first.bytes >= 100_000 && first.bytes < 200_000, "{first:?}");
        assert_eq!(first.inodes, 3);
        std::fs::write(directory.path().join("e"), b"x").expect("file");
        assert_eq!(walks.of("c", directory.path()).await, Some(first));
        walks.keep(&BTreeSet::new());
        assert_eq!(walks.of("c", directory.path()).await.expect("measured").inodes, 4);
    }
}
