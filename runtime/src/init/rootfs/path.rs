//! Paths below a root, resolved by handle: symbolic links and `..` never lead out of it.
//!
//! openat2(2) does it where the kernel has it. The walk does it elsewhere and where something has to be created: one
//! component at a time from a handle, links expanded by us, `..` by going back to a handle that we hold, never by the
//! kernel's idea of a parent. A rename by somebody else can so make a look-up fail or end elsewhere below the root,
//! not outside (CVE-2021-30465, CVE-2024-45310).

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// Links followed in one look-up, like the kernel.
const MAX_LINKS: usize = 40;
/// openat2 gives up with EAGAIN when a rename races with it.
const MAX_RETRIES: usize = 32;
const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What a look-up does about the last component when it is missing; the ones before become directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Fail,
    MakeDirectory,
    MakeFile,
}

/// What a look-up found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) fd: OwnedFd,
    /// Its path below the root, where it is known because no link was followed.
    pub(super) path: Option<PathBuf>,
}

impl From<OwnedFd> for Found {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, path: None }
    }
}

/// A directory that stands for `/`.
#[derive(Debug)]
pub(super) struct InRoot {
    root: OwnedFd,
}

impl InRoot {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// An O_PATH handle of what `path` names; a link at the end is followed, magic links never.
    pub(super) fn open(&self, path: &Path) -> Result<OwnedFd> {
        self.find(path).map(|found| found.fd)
    }

    /// [`Self::open`] that also tells the path of what it found, where that costs nothing.
    pub(super) fn find(&self, path: &Path) -> Result<Found> {
        self.find_as(path, OFlags::empty())
    }

    /// Most paths lead through no link: then the kernel's answer to `NO_SYMLINKS` says that the path is the real one.
    fn find_as(&self, path: &Path, kind: OFlags) -> Result<Found> {
        if let Some(plain) = plain_path(path) {
            match self.openat2(path, kind, ResolveFlags::NO_SYMLINKS) {
                Some(Err(Errno::LOOP)) => {}
                Some(answer) => return answer.map(|fd| Found { fd, path: Some(plain) }),
                None => return self.walk(path, Missing::Fail).map(Found::from),
            }
        }
        match self.openat2(path, kind, ResolveFlags::empty()) {
            Some(answer) => answer.map(Found::from),
            None => self.walk(path, Missing::Fail).map(Found::from),
        }
    }

    /// `None` where the kernel, or whatever filters it, has no openat2.
    fn openat2(&self, path: &Path, kind: OFlags, more: ResolveFlags) -> Option<Result<OwnedFd>> {
        let flags = OFlags::PATH | OFlags::CLOEXEC | kind;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        for _ in 0..MAX_RETRIES {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                Err(Errno::NOSYS | Errno::PERM) => return None,
                answer => return Some(answer),
            }
        }
        None
    }

    /// The directory `path`, made with its parents where missing.
    pub(super) fn make_directory(&self, path: &Path) -> Result<Found> {
        let found = match self.find_as(path, OFlags::DIRECTORY) {
            Err(Errno::NOENT) => match self.make_last_directory(path) {
                Some(made) => return Ok(made),
                None => self.walk(path, Missing::MakeDirectory)?.into(),
            },
            // The kernel has looked at the type.
            Ok(found) if found.path.is_some() => return Ok(found),
            answer => answer?,
        };
        if file_type(&found.fd)? == FileType::Directory { Ok(found) } else { Err(Errno::NOTDIR) }
    }

    /// The usual case: only the last name is missing. `None` is for everything else.
    fn make_last_directory(&self, path: &Path) -> Option<Found> {
        let plain = plain_path(path)?;
        let parent = self.find_as(plain.parent()?, OFlags::DIRECTORY).ok().filter(|p| p.path.is_some())?;
        let name = plain.file_name()?;
        rustix::fs::mkdirat(&parent.fd, name, Mode::from_raw_mode(0o755)).ok()?;
        let fd = rustix::fs::openat(&parent.fd, name, HANDLE | OFlags::DIRECTORY, Mode::empty()).ok()?;
        Some(Found { fd, path: Some(plain) })
    }

    /// The file `path`, made empty (0644) with its parents where missing.
    pub(super) fn make_file(&self, path: &Path) -> Result<Found> {
        match self.find(path) {
            Err(Errno::NOENT) => self.walk(path, Missing::MakeFile).map(Found::from),
            answer => answer,
        }
    }

    /// The directory that holds `path`, made where missing, and the last name, which is not looked at.
    pub(super) fn make_parent(&self, path: &Path) -> Result<(OwnedFd, OsString)> {
        let name = path.file_name().ok_or(Errno::INVAL)?.to_owned();
        Ok((self.make_directory(path.parent().unwrap_or(Path::new("/")))?.fd, name))
    }

    fn walk(&self, path: &Path, missing: Missing) -> Result<OwnedFd> {
        let mut held: Vec<OwnedFd> = Vec::new();
        let mut todo = reversed_names(path);
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                held.pop();
                continue;
            }
            let here = held.last().map_or(self.root.as_fd(), AsFd::as_fd);
            let next =
                open_or_make(here, &name, if todo.is_empty() { missing } else { missing.for_parent() })?;
            if file_type(&next)? != FileType::Symlink {
                held.push(next);
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP);
            }
            let target = rustix::fs::readlinkat(&next, "", Vec::new())?;
            let target = OsString::from_vec(target.into_bytes());
            if target.as_bytes().starts_with(b"/") {
                held.clear();
            }
            todo.extend(reversed_names(Path::new(&target)));
        }
        match held.pop() {
            Some(fd) => Ok(fd),
            None => rustix::fs::openat(&self.root, ".", HANDLE, Mode::empty()),
        }
    }
}

impl Missing {
    fn for_parent(self) -> Self {
        if self == Self::Fail { Self::Fail } else { Self::MakeDirectory }
    }
}

/// The path as the kernel would name it if no component is a link; `None` with `..` in it.
fn plain_path(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}

fn reversed_names(path: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect();
    names.reverse();
    names
}

fn open_or_make(directory: BorrowedFd<'_>, name: &OsStr, missing: Missing) -> Result<OwnedFd> {
    let found = rustix::fs::openat(directory, name, HANDLE, Mode::empty());
    if found.as_ref().err() != Some(&Errno::NOENT) {
        return found;
    }
    let made = match missing {
        Missing::Fail => return found,
        Missing::MakeDirectory => rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755)),
        Missing::MakeFile => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => rustix::fs::openat(directory, name, HANDLE, Mode::empty()),
        Err(errno) => Err(errno),
    }
}

/// The type of the file behind a handle.
pub(super) fn file_type<Fd: AsFd>(fd: Fd) -> Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

/// The handle of `name` in `directory`, never through a link at the end.
pub(super) fn open_nofollow<Fd: AsFd>(directory: Fd, name: &OsStr) -> Result<OwnedFd> {
    rustix::fs::openat(directory, name, HANDLE, Mode::empty())
}

/// Tells whether the handle is a character device of this number.
pub(super) fn is_char_device<Fd: AsFd>(fd: Fd, major: u32, minor: u32) -> Result<bool> {
    let stat = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)?;
    let number = rustix::fs::makedev(major, minor);
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == number)
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
