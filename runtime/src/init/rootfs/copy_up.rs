//! `tmpcopyup`: a fresh tmpfs gets a copy of the directory that it covers.
//!
//! By handle throughout: the source is the handle of the covered directory, so what the image does with links does not
//! matter, and the copy is made before the mount can be seen where the new mount API is there.

use super::path::open_nofollow;
use crate::init::StepError;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Deeper trees are refused: each level holds descriptors.
const MAX_DEPTH: usize = 128;

/// Copies what is in `from` into the empty directory `to`, with owners, modes, times, attributes and hard links.
pub(super) fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), StepError> {
    let refused = |errno| StepError::os("copy up to tmpfs", "", errno);
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from = rustix::fs::openat(from, ".", directory, Mode::empty()).map_err(refused)?;
    let to = rustix::fs::openat(to, ".", directory, Mode::empty()).map_err(refused)?;
    let mut copy = Copy { links: HashMap::new(), top: to };
    let top = copy.top.try_clone().map_err(|e| StepError::io("copy up to tmpfs", "", &e))?;
    copy.entries(&from, &top, "", 0).map_err(|(path, errno)| StepError::os("copy up to tmpfs", path, errno))
}

struct Copy {
    /// Files with several names: (device, inode) to the first copy's path below the top.
    links: HashMap<(u64, u64), CString>,
    top: OwnedFd,
}

type Failure = (String, Errno);

impl Copy {
    fn entries(&mut self, from: &OwnedFd, to: &OwnedFd, path: &str, depth: usize) -> Result<(), Failure> {
        let failed = |errno| (path.to_owned(), errno);
        if depth > MAX_DEPTH {
            return Err(failed(Errno::NAMETOOLONG));
        }
        for entry in Dir::read_from(from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let below = format!("{path}/{}", name.to_string_lossy());
            self.entry(from, to, name, &below, depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &CStr,
        path: &str,
        depth: usize,
    ) -> Result<(), Failure> {
        let failed = |errno| (path.to_owned(), errno);
        let source = open_nofollow(from, OsStr::from_bytes(name.to_bytes())).map_err(failed)?;
        let stat = rustix::fs::fstat(&source).map_err(failed)?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        if self.linked(to, name, &stat, path).map_err(failed)? {
            return Ok(());
        }
        match file_type {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700)).map_err(failed)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = rustix::fs::openat(&source, ".", flags, Mode::empty()).map_err(failed)?;
                let made = rustix::fs::openat(to, name, flags, Mode::empty()).map_err(failed)?;
                self.entries(&inner, &made, path, depth + 1)?;
                finish_open(inner.as_fd(), made.as_fd(), &stat).map_err(failed)
            }
            FileType::RegularFile => copy_file(from, to, name, &stat).map_err(failed),
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(&source, "", Vec::new()).map_err(failed)?;
                rustix::fs::symlinkat(&link, to, name).map_err(failed)?;
                finish_at(to, name, &stat).map_err(failed)
            }
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                rustix::fs::mknodat(to, name, file_type, mode, stat.st_rdev).map_err(failed)?;
                rustix::fs::chmodat(to, name, mode, AtFlags::empty()).map_err(failed)?;
                finish_at(to, name, &stat).map_err(failed)
            }
            // A socket is nothing without its listener.
            FileType::Socket | FileType::Unknown => Ok(()),
        }
    }

    /// Makes another name of a file that was copied already; else remembers it.
    fn linked(&mut self, to: &OwnedFd, name: &CStr, stat: &Stat, path: &str) -> Result<bool, Errno> {
        if stat.st_nlink < 2 || FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(false);
        }
        if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
            rustix::fs::linkat(&self.top, first, to, name, AtFlags::empty())?;
            return Ok(true);
        }
        let path = CString::new(path.trim_start_matches('/')).map_err(|_| Errno::INVAL)?;
        self.links.insert((stat.st_dev, stat.st_ino), path);
        Ok(false)
    }
}

fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from, name, read, Mode::empty())?;
    let now = rustix::fs::fstat(&source)?;
    if (now.st_dev, now.st_ino) != (stat.st_dev, stat.st_ino) {
        return Err(Errno::STALE);
    }
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(to, name, write, Mode::from_raw_mode(0o600))?;
    let (mut source, mut made) = (File::from(source), File::from(made));
    std::io::copy(&mut source, &mut made).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    finish_open(source.as_fd(), made.as_fd(), stat)
}

/// Owner first, since a change of it clears set-id bits and capabilities.
fn finish_open(from: BorrowedFd<'_>, made: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    rustix::fs::fchown(made, Some(uid(stat)), Some(gid(stat)))?;
    copy_attributes(from, made)?;
    rustix::fs::fchmod(made, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    rustix::fs::futimens(made, &times(stat))
}

fn finish_at(to: &OwnedFd, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    rustix::fs::chownat(to, name, Some(uid(stat)), Some(gid(stat)), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// Extended attributes that tmpfs takes; one that it refuses is left out, as cp does.
fn copy_attributes(from: BorrowedFd<'_>, made: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut names = vec![0_u8; 4096];
    let n = match rustix::fs::flistxattr(from, &mut names) {
        Ok(n) => n,
        Err(Errno::OPNOTSUPP | Errno::RANGE) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    for name in names[..n].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0_u8; 65536];
        let Ok(n) = rustix::fs::fgetxattr(from, name, &mut value) else { continue };
        match rustix::fs::fsetxattr(made, name, &value[..n], rustix::fs::XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn uid(stat: &Stat) -> rustix::fs::Uid {
    rustix::fs::Uid::from_raw(stat.st_uid)
}

fn gid(stat: &Stat) -> rustix::fs::Gid {
    rustix::fs::Gid::from_raw(stat.st_gid)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |tv_sec, tv_nsec: u64| Timespec { tv_sec, tv_nsec: i64::try_from(tv_nsec).unwrap_or(0) };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
