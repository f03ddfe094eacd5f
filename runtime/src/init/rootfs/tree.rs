//! The container's tree of mounts while it is built: its root by handle, and how mounts get onto it.
//!
//! With the new mount API a mount is made detached, configured, then moved onto a handle: no path is looked up twice.
//! Where the kernel or a filter lacks a part of that API, mount(2) does it through a verified procfs.

use super::path::{Found, InRoot, file_type};
use super::procfs::Procfs;
use crate::init::StepError;
use crate::plan::mount_options::{MS_REMOUNT, attributes, super_flags};
use crate::sys::mount::{MountApi, SetAttributes, mount_setattr};
use rustix::fs::{CWD, FileType};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags,
};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A place in the container where something is mounted.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) fd: OwnedFd,
    /// Its path in the container, links resolved.
    pub(super) path: PathBuf,
}

/// A filesystem to mount.
#[derive(Debug)]
pub(super) struct Filesystem<'a> {
    pub(super) fstype: &'a str,
    pub(super) source: &'a OsStr,
    pub(super) flags: MountFlags,
    pub(super) data: Vec<String>,
    pub(super) label: Option<&'a str>,
}

/// The kernel's refusal and what it said in words, if it did.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) errno: Errno,
    pub(super) message: String,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, message: String::new() }
    }
}

impl Refusal {
    /// As an error of this step on this object.
    pub(super) fn at(self, step: &'static str, object: impl std::fmt::Display) -> StepError {
        let error = StepError::os(step, object, self.errno);
        if self.message.is_empty() { error } else { error.because(self.message) }
    }
}

/// The tree, rooted at a handle.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: InRoot,
    /// The path of the root on the host; `/` once the root has changed.
    pub(super) root_path: PathBuf,
    pub(super) procfs: Procfs,
    pub(super) api: MountApi,
}

impl Tree {
    /// The container's path of a handle below the root.
    pub(super) fn path_of<Fd: AsFd>(&self, fd: Fd) -> Result<PathBuf, Errno> {
        let path = self.procfs.path_of(fd)?;
        path.strip_prefix(&self.root_path).map(|p| Path::new("/").join(p)).map_err(|_| Errno::XDEV)
    }

    /// Makes a target of what was found or of a handle.
    pub(super) fn target(&self, found: impl Into<Found>) -> Result<Target, Errno> {
        let Found { fd, path } = found.into();
        let path = path.map_or_else(|| self.path_of(&fd), Ok)?;
        Ok(Target { fd, path })
    }

    /// Mounts a new filesystem; returns the handle of the mount.
    pub(super) fn mount(&self, fs: &Filesystem<'_>, target: &Target) -> Result<OwnedFd, Refusal> {
        if let Some(mount) = self.detached(fs)? {
            attach(&mount, &target.fd)?;
            return Ok(mount);
        }
        let data = CString::new(fs.mount_data()).map_err(|_| Errno::INVAL)?;
        let data = (!data.is_empty()).then_some(data.as_c_str());
        self.procfs.with_path(target.fd.as_fd(), |path| {
            rustix::mount::mount(fs.source, path, fs.fstype, fs.flags, data)
        })?;
        Ok(self.reopen(target)?)
    }

    /// A new filesystem that is not attached yet; `None` where only mount(2) can do it.
    pub(super) fn detached(&self, fs: &Filesystem<'_>) -> Result<Option<OwnedFd>, Refusal> {
        let Some(keys) = super_flags(fs.flags).filter(|_| self.api.fsopen && fs.fits_fsconfig()) else {
            return Ok(None);
        };
        let context = rustix::mount::fsopen(fs.fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
        configure(&context, fs, &keys)
            .map_err(|errno| Refusal { errno, message: kernel_message(&context).unwrap_or_default() })?;
        Ok(Some(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes(fs.flags))?))
    }

    /// Binds what `source` is onto the target; returns the handle of the mount. The mount keeps the source's flags.
    pub(super) fn bind(
        &self,
        source: BorrowedFd<'_>,
        recursive: bool,
        target: &Target,
    ) -> Result<OwnedFd, Errno> {
        if self.api.open_tree {
            let mount = clone_tree(source, recursive)?;
            attach(&mount, &target.fd)?;
            return Ok(mount);
        }
        self.bind_by_path(source, recursive, target)
    }

    fn bind_by_path(
        &self,
        source: BorrowedFd<'_>,
        recursive: bool,
        target: &Target,
    ) -> Result<OwnedFd, Errno> {
        let flags = if recursive { MountFlags::BIND | MountFlags::REC } else { MountFlags::BIND };
        self.procfs.with_path(source, |from| {
            // Both names are links of the same directory, which is the working directory now.
            let to = format!("self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&target.fd));
            rustix::mount::mount(from, to, c"", flags, None)
        })?;
        self.reopen(target)
    }

    /// The handle of what mount(2) has just put on the target. Only here is a path resolved again, and compared.
    fn reopen(&self, target: &Target) -> Result<OwnedFd, Errno> {
        let fd = self.root.open(&target.path)?;
        if self.path_of(&fd)? == target.path { Ok(fd) } else { Err(Errno::XDEV) }
    }

    /// Gives the top mount exactly these flags, as a bind remount does: what is not named is cleared, but the access
    /// time stays where none is named.
    pub(super) fn set_flags(&self, mount: BorrowedFd<'_>, flags: MountFlags) -> Result<(), Errno> {
        const ATIME: MountFlags = MountFlags::NOATIME
            .union(MountFlags::NODIRATIME)
            .union(MountFlags::RELATIME)
            .union(MountFlags::STRICTATIME);
        if !self.api.setattr {
            let flags = flags | MS_REMOUNT | MountFlags::BIND;
            return self.procfs.with_path(mount, |path| rustix::mount::mount(c"", path, c"", flags, None));
        }
        let set = attributes(flags);
        let mut clear = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC
            | MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW;
        if flags.intersects(ATIME) {
            clear |= MountAttrFlags::MOUNT_ATTR__ATIME | MountAttrFlags::MOUNT_ATTR_NODIRATIME;
        }
        // The access time is an enumeration: its whole field is cleared before a value of it is set.
        let mut clear = clear - (set - MountAttrFlags::MOUNT_ATTR__ATIME);
        let change = |clear: MountAttrFlags| {
            let (set, clear) = (set.bits(), clear.bits());
            mount_setattr(mount, &SetAttributes { set, clear, ..SetAttributes::default() })
        };
        match change(clear) {
            // Linux 5.12 and 5.13 do not know that attribute, so no mount has it.
            Err(Errno::INVAL) if clear.contains(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW) => {
                clear -= MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW;
                change(clear)
            }
            answer => answer,
        }
    }

    /// Makes the top mount read-only and changes nothing else of it.
    pub(super) fn set_readonly(&self, mount: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.api.setattr {
            let set = MountAttrFlags::MOUNT_ATTR_RDONLY.bits();
            return mount_setattr(mount, &SetAttributes { set, ..SetAttributes::default() });
        }
        let flags = current_flags(mount)? & !super::bind::ATIME_FLAGS;
        self.set_flags(mount, flags | MountFlags::RDONLY)
    }

    /// Changes the propagation of a mount, with `REC` of the tree below.
    pub(super) fn propagate(&self, mount: BorrowedFd<'_>, flags: MountPropagationFlags) -> Result<(), Errno> {
        if !self.api.setattr {
            return self.procfs.with_path(mount, |path| rustix::mount::mount_change(path, flags));
        }
        let recursive = flags.contains(MountPropagationFlags::REC);
        let propagation = (flags - MountPropagationFlags::REC).bits();
        mount_setattr(mount, &SetAttributes { propagation, recursive, ..SetAttributes::default() })
    }

    /// A target for a filesystem: the directory `path`, made where missing.
    pub(super) fn directory_target(&self, path: &Path) -> Result<Target, Errno> {
        self.target(self.root.make_directory(path)?)
    }

    /// A target for a bind of a directory or of anything else; what exists must not be a directory over a file.
    pub(super) fn bind_target(&self, path: &Path, source: BorrowedFd<'_>) -> Result<Target, Errno> {
        let found = if file_type(source)? == FileType::Directory {
            self.root.make_directory(path)?
        } else {
            self.root.make_file(path)?
        };
        self.target(found)
    }
}

impl Filesystem<'_> {
    /// fsconfig(2) takes strings of at most 255 bytes and no quotes; a dot in the type is a subtype of FUSE.
    fn fits_fsconfig(&self) -> bool {
        !self.flags.contains(MS_REMOUNT)
            && !self.fstype.is_empty()
            && !self.fstype.contains('.')
            && self.source.len() < 256
            && self.data.iter().all(|d| d.len() < 256 && !d.contains('"'))
    }

    fn mount_data(&self) -> String {
        let mut data = self.data.clone();
        data.extend(self.label.map(|l| format!("context=\"{l}\"")));
        data.join(",")
    }
}

fn configure(context: &OwnedFd, fs: &Filesystem<'_>, keys: &[&str]) -> Result<(), Errno> {
    if !fs.source.is_empty() {
        rustix::mount::fsconfig_set_string(context, "source", fs.source)?;
    }
    for key in keys {
        rustix::mount::fsconfig_set_flag(context, *key)?;
    }
    for option in fs.data.iter().flat_map(|d| d.split(',')).filter(|o| !o.is_empty()) {
        match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(context, key, value)?,
            None => rustix::mount::fsconfig_set_flag(context, option)?,
        }
    }
    if let Some(label) = fs.label {
        rustix::mount::fsconfig_set_string(context, "context", label)?;
    }
    rustix::mount::fsconfig_create(context)
}

/// What the kernel says about a refused configuration: `e tmpfs: Unknown parameter 'x'`.
fn kernel_message(context: &OwnedFd) -> Option<String> {
    let mut buffer = [0_u8; 256];
    let n = rustix::io::read(context, &mut buffer).ok()?;
    let text = String::from_utf8_lossy(&buffer[..n]);
    Some(text.trim_end().trim_start_matches("e ").to_owned())
}

/// Moves a detached mount onto a handle.
pub(super) fn attach<M: AsFd, T: AsFd>(mount: M, target: T) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags)
}

/// Moves a detached mount onto `name` in a directory that nobody else can change; a link is not followed.
pub(super) fn attach_at<M: AsFd, D: AsFd>(mount: M, directory: D, name: &OsStr) -> Result<(), Errno> {
    rustix::mount::move_mount(mount, "", directory, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// A detached clone of the mount tree at a handle.
pub(super) fn clone_tree(source: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    rustix::mount::open_tree(source, "", clone_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH)
}

/// A detached clone of the mount tree at a host path.
pub(super) fn clone_path(path: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    rustix::mount::open_tree(CWD, path, clone_flags(recursive))
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// The flags of the mount that a handle is on, as `MS_*`.
pub(super) fn current_flags(fd: BorrowedFd<'_>) -> Result<MountFlags, Errno> {
    const PAIRS: [(u64, MountFlags); 10] = [
        (0x1, MountFlags::RDONLY),
        (0x2, MountFlags::NOSUID),
        (0x4, MountFlags::NODEV),
        (0x8, MountFlags::NOEXEC),
        (0x10, MountFlags::SYNCHRONOUS),
        (0x40, MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
        (0x400, MountFlags::NOATIME),
        (0x800, MountFlags::NODIRATIME),
        (0x1000, MountFlags::RELATIME),
        // ST_NOSYMFOLLOW, linux/statfs.h
        (0x2000, MountFlags::NOSYMFOLLOW),
    ];
    let st = u64::try_from(rustix::fs::fstatfs(fd)?.f_flags).unwrap_or(0);
    let mut flags = MountFlags::empty();
    for (bit, flag) in PAIRS {
        if st & bit != 0 {
            flags |= flag;
        }
    }
    // Not stored by the kernel: it is what remains without the others.
    if !flags.intersects(MountFlags::NOATIME | MountFlags::RELATIME) {
        flags |= MountFlags::STRICTATIME;
    }
    Ok(flags)
}
