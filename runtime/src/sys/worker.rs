//! Forked workers: a child of a single-threaded program that does one piece of work and reports over a socket.
//!
//! The monitor may not block; what can (a create, an exec, a hook) runs in a worker with a deadline that it owns.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::unistd::ForkResult;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A worker under way.
#[derive(Debug)]
pub struct Worker {
    /// Its process id.
    pub pid: i32,
    /// Readable when it has ended (pidfd_open(2)).
    pub pidfd: OwnedFd,
    /// Our end of its seqpacket socket, non-blocking.
    pub socket: OwnedFd,
}

/// Forks; `work` runs in the child with its end of the socket and returns the child's exit code.
///
/// # Errors
/// `EDEADLK` where the caller has more than one thread: a lock held by another thread would never be freed in the child.
pub fn fork_worker(work: impl FnOnce(OwnedFd) -> i32) -> io::Result<Worker> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // SAFETY: the process has one thread (checked above), so that no lock or allocator state of another is copied
    // half-way; the child ends in `_exit` and never returns into the caller's frames.
    let forked = unsafe { nix::unistd::fork() }?;
    match forked {
        ForkResult::Child => {
            drop(ours);
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(theirs))).unwrap_or(101);
            // SAFETY: `_exit` ends this process; no destructor or exit handler of the parent's state may run here.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            rustix::io::ioctl_fionbio(&ours, true)?;
            debug_assert!(ours.as_raw_fd() > 2);
            let pid =
                Pid::from_raw(child.as_raw()).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
            Ok(Worker { pid: child.as_raw(), pidfd: pidfd_open(pid, PidfdFlags::empty())?, socket: ours })
        }
    }
}

/// Forks and goes on in the child, which its parent's end makes an orphan. `true` in the parent: end now.
///
/// # Errors
/// `EDEADLK` where the caller has more than one thread.
pub fn continue_in_background() -> io::Result<bool> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    // SAFETY: the process has one thread (checked above): the child's copy of every lock and of the allocator is whole.
    Ok(matches!(unsafe { nix::unistd::fork() }?, ForkResult::Parent { .. }))
}
