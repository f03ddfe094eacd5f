//! Mounts made from layers: an overlay of them, attached nowhere until its user says where.
//!
//! All through the new mount API. What this crate can't do is the one call without a safe wrapper, `mount_setattr` with
//! `MOUNT_ATTR_IDMAP`: the caller hands a function in ([`IdMap`]), so that the crate stays free of unsafe code
//! (docs/decisions/0005-idmap-by-callback.md).

mod error;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

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
    let _ = (lowers, upper_and_work, options);
    Err(Error::Unsupported { what: "overlay" })
}

/// Attaches a detached mount at a directory; the path's last component is not followed when it is a symbolic link.
pub fn attach(mount: BorrowedFd<'_>, target: &Path) -> Result<(), Error> {
    let _ = mount;
    Err(Error::Attach { target: PathBuf::from(target), source: std::io::ErrorKind::Unsupported.into() })
}

/// Detaches what is mounted at a path (lazily: open files in it go on).
pub fn detach(target: &Path) -> Result<(), Error> {
    Err(Error::Attach { target: PathBuf::from(target), source: std::io::ErrorKind::Unsupported.into() })
}
