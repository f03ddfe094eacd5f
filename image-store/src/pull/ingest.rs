//! A layer's blob on its way: who fetches it, and what of it is kept for a later attempt.
//!
//! `ingest/<hex>/lock` is held by flock while somebody fetches; `data` holds the compressed bytes up to where it
//! stopped, not synced (the digest decides whether they are good). Small blobs are not kept, nor any where room is short.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::Error;
use crate::store::file;
use crate::{Digest, Store};

/// Blobs smaller than this are fetched again rather than kept.
const KEEP_FROM: u64 = 8 << 20;
/// Nor is anything kept on a file system with less room than so many times the blob: unpacking it comes first.
const ROOM: u64 = 8;
const POLL: Duration = Duration::from_millis(50);

/// Locks by layer between the pulls of this process.
#[derive(Default)]
pub(super) struct Locks {
    locks: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

impl Locks {
    /// Waits until nobody else in this process works on the layer.
    pub(super) async fn lock(&self, layer: Digest) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let known = locks.get(&layer).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::new(tokio::sync::Mutex::new(()));
                locks.insert(layer, Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }
}

/// The right to fetch a blob, and the bytes that are there of it.
#[derive(Debug)]
pub(super) struct Ingest {
    directory: PathBuf,
    _lock: File,
    keep: bool,
    data: Option<File>,
    /// Bytes kept.
    pub(super) length: u64,
}

impl Ingest {
    /// Waits until no other process fetches the blob. Polls, so that it can be dropped at any time.
    pub(super) async fn acquire(store: &Store, blob: &Digest, size: u64) -> Result<Self, Error> {
        let directory = store.root().join("ingest").join(blob.hex());
        loop {
            if let Some(lock) = try_lock(&directory)? {
                let keep = size >= KEEP_FROM && has_room(&directory, size);
                let mut ingest = Self { directory, _lock: lock, keep, data: None, length: 0 };
                ingest.adopt(size);
                return Ok(ingest);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The kept bytes, from the first on.
    pub(super) fn open_kept(&self) -> Result<Option<File>, Error> {
        if self.length == 0 {
            return Ok(None);
        }
        let path = self.data_path();
        File::open(&path).map(Some).map_err(Error::ingest("open", &path))
    }

    /// Keeps the next bytes. Keeping is a courtesy: on a full disk what was kept goes, and the pull goes on without.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        if !self.keep {
            return;
        }
        if let Err(error) = self.append(bytes) {
            tracing::debug!(path = %self.directory.display(), %error, "partial download not kept");
            self.keep = false;
            self.forget();
        } else {
            self.length += bytes.len() as u64;
        }
    }

    /// Drops the kept bytes: they were not good.
    pub(super) fn forget(&mut self) {
        self.data = None;
        self.length = 0;
        let _ = file::remove_if_there(&self.data_path());
    }

    /// The layer is committed: nothing of the download is needed any more.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        self.forget();
        crate::fault::point("pull.ingest.finish")?;
        std::fs::remove_dir_all(&self.directory).map_err(Error::ingest("remove", &self.directory))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.data.is_none() {
            let path = self.data_path();
            self.data = Some(OpenOptions::new().append(true).create(true).mode(0o600).open(path)?);
        }
        self.data.as_mut().map_or(Ok(()), |data| data.write_all(bytes))
    }

    fn adopt(&mut self, size: u64) {
        let length = std::fs::metadata(self.data_path()).map_or(0, |meta| meta.len());
        self.length = length;
        if length > size || !self.keep {
            self.forget();
        }
    }

    fn data_path(&self) -> PathBuf {
        self.directory.join("data")
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // Nothing kept: nothing to leave behind either. Fails where the directory is gone or has data in it.
        if self.length == 0 {
            let _ = file::remove_if_there(&self.directory.join("lock"));
            let _ = std::fs::remove_dir(&self.directory);
        }
    }
}

fn has_room(directory: &Path, size: u64) -> bool {
    rustix::fs::statvfs(directory)
        .is_ok_and(|status| status.f_bavail.saturating_mul(status.f_frsize) / ROOM >= size)
}

// The lock is only ours if its file is still the one in the directory: the last holder may have removed it.
fn try_lock(directory: &Path) -> Result<Option<File>, Error> {
    file::create_dirs(directory).map_err(Error::ingest("create directory", directory))?;
    let path = directory.join("lock");
    let lock = match file::open_lock(&path) {
        Ok(lock) => lock,
        // The last holder removed the directory in between.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let _ = std::fs::remove_dir(directory);
            return Err(Error::ingest("open", &path)(error));
        }
    };
    match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => return Ok(None),
        Err(errno) => return Err(Error::ingest("lock", &path)(errno.into())),
    }
    let ours = lock.metadata().map_err(Error::ingest("inspect", &path))?;
    let there = std::fs::metadata(&path);
    Ok(there.is_ok_and(|there| there.ino() == ours.ino() && there.dev() == ours.dev()).then_some(lock))
}
