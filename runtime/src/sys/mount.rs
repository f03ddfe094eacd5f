//! mount_setattr(2), which neither rustix nor nix wrap, and the question which calls of the new mount API answer.

use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What mount_setattr(2) changes; attributes are `MOUNT_ATTR_*`, propagation is `MS_*` without `MS_REC`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttributes<'a> {
    /// Attributes to set.
    pub set: u32,
    /// Attributes to clear, before the others are set.
    pub clear: u32,
    /// New propagation, 0 for none.
    pub propagation: u32,
    /// User namespace of `MOUNT_ATTR_IDMAP`.
    pub user_namespace: Option<BorrowedFd<'a>>,
    /// The whole tree.
    pub recursive: bool,
}

/// `mount_setattr(mount, "", AT_EMPTY_PATH, …)`, Linux 5.12.
///
/// # Errors
/// The kernel's: EPERM for locked flags, EINVAL where the filesystem has no id mapping.
pub fn mount_setattr(mount: BorrowedFd<'_>, change: &SetAttributes<'_>) -> Result<(), Errno> {
    let attr = libc::mount_attr {
        attr_set: u64::from(change.set),
        attr_clr: u64::from(change.clear),
        propagation: u64::from(change.propagation),
        userns_fd: change.user_namespace.map_or(0, |fd| fd.as_raw_fd().unsigned_abs().into()),
    };
    let recursive = if change.recursive { libc::AT_RECURSIVE } else { 0 };
    let flags = libc::c_long::from(libc::AT_EMPTY_PATH | recursive);
    let fd = libc::c_long::from(mount.as_raw_fd());
    let size = size_of::<libc::mount_attr>();
    // SAFETY: the path is a valid empty C string and `attr` is a valid structure of `size` bytes, both only read.
    let code =
        unsafe { libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, &raw const attr, size) };
    if code == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Which parts of the new mount API this kernel, and whatever filters it, lets us use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountApi {
    /// fsopen, fsconfig, fsmount and move_mount (5.2).
    pub fsopen: bool,
    /// open_tree and move_mount (5.2).
    pub open_tree: bool,
    /// mount_setattr (5.12).
    pub setattr: bool,
}

impl MountApi {
    /// Asks each call something invalid: one that is there answers EINVAL, a missing or filtered one ENOSYS or EPERM.
    #[must_use]
    pub fn probe() -> Self {
        let move_mount = answers(libc::SYS_move_mount, [-1, 0, -1, 0, -1]);
        Self {
            fsopen: move_mount
                && answers(libc::SYS_fsopen, [0, -1, 0, 0, 0])
                && answers(libc::SYS_fsconfig, [-1, 0, 0, 0, 0])
                && answers(libc::SYS_fsmount, [-1, -1, 0, 0, 0]),
            open_tree: move_mount && answers(libc::SYS_open_tree, [-1, 0, -1, 0, 0]),
            setattr: answers(libc::SYS_mount_setattr, [-1, 0, -1, 0, 0]),
        }
    }
}

fn answers(number: libc::c_long, a: [libc::c_long; 5]) -> bool {
    // SAFETY: the flags are invalid, so the calls end before they read their null pointers; null is never written.
    let code = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4]) };
    code == -1 && last_errno() == Errno::INVAL
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
