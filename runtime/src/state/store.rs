//! The root directory: reserving ids, locking containers, loading and saving records.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{Error, Record, VERSION, validate_id};
use crate::small_file;

const RECORD: &str = "state.json";
const RECORD_NEW: &str = ".state.json.new";
const EXEC_FIFO: &str = "exec.fifo";

/// A record holds the configuration, whose own limit is smaller.
const RECORD_LIMIT: usize = 64 << 20;

/// The root directory of all containers.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A container's directory with its lock held; the lock goes when the value does, or with the process.
#[derive(Debug)]
pub struct ContainerDir {
    id: String,
    path: PathBuf,
    fd: OwnedFd,
}

/// A container's directory without its lock: open, so that no other one can be taken for it.
#[derive(Debug)]
pub struct UnlockedDir(ContainerDir);

impl Store {
    /// Makes the root directory where it is missing (0711: others may pass, not read), and opens the store.
    pub fn open(root: &Path) -> Result<Self, Error> {
        fs::DirBuilder::new().recursive(true).mode(0o711).create(root).map_err(Error::io("create", root))?;
        Ok(Self { root: root.to_owned() })
    }

    /// The store below `root`, which need not exist.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The directory of `id`.
    #[must_use]
    pub fn path(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// Reserves `id`: makes its directory, exclusively, and locks it.
    pub fn create_dir(&self, id: &str) -> Result<ContainerDir, Error> {
        validate_id(id)?;
        let path = self.path(id);
        match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o711)) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Error::Exists),
            Err(errno) => return Err(Error::errno("create", &path)(errno)),
        }
        let fd = open_dir(&path)?;
        // A `delete --force` between the two calls may have taken the directory for one that was left behind.
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_current(&fd, &path) => Ok(ContainerDir { id: id.to_owned(), path, fd }),
            Ok(()) | Err(Errno::WOULDBLOCK) => Err(Error::Locked { id: id.to_owned() }),
            Err(errno) => Err(Error::errno("lock", &path)(errno)),
        }
    }

    /// Locks the directory of `id`, waiting for the command that holds it.
    pub fn lock(&self, id: &str) -> Result<ContainerDir, Error> {
        self.lock_with(id, FlockOperation::LockExclusive)
    }

    /// Locks the directory of `id`, or says [`Error::Locked`] when another command holds it.
    pub fn try_lock(&self, id: &str) -> Result<ContainerDir, Error> {
        self.lock_with(id, FlockOperation::NonBlockingLockExclusive)
    }

    /// Reads the record of `id` without a lock: a record is replaced as a whole, so the reader sees an old or a new one.
    pub fn load(&self, id: &str) -> Result<Record, Error> {
        validate_id(id)?;
        let path = self.path(id);
        load_at(&open_dir(&path)?, &path, id)
    }

    /// All ids below the root in order of name, half-created ones included.
    pub fn list(&self) -> Result<Vec<String>, Error> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", &self.root)(error)),
        };
        let mut ids: Vec<String> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| validate_id(name).is_ok())
            .collect();
        ids.sort();
        Ok(ids)
    }

    fn lock_with(&self, id: &str, operation: FlockOperation) -> Result<ContainerDir, Error> {
        validate_id(id)?;
        let path = self.path(id);
        let fd = open_dir(&path)?;
        match rustix::io::retry_on_intr(|| rustix::fs::flock(&fd, operation)) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(Error::Locked { id: id.to_owned() }),
            Err(errno) => return Err(Error::errno("lock", &path)(errno)),
        }
        // The holder may have been a `delete`: then the lock is on a directory that is gone.
        if !is_current(&fd, &path) {
            return Err(Error::NotFound);
        }
        Ok(ContainerDir { id: id.to_owned(), path, fd })
    }
}

impl ContainerDir {
    /// The container's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory's descriptor, on which the lock is.
    #[must_use]
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Where the exec fifo is while the container waits for `start`.
    #[must_use]
    pub fn exec_fifo(&self) -> PathBuf {
        self.path.join(EXEC_FIFO)
    }

    /// Reads the record; [`Error::HalfCreated`] when there is none.
    pub fn load(&self) -> Result<Record, Error> {
        load_at(&self.fd, &self.path, &self.id)
    }

    /// Replaces the record: a temporary file, renamed. Not synced: the root belongs to one boot.
    pub fn save(&self, record: &Record) -> Result<(), Error> {
        let path = self.path.join(RECORD);
        let bytes =
            serde_json::to_vec(record).map_err(|source| Error::Corrupt { path: path.clone(), source })?;
        crate::fault::point("state.write")?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.fd, RECORD_NEW, flags, Mode::from_raw_mode(0o600))
            .map_err(Error::errno("create", self.path.join(RECORD_NEW)))?;
        File::from(fd).write_all(&bytes).map_err(Error::io("write", self.path.join(RECORD_NEW)))?;
        crate::fault::point("state.rename")?;
        rustix::fs::renameat(&self.fd, RECORD_NEW, &self.fd, RECORD).map_err(Error::errno("rename", &path))
    }

    /// Removes the directory with everything in it; the record goes first, so that a kill leaves a half-created one.
    pub fn remove(self) -> Result<(), Error> {
        crate::fault::point("state.remove")?;
        match rustix::fs::unlinkat(&self.fd, RECORD, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::errno("remove", self.path.join(RECORD))(errno)),
        }
        crate::fault::point("state.remove_dir")?;
        match rustix::fs::rmdir(&self.path) {
            Ok(()) => return Ok(()),
            // The start gate of one that was never started, a hook's files.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(Error::errno("remove", &self.path)(errno)),
        }
        fs::remove_dir_all(&self.path).map_err(Error::io("remove", &self.path))
    }
}

impl ContainerDir {
    /// Gives the lock back; the directory stays known.
    #[must_use]
    pub fn unlock(self) -> UnlockedDir {
        let _ = rustix::fs::flock(&self.fd, FlockOperation::Unlock);
        UnlockedDir(self)
    }
}

impl UnlockedDir {
    /// Takes the lock again, or `None` where another command holds it or the directory was removed meanwhile.
    #[must_use]
    pub fn relock(self) -> Option<ContainerDir> {
        let Self(dir) = self;
        rustix::fs::flock(&dir.fd, FlockOperation::NonBlockingLockExclusive).ok()?;
        is_current(&dir.fd, &dir.path).then_some(dir)
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(fd),
        Err(Errno::NOENT) => Err(Error::NotFound),
        Err(errno) => Err(Error::errno("open", path)(errno)),
    }
}

fn is_current(fd: &OwnedFd, path: &Path) -> bool {
    let (Ok(held), Ok(named)) = (rustix::fs::fstat(fd), rustix::fs::stat(path)) else { return false };
    (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)
}

fn load_at(dir: &OwnedFd, path: &Path, id: &str) -> Result<Record, Error> {
    let file = path.join(RECORD);
    let bytes = match small_file::read_at(dir, RECORD, RECORD_LIMIT) {
        Ok(bytes) => bytes,
        // The directory is open: it may have been removed since, with its record first.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.is_dir() => {
            return Err(Error::NotFound);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::HalfCreated { id: id.to_owned() });
        }
        Err(error) => return Err(Error::io("read", &file)(error)),
    };
    if bytes.len() > RECORD_LIMIT {
        return Err(Error::TooLarge { path: file, limit: RECORD_LIMIT as u64 });
    }
    parse(&bytes, file)
}

fn parse(bytes: &[u8], path: PathBuf) -> Result<Record, Error> {
    let (found, source) = match serde_json::from_slice::<Record>(bytes) {
        Ok(record) if record.version <= VERSION => return Ok(record),
        Ok(record) => return Err(Error::Version { path, found: record.version }),
        Err(source) => (version_of(bytes), source),
    };
    match found {
        Some(found) if found > VERSION => Err(Error::Version { path, found }),
        _ => Err(Error::Corrupt { path, source }),
    }
}

/// The version on its own: a newer record need not have the fields of this one.
fn version_of(bytes: &[u8]) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    serde_json::from_slice::<Versioned>(bytes).ok().map(|versioned| versioned.version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Spec;

    fn record(id: &str) -> Record {
        Record::new(id, Path::new("/b"), Path::new("/b/rootfs"), &Spec::default())
    }

    #[test]
    fn a_container_from_reservation_to_removal() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("a/b")).unwrap();
        assert!(matches!(store.load("c"), Err(Error::NotFound)));
        let dir = store.create_dir("c").unwrap();
        assert!(matches!(store.create_dir("c"), Err(Error::Exists)));
        assert!(matches!(store.try_lock("c"), Err(Error::Locked { .. })));
        assert!(matches!(store.load("c"), Err(Error::HalfCreated { .. })));
        let saved = record("c");
        dir.save(&saved).unwrap();
        assert_eq!(store.load("c").unwrap(), saved);
        assert_eq!(store.list().unwrap(), ["c"]);
        dir.remove().unwrap();
        assert!(matches!(store.lock("c"), Err(Error::NotFound)));
        assert_eq!(store.list().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_dropped_lock_is_free() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        drop(store.create_dir("c").unwrap());
        drop(store.try_lock("c").unwrap());
    }

    #[test]
    fn a_lock_is_taken_again_only_of_the_same_directory() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let unlocked = store.create_dir("c").unwrap().unlock();
        let other = store.try_lock("c").unwrap();
        assert!(unlocked.relock().is_none(), "somebody else has it");
        let unlocked = other.unlock();
        let dir = unlocked.relock().unwrap();
        let unlocked = dir.unlock();
        store.try_lock("c").unwrap().remove().unwrap();
        drop(store.create_dir("c").unwrap());
        assert!(unlocked.relock().is_none(), "it is another one");
    }

    #[test]
    fn newer_and_broken_records_are_named() {
        let path = || PathBuf::from("x");
        assert!(matches!(parse(b"{\"version\":99}", path()), Err(Error::Version { found: 99, .. })));
        assert!(matches!(parse(b"{\"version\":1}", path()), Err(Error::Corrupt { .. })));
        assert!(matches!(parse(b"", path()), Err(Error::Corrupt { .. })));
    }
}
