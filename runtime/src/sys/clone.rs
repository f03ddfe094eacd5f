//! Makes children: `clone3(2)` with a pidfd and straight into a cgroup, `clone(2)` where that is not to be had.
//!
//! The program is single-threaded, so the child may do everything that the parent may: it is a fork.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::check;

/// The exit code of a child whose own code panicked.
const PANICKED: i32 = 254;

/// libc's constant is too narrow for its value.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// How to make a child.
#[derive(Debug, Clone, Copy, Default)]
pub struct CloneArgs<'fd> {
    /// `CLONE_NEW*` and `CLONE_PARENT`.
    pub flags: u64,
    /// The cgroup2 directory that the child starts in (Linux 5.7).
    pub into_cgroup: Option<BorrowedFd<'fd>>,
}

/// A child just made.
#[derive(Debug)]
pub struct Child {
    /// Its pid in our namespace.
    pub pid: i32,
    /// Its pidfd, close-on-exec.
    pub pidfd: OwnedFd,
    /// It is in the group that was asked for; `false` after the fallback to `clone(2)`.
    pub in_cgroup: bool,
}

/// Makes a child that runs `body` and exits with the code that it returns. clone3(2), Linux 5.3.
///
/// Falls back to clone(2) where clone3 is unknown or filtered (ENOSYS; EPERM from older Docker's filter); then the
/// caller moves the child into its cgroup.
///
/// # Errors
/// The kernel's.
pub fn clone_child(args: CloneArgs<'_>, body: impl FnOnce() -> i32) -> io::Result<Child> {
    let mut pidfd: libc::c_int = -1;
    let (result, in_cgroup) = match clone3(args, &mut pidfd) {
        Err(error) if unavailable(&error) => (clone2(args.flags, &mut pidfd), args.into_cgroup.is_none()),
        other => (other, true),
    };
    match result? {
        0 => {
            let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(PANICKED);
            exit_now(code);
            unreachable!("exited")
        }
        pid => {
            // SAFETY: the kernel stored a new descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid, pidfd, in_cgroup })
        }
    }
}

/// Makes a sibling that goes on where this process is: `None` in the new process, `Some` in the old one.
///
/// The new process is a child of our parent (`CLONE_PARENT`); the caller ends soon.
///
/// # Errors
/// The kernel's; EINVAL for the first process of a pid namespace.
pub fn clone_parent(flags: u64) -> io::Result<Option<Child>> {
    let args = CloneArgs { flags: flags | libc::CLONE_PARENT as u64, into_cgroup: None };
    let mut pidfd: libc::c_int = -1;
    let result = match clone3(args, &mut pidfd) {
        Err(error) if unavailable(&error) => clone2(args.flags, &mut pidfd),
        other => other,
    };
    match result? {
        0 => Ok(None),
        pid => {
            // SAFETY: the kernel stored a new descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Some(Child { pid, pidfd, in_cgroup: true }))
        }
    }
}

/// Ends the process at once: no destructors, no buffers, which belong to the parent's image.
pub(crate) fn exit_now(code: i32) -> Option<Infallible> {
    // SAFETY: _exit takes any value and does not return.
    unsafe { libc::_exit(code) }
}

fn unavailable(error: &io::Error) -> bool {
    // ENOENT: the group is outside of the namespace of groups that we have entered for the child (nsdelegate).
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::E2BIG | libc::ENOENT))
}

fn clone3(args: CloneArgs<'_>, pidfd: &mut libc::c_int) -> io::Result<i32> {
    let mut raw = libc::clone_args {
        flags: args.flags | libc::CLONE_PIDFD as u64,
        pidfd: std::ptr::from_mut(pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if args.flags & libc::CLONE_PARENT as u64 != 0 {
        // The kernel takes the exit signal of the caller, and wants none given.
        raw.exit_signal = 0;
    }
    if let Some(cgroup) = args.into_cgroup {
        raw.flags |= CLONE_INTO_CGROUP;
        raw.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    }
    // SAFETY: `raw` is a complete clone_args that outlives the call; without CLONE_VM and with stack 0 this is a fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw, size_of::<libc::clone_args>()) };
    Ok(check(pid)? as i32)
}

fn clone2(flags: u64, pidfd: &mut libc::c_int) -> io::Result<i32> {
    let signal = if flags & libc::CLONE_PARENT as u64 != 0 { 0 } else { libc::SIGCHLD as u64 };
    let flags = flags | libc::CLONE_PIDFD as u64 | signal;
    // SAFETY: as fork: no CLONE_VM, no stack; the third argument is where the pidfd goes on every supported
    // architecture (x86-64, aarch64 and riscv64 differ only behind it, where all is 0).
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, std::ptr::from_mut(pidfd), 0, 0) };
    Ok(check(pid)? as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::os::fd::AsFd;

    #[test]
    fn a_child_returns_its_code() {
        let child = clone_child(CloneArgs::default(), || 7).unwrap();
        let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(7));
    }

    #[test]
    fn the_fallback_makes_a_child_too() {
        let mut pidfd = -1;
        let pid = clone2(0, &mut pidfd).unwrap();
        if pid == 0 {
            exit_now(3);
        }
        // SAFETY: just made by the kernel.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(3));
    }
}
