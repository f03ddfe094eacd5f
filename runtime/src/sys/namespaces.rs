//! Entering and making namespaces. setns(2), unshare(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::check;

/// Moves this (single-threaded) process into the namespace behind `fd`; `kind` is its `CLONE_NEW*` flag.
///
/// # Errors
/// EINVAL when it is of another kind, EPERM.
pub fn join(fd: impl AsFd, kind: u64) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: values only; the process is single-threaded, so no other thread is surprised.
    check(unsafe { libc::syscall(libc::SYS_setns, fd, kind as libc::c_int) }).map(drop)
}

/// Makes new namespaces of the kinds in `flags` for this process (pid and time: for its children).
///
/// # Errors
/// The kernel's.
pub fn unshare(flags: u64) -> io::Result<()> {
    // SAFETY: values only; none of the flags is CLONE_FILES.
    check(unsafe { libc::syscall(libc::SYS_unshare, flags) }).map(drop)
}
