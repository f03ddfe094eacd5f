//! A user namespace that exists only as a descriptor: the mapping of an idmapped mount, or the owner of a pod's namespaces.
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
    let made = create_owning(&[], uid_map, gid_map)?;
    made.into_iter().next().ok_or_else(|| Errno::INVAL.into())
}

/// The same with further namespaces that it owns, each by its name below `/proc/<pid>/ns` and its `CLONE_NEW*` flag. The
/// user namespace comes first, then the others as given. Other threads of the caller don't matter.
///
/// # Errors
/// As [`create`].
pub fn create_owning(
    kinds: &[(&str, libc::c_int)],
    uid_map: &str,
    gid_map: &str,
) -> std::io::Result<Vec<OwnedFd>> {
    let flags = kinds.iter().fold(libc::CLONE_NEWUSER, |all, (_, flag)| all | flag);
    let child = clone_waiting_child(flags)?;
    let names = std::iter::once("user").chain(kinds.iter().map(|(name, _)| *name));
    let opened = map(child, uid_map, gid_map).and_then(|()| names.map(|name| open(child, name)).collect());
    let _ = rustix::process::kill_process(child, Signal::KILL);
    while let Err(Errno::INTR) = rustix::process::waitpid(Some(child), WaitOptions::empty()) {}
    opened
}

fn map(child: Pid, uid_map: &str, gid_map: &str) -> std::io::Result<()> {
    let directory = format!("/proc/{}", child.as_raw_nonzero());
    std::fs::write(format!("{directory}/uid_map"), uid_map)?;
    std::fs::write(format!("{directory}/gid_map"), gid_map)
}

fn open(child: Pid, name: &str) -> std::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(format!("/proc/{}/ns/{name}", child.as_raw_nonzero()), flags, Mode::empty())?)
}

/// Clones a child in new namespaces; it does nothing until it is killed, or dies with its parent.
fn clone_waiting_child(flags: libc::c_int) -> std::io::Result<Pid> {
    let flags = libc::c_long::from(flags | libc::SIGCHLD);
    // SAFETY: a null stack makes this a fork; whatever other threads hold, the child calls only prctl and pause.
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
