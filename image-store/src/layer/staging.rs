//! Directories on their way in and out: written where no reader looks, renamed into place when whole; renamed away, then
//! unlinked. A directory in `.staging` is locked by its writer, so that a sweep takes only what a dead one left.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};

use super::{DiffId, Error};

/// Directory of layers being written.
pub const STAGING: &str = ".staging";
/// Directory of layers being removed.
pub const TRASH: &str = ".trash";

/// A directory that vanishes when dropped, unless it was committed.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    _lock: OwnedFd,
}

impl Staging {
    /// Makes a locked directory for a layer.
    pub fn create(layers: &Path, diff_id: &DiffId) -> Result<Self, Error> {
        loop {
            let path = unique(&layers.join(STAGING), diff_id);
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(Error::io("make the directory", &path))?,
            }
            match lock(&path) {
                // A sweep came between the two calls and took the directory for a dead writer's.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    let _ = fs::remove_dir(&path);
                    return Err(Error::io("lock", &path)(error));
                }
                Ok(lock) => return Ok(Self { path, _lock: lock }),
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Renames the directory to `target` and syncs the directory above; false when `target` exists already.
    pub fn commit(self, target: &Path) -> Result<bool, Error> {
        sync_directory(&self.path)?;
        crate::fault::point("layer.rename")?;
        match rustix::fs::renameat_with(CWD, &self.path, CWD, target, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Ok(false),
            Err(errno) => return Err(Error::io("rename to", target)(errno)),
        }
        crate::fault::point("layer.renamed")?;
        if let Some(above) = target.parent() {
            sync_directory(above)?;
        }
        Ok(true)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After a commit there is nothing at the old path. What can't be removed now, the next sweep removes.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Takes a committed layer out of sight, then removes it. The rename needs no space as long as the trash's directory has
/// a free entry; on a full disk without one the layer is removed where it is, its record first, so that it is none at once.
pub fn discard(layers: &Path, diff_id: &DiffId) -> Result<bool, Error> {
    let from = layers.join(diff_id.hex());
    let to = loop {
        let to = unique(&layers.join(TRASH), diff_id);
        match rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE) {
            Ok(()) => break to,
            Err(rustix::io::Errno::EXIST) => {}
            Err(rustix::io::Errno::NOENT) if !from.exists() => return Ok(false),
            Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
                let record = from.join(super::record::FILE);
                crate::store::file::remove_if_there(&record).map_err(Error::io("remove", &record))?;
                break from;
            }
            Err(errno) => return Err(Error::io("rename to", &to)(errno)),
        }
    };
    crate::fault::point("layer.trashed")?;
    fs::remove_dir_all(&to).map_err(Error::io("remove", &to))?;
    Ok(true)
}

/// Removes what dead writers and removals left; returns how many directories.
pub fn sweep(layers: &Path) -> Result<usize, Error> {
    let mut swept = 0;
    for (directory, is_locked) in [(STAGING, true), (TRASH, false)] {
        let directory = layers.join(directory);
        for entry in fs::read_dir(&directory).map_err(Error::io("list", &directory))? {
            let path = entry.map_err(Error::io("list", &directory))?.path();
            // Held until the directory is gone: a writer that made it just now sees it vanish and makes another.
            let held = lock(&path);
            if is_locked && matches!(&held, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                continue;
            }
            match fs::remove_dir_all(&path) {
                Ok(()) => swept += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("remove", &path)(error)),
            }
        }
    }
    Ok(swept)
}

/// Syncs a directory's entries.
pub fn sync_directory(path: &Path) -> Result<(), Error> {
    let directory = fs::File::open(path).map_err(Error::io("open", path))?;
    directory.sync_all().map_err(Error::io("sync", path))
}

fn unique(directory: &Path, diff_id: &DiffId) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nth = COUNT.fetch_add(1, Ordering::Relaxed);
    directory.join(format!("{}.{}.{nth}", diff_id.hex(), std::process::id()))
}

fn lock(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        // A sweep holds it and is about to remove it.
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(io::ErrorKind::WouldBlock.into()),
        locked => locked?,
    }
    if rustix::fs::fstat(&fd)?.st_nlink == 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(fd)
}
