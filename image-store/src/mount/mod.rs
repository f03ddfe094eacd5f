//! Mounts made from layers: an overlay of them, attached nowhere until its user says where.
//!
//! All through the new mount API. What this crate can't do is the one call without a safe wrapper, `mount_setattr` with
//! `MOUNT_ATTR_IDMAP`: the caller hands a function in ([`IdMap`]), so that the crate stays free of unsafe code
//! (docs/decisions/0005-idmap-by-callback.md).

mod context;
mod error;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount,
};

pub(crate) use context::Context;

pub use error::Error;

/// One lower layer of an overlay.
#[derive(Debug, Clone, Copy)]
pub enum Lower<'a> {
    /// A mount or directory by descriptor (Linux 6.13; detached mounts 6.15).
    Fd(BorrowedFd<'a>),
    /// A directory by path.
    Path(&'a Path),
}

/// Sets `MOUNT_ATTR_IDMAP` with the given user namespace on a detached mount that nothing else uses.
pub type IdMap<'a> = &'a dyn Fn(BorrowedFd<'_>) -> std::io::Result<()>;

/// How an overlay is made.
#[derive(Default, Clone, Copy)]
pub struct OverlayOptions<'a> {
    /// Skip every sync of the upper directory; the upper must not be mounted again after a crash (hazard: `volatile`).
    pub volatile: bool,
    /// Use `user.overlay.*` in place of `trusted.overlay.*`: for mounts made inside a user namespace.
    pub userxattr: bool,
    /// Map the ids of the lower mounts: each lower is cloned and mapped by this function.
    pub idmap: Option<IdMap<'a>>,
    /// Shown as source in mount tables; `coracle` when empty.
    pub source: Option<&'a str>,
    /// SELinux context of all files.
    pub context: Option<&'a str>,
}

/// Makes an overlay, attached nowhere. `lowers` from the uppermost to the lowest; without upper and work it is read-only.
/// `upper` and `work` are directories of one file system.
pub fn overlay(
    lowers: &[Lower<'_>],
    upper_and_work: Option<(&Path, &Path)>,
    options: &OverlayOptions<'_>,
) -> Result<OwnedFd, Error> {
    let context = Context::open("overlay")?;
    context.string("source", options.source.unwrap_or("coracle"))?;
    if options.userxattr {
        context.flag("userxattr")?;
    }
    if let Some(label) = options.context {
        context.string("context", label)?;
    }
    // The clones live until the superblock is made: a descriptor option takes its own reference then.
    let mapped = options.idmap.map(|idmap| map_lowers(lowers, idmap)).transpose()?;
    match &mapped {
        Some(clones) => clones.iter().try_for_each(|clone| context.descriptor("lowerdir+", clone.as_fd()))?,
        None => lowers.iter().try_for_each(|lower| add_lower(&context, lower))?,
    }
    if let Some((upper, work)) = upper_and_work {
        context.string("upperdir", upper)?;
        context.string("workdir", work)?;
        if options.volatile {
            context.flag("volatile")?;
        }
    } else if lowers.len() == 1 {
        // An overlay of nothing but one lower is refused; the same one twice is not, but needs a second clone.
        return Err(Error::Unsupported {
            what: "a read-only overlay of a single layer: mount the layer itself",
        });
    }
    context.mount(MountAttrFlags::empty())
}

fn add_lower(context: &Context, lower: &Lower<'_>) -> Result<(), Error> {
    match lower {
        Lower::Fd(fd) => context.descriptor("lowerdir+", *fd),
        Lower::Path(path) => context.string("lowerdir+", *path),
    }
}

fn map_lowers(lowers: &[Lower<'_>], idmap: IdMap<'_>) -> Result<Vec<OwnedFd>, Error> {
    let map = |lower: &Lower<'_>| {
        let clone = clone_lower(lower).map_err(|errno| Error::IdMap { source: errno.into() })?;
        idmap(clone.as_fd()).map_err(|source| Error::IdMap { source })?;
        Ok(clone)
    };
    lowers.iter().map(map).collect()
}

fn clone_lower(lower: &Lower<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match lower {
        Lower::Fd(fd) => open_tree(fd, c"", flags | OpenTreeFlags::AT_EMPTY_PATH),
        Lower::Path(path) => open_tree(CWD, *path, flags),
    }
}

/// Clones the directory behind a descriptor as a mount of its own, attached nowhere.
pub(crate) fn clone_mount(directory: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    clone_lower(&Lower::Fd(directory))
}

/// Attaches a detached mount at a directory; the path's last component is not followed when it is a symbolic link.
pub fn attach(mount: BorrowedFd<'_>, target: &Path) -> Result<(), Error> {
    move_mount(mount, c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|errno| Error::Attach { target: target.to_owned(), source: errno.into() })
}

/// Detaches what is mounted at a path (lazily: open files in it go on).
pub fn detach(target: &Path) -> Result<(), Error> {
    unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .map_err(|errno| Error::Attach { target: target.to_owned(), source: errno.into() })
}
