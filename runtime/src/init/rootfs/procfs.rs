//! The host's procfs as a verified handle, for what only a path can name: `self/fd/N`.
//!
//! A path below something that merely calls itself `/proc` would let an image redirect our writes and mounts
//! (CVE-2025-52881). The handle is checked once (type and root inode) and used instead of the path ever after, also
//! when the root has changed.

use crate::init::StepError;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

pub(super) const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// Only the root of a procfs has this inode (`linux/proc_ns.h`).
const PROC_ROOT_INO: u64 = 1;

/// A procfs that is one.
#[derive(Debug)]
pub(super) struct Procfs {
    root: OwnedFd,
}

impl Procfs {
    /// Opens `/proc` and makes sure that it is the root of a procfs.
    pub(super) fn open() -> Result<Self, StepError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root =
            rustix::fs::open("/proc", flags, Mode::empty()).map_err(|e| StepError::os("open", "/proc", e))?;
        let inode = rustix::fs::fstat(&root).map_err(|e| StepError::os("stat", "/proc", e))?.st_ino;
        if !is_procfs(root.as_fd()) || inode != PROC_ROOT_INO {
            return Err(StepError::why("open", "/proc", "it is not the root of a procfs"));
        }
        Ok(Self { root })
    }

    /// The path of the file behind `fd`, as the current root shows it.
    pub(super) fn path_of<Fd: AsFd>(&self, fd: Fd) -> Result<PathBuf, Errno> {
        let link = rustix::fs::readlinkat(&self.root, link_name(fd), Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(link.into_bytes())))
    }

    /// Opens the file behind `fd` once more, with other flags.
    pub(super) fn reopen(&self, fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.root, link_name(fd), flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// Calls `act` with a path that leads to the file behind `fd`, relative to procfs as the working directory.
    pub(super) fn with_path<T>(
        &self,
        fd: BorrowedFd<'_>,
        act: impl FnOnce(&str) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let back = rustix::fs::open(".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        rustix::process::fchdir(&self.root)?;
        let result = act(&link_name(fd));
        match back {
            Ok(back) => rustix::process::fchdir(back)?,
            Err(_) => rustix::process::chdir("/")?,
        }
        result
    }
}

/// Tells whether the handle is on a procfs.
pub(super) fn is_procfs(fd: BorrowedFd<'_>) -> bool {
    has_magic(fd, PROC_SUPER_MAGIC)
}

/// Tells whether the handle is on a filesystem of this type.
pub(super) fn has_magic(fd: BorrowedFd<'_>, magic: i64) -> bool {
    rustix::fs::fstatfs(fd).is_ok_and(|s| s.f_type == magic)
}

fn link_name<Fd: AsFd>(fd: Fd) -> String {
    format!("self/fd/{}", fd.as_fd().as_raw_fd())
}
