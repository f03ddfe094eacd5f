//! A user namespace that exists only as a descriptor: the mapping of an idmapped mount.
//!
//! The kernel makes one only together with a process, so a child is cloned, mapped, looked at and killed.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use std::os::fd::OwnedFd;

/// Makes a user namespace with these texts as `uid_map` and `gid_map`.
///
/// # Errors
/// The kernel's refusal of the clone (user namespaces switched off) or of a map.
pub fn create(uid_map: &str, gid_map: &str) -> std::io::Result<OwnedFd> {
    let child = clone_waiting_child()?;
    let namespace = map_and_open(child, uid_map, gid_map);
    let _ = rustix::process::kill_process(child, Signal::KILL);
    while let Err(Errno::INTR) = rustix::process::waitpid(Some(child), WaitOptions::empty()) {}
    namespace
}

fn map_and_open(child: Pid, uid_map: &str, gid_map: &str) -> std::io::Result<OwnedFd> {
    let directory = format!("/proc/{}", child.as_raw_nonzero());
    std::fs::write(format!("{directory}/uid_map"), uid_map)?;
    std::fs::write(format!("{directory}/gid_map"), gid_map)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(format!("{directory}/ns/user"), flags, Mode::empty())?)
}

/// Clones a child in a new user namespace; it does nothing until it is killed, or dies with its parent.
fn clone_waiting_child() -> std::io::Result<Pid> {
    let flags = libc::c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
    // SAFETY: a null stack makes this a fork, and the process is single-threaded; the child calls only prctl and pause.
    let code = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if code == 0 {
        wait_to_be_killed();
    }
    i32::try_from(code)
        .ok()
        .filter(|pid| *pid > 0)
        .and_then(Pid::from_raw)
        .ok_or_else(std::io::Error::last_os_error)
}

fn wait_to_be_killed() -> ! {
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    loop {
        // SAFETY: takes no argument.
        unsafe { libc::pause() };
    }
}
