//! Copies a tree: types, modes, owners, times, extended attributes, hard links, holes.
//!
//! Everything goes by handle relative to an open directory and never follows a link: the source is an image's tree, and
//! what is in it is hostile. The target is a directory that nobody else writes to.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::Error;

/// Deeper than any sane tree; bounds the descriptors that are open at once.
const DEPTH_LIMIT: usize = 512;
const XATTR_LIMIT: usize = 64 << 10;

struct Copy {
    links: HashMap<(u64, u64), OwnedFd>,
}

/// Copies what is below `source` to below the existing directory `target`, and the attributes of `source` itself.
pub fn copy_tree(source: &Path, target: &Path) -> Result<(), Error> {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open =
        |path: &Path| fs::open(path, directory, Mode::empty()).map_err(|e| Error::io("open", path)(e.into()));
    let (from, to) = (open(source)?, open(target)?);
    let mut copy = Copy { links: HashMap::new() };
    copy.directory(from.as_fd(), to.as_fd(), target, 0)
}

impl Copy {
    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        at: &Path,
        depth: usize,
    ) -> Result<(), Error> {
        let failed = |errno: Errno| Error::io("copy directory", at)(errno.into());
        if depth > DEPTH_LIMIT {
            return Err(failed(Errno::NAMETOOLONG));
        }
        let entries = fs::Dir::read_from(from).map_err(failed)?;
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                let path = at.join(name.to_string_lossy().as_ref());
                self.entry(from, to, name, &path, depth)?;
            }
        }
        let stat = fs::fstat(from).map_err(failed)?;
        copy_xattrs(from, to).map_err(failed)?;
        attributes(to, &stat).map_err(failed)
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        path: &Path,
        depth: usize,
    ) -> Result<(), Error> {
        let failed = |errno: Errno| Error::io("copy", path)(errno.into());
        let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let several = kind != FileType::Directory && stat.st_nlink > 1;
        if several && let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
            return fs::linkat(first, c"", to, name, AtFlags::EMPTY_PATH).map_err(failed);
        }
        match kind {
            FileType::Directory => {
                fs::mkdirat(to, name, Mode::RWXU).map_err(failed)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let source = fs::openat(from, name, flags, Mode::empty()).map_err(failed)?;
                let target = fs::openat(to, name, flags, Mode::empty()).map_err(failed)?;
                return self.directory(source.as_fd(), target.as_fd(), path, depth + 1);
            }
            FileType::RegularFile => file(from, to, name, &stat).map_err(failed)?,
            FileType::Symlink => {
                let link = fs::readlinkat(from, name, Vec::new()).map_err(failed)?;
                fs::symlinkat(&*link, to, name).map_err(failed)?;
            }
            special => {
                fs::mknodat(to, name, special, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)
                    .map_err(failed)?;
            }
        }
        if kind != FileType::RegularFile {
            owner_and_times(to, name, &stat).map_err(failed)?;
        }
        if several {
            let handle =
                fs::openat(to, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
            self.links.insert((stat.st_dev, stat.st_ino), handle.map_err(failed)?);
        }
        Ok(())
    }
}

fn file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let source = fs::openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
    let (source, target) = (File::from(source), File::from(target));
    content(&source, &target, stat.st_size.unsigned_abs())?;
    copy_xattrs(source.as_fd(), target.as_fd())?;
    attributes(target.as_fd(), stat)
}

// Data only, so that holes stay holes.
fn content(mut source: &File, mut target: &File, size: u64) -> Result<(), Errno> {
    let broken = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    target.set_len(size).map_err(broken)?;
    let mut position = 0;
    while position < size {
        let data = match fs::seek(source, fs::SeekFrom::Data(position)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno),
        };
        let hole = fs::seek(source, fs::SeekFrom::Hole(data))?;
        fs::seek(source, fs::SeekFrom::Start(data))?;
        fs::seek(target, fs::SeekFrom::Start(data))?;
        std::io::copy(&mut std::io::Read::take(&mut source, hole - data), &mut target).map_err(broken)?;
        position = hole;
    }
    Ok(())
}

// Owner before mode: chown clears the set-id bits. Times last.
fn attributes(target: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    fs::fchown(target, Some(fs::Uid::from_raw(stat.st_uid)), Some(fs::Gid::from_raw(stat.st_gid)))?;
    fs::fchmod(target, Mode::from_raw_mode(stat.st_mode))?;
    fs::futimens(target, &times(stat))
}

fn owner_and_times(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = (fs::Uid::from_raw(stat.st_uid), fs::Gid::from_raw(stat.st_gid));
    fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        // mknod obeys the umask.
        fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
    }
    fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(stat: &Stat) -> Timestamps {
    let modified = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() };
    Timestamps { last_access: modified, last_modification: modified }
}

// Through the magic link: works for directories and files alike, and needs no privilege beyond that of the attribute.
fn copy_xattrs(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let path = |fd: BorrowedFd<'_>| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let (from, to) = (path(source), path(target));
    let mut names = vec![0; XATTR_LIMIT];
    let length = match fs::listxattr(&from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // The overlay's own marks mean nothing in a plain tree.
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let mut value = vec![0; XATTR_LIMIT];
        let length = fs::getxattr(&from, &name, &mut value[..])?;
        match fs::setxattr(&to, &name, &value[..length], XattrFlags::empty()) {
            // A file system without attributes, or a label that the policy forbids.
            Err(Errno::OPNOTSUPP) | Ok(()) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
