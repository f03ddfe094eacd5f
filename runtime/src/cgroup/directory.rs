//! One group's directory by handle: reads and writes go by `openat`, so that a renamed path or a link cannot redirect them.
//!
//! A group that was made a moment ago is opened only where a handle is needed: most hierarchies of version 1 get one process
//! and nothing else.

use std::cell::OnceCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Error;
use crate::small_file;

/// No file of a group that we read is larger (cgroup.procs of a full host included).
const READ_LIMIT: usize = 16 << 20;

/// An open group.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OnceCell<OwnedFd>,
    path: PathBuf,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let directory = Self::made(path);
        directory.fd()?;
        Ok(directory)
    }

    /// A group that we have just made.
    pub(super) fn made(path: &Path) -> Self {
        Self { fd: OnceCell::new(), path: path.to_owned() }
    }

    /// The handle.
    pub(super) fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        if let Some(fd) = self.fd.get() {
            return Ok(fd.as_fd());
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(&self.path, flags, Mode::empty())
            .map_err(|e| Error::path("open", &self.path, e))?;
        Ok(self.fd.get_or_init(|| fd).as_fd())
    }

    fn open_file(&self, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match self.fd.get() {
            Some(fd) => rustix::fs::openat(fd, name, flags, Mode::empty()),
            None => rustix::fs::open(self.path.join(name), flags, Mode::empty()),
        }
    }

    /// Makes the group (0755 less the umask) unless it is there; tells whether it was made.
    pub(super) fn make(path: &Path) -> Result<bool, Error> {
        match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(Error::path("mkdir", path, errno)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Error> {
        self.open_file(name, flags).map_err(|e| Error::path("open", self.path.join(name), e))
    }

    /// Writes a value as one write(2), which is what the kernel's parsers expect.
    pub(super) fn write(&self, name: &str, value: &str) -> Result<(), Error> {
        let refused = |errno| Error::Write { path: self.path.join(name), value: value.to_owned(), errno };
        let file = self.open_file(name, OFlags::WRONLY).map_err(refused)?;
        rustix::io::retry_on_intr(|| rustix::io::write(&file, value.as_bytes())).map_err(refused)?;
        Ok(())
    }

    /// Writes each value with a write(2) of its own to one open file.
    pub(super) fn write_each<'a>(
        &self,
        name: &str,
        values: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), Error> {
        let file = self.file(name, OFlags::WRONLY)?;
        for value in values {
            rustix::io::retry_on_intr(|| rustix::io::write(&file, value.as_bytes())).map_err(|errno| {
                Error::Write { path: self.path.join(name), value: value.to_owned(), errno }
            })?;
        }
        Ok(())
    }

    pub(super) fn read(&self, name: &str) -> Result<String, Error> {
        let file = self.file(name, OFlags::RDONLY)?;
        let bytes = small_file::drain(&file, READ_LIMIT)
            .map_err(|error| Error::io("read", self.path.join(name), &error))?;
        Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    /// The file's text, or `None` where this kernel or hierarchy has no such file.
    pub(super) fn read_if_there(&self, name: &str) -> Result<Option<String>, Error> {
        match self.read(name) {
            Ok(text) => Ok(Some(text)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        let Ok(fd) = self.fd() else { return false };
        rustix::fs::accessat(fd, name, rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty()).is_ok()
    }

    /// One unsigned number; `max` and negative numbers (v1's "no limit") are `u64::MAX`.
    pub(super) fn number(&self, name: &str) -> Result<u64, Error> {
        let text = self.read(name)?;
        parse_number(&text).ok_or_else(|| Error::Content { path: self.path.join(name), text })
    }

    /// The groups below this one.
    pub(super) fn children(&self) -> Result<Vec<PathBuf>, Error> {
        let refused = |errno| Error::path("read", &self.path, errno);
        let mut children = Vec::new();
        for entry in rustix::fs::Dir::read_from(self.fd()?).map_err(refused)? {
            let entry = match entry {
                Ok(entry) => entry,
                // Removed under our feet.
                Err(Errno::NOENT | Errno::NODEV) => break,
                Err(errno) => return Err(refused(errno)),
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type() == rustix::fs::FileType::Directory && name != "." && name != ".." {
                children.push(self.path.join(name));
            }
        }
        Ok(children)
    }
}

pub(super) fn parse_number(text: &str) -> Option<u64> {
    let text = text.trim();
    if text == "max" || text.starts_with('-') {
        return Some(u64::MAX);
    }
    text.parse().ok()
}

/// The group or the file is not there (any more).
pub(super) fn is_absent(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, want) in
            [("12\n", Some(12)), ("max", Some(u64::MAX)), ("-1\n", Some(u64::MAX)), ("x", None)]
        {
            assert_eq!(parse_number(text), want, "{text}");
        }
    }
}
