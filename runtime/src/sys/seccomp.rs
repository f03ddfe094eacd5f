//! seccomp(2): loads a program into the calling thread.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use crate::seccomp::SockFilter;

/// `SECCOMP_SET_MODE_FILTER`.
const SET_MODE_FILTER: libc::c_uint = 1;
/// `SECCOMP_GET_ACTION_AVAIL`, Linux 4.14.
const GET_ACTION_AVAIL: libc::c_uint = 2;

/// Installs `program` with `flags`; the result is the listener when `listener` (`SECCOMP_FILTER_FLAG_NEW_LISTENER` set).
///
/// # Errors
/// seccomp(2)'s. With TSYNC and without TSYNC_ESRCH a positive result names a thread that can't be synchronised: EBUSY.
pub fn set_mode_filter(program: &[SockFilter], flags: u32, listener: bool) -> io::Result<Option<OwnedFd>> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let prog = libc::sock_fprog { len, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    // SAFETY: `prog` points to `len` instructions laid out as `struct sock_filter` (`repr(C)`), which outlive the call and
    // which the kernel only reads.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const prog) };
    let fd = i32::try_from(result).unwrap_or(-1);
    match (fd, listener) {
        (..0, _) => Err(io::Error::last_os_error()),
        // SAFETY: with NEW_LISTENER (and never a plain TSYNC beside it) the result is a new descriptor that nobody else owns.
        (_, true) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        (0, false) => Ok(None),
        (_, false) => Err(io::Error::from_raw_os_error(libc::EBUSY)),
    }
}

/// Whether the kernel knows the filter return value `action` (SECCOMP_GET_ACTION_AVAIL, Linux 4.14).
#[must_use]
pub fn action_available(action: u32) -> bool {
    // SAFETY: the kernel reads one u32 through the pointer, which lives until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) };
    result == 0
}
