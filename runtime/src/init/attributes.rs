//! What a process inherits over exec and what is not privilege: labels, scheduling, personality, affinity, streams.

use std::os::fd::BorrowedFd;

use rustix::fs::{Gid, Uid};
use rustix::thread::CpuSet;

use super::StepError;
use super::program::Program;
use crate::sys::schedule;

/// Applies everything that is done before the parent is told `Ready`.
///
/// # Errors
/// The first that the kernel refuses.
pub fn apply(program: &Program) -> Result<(), StepError> {
    let process = &program.process;
    if let Some(scheduler) = process.scheduler {
        schedule::set_scheduler(scheduler).map_err(|e| {
            let error = StepError::io("set scheduler", "", &e);
            match e.raw_os_error() {
                Some(libc::EPERM) if process.has_cpuset => {
                    error.because("process scheduler can't be used together with AllowedCPUs")
                }
                _ => error,
            }
        })?;
    }
    if let Some((class, priority)) = process.io_priority {
        schedule::set_io_priority(class, priority).map_err(|e| StepError::io("set io priority", "", &e))?;
    }
    if let Some(domain) = process.personality {
        schedule::set_personality(domain).map_err(|e| StepError::io("set personality", domain, &e))?;
    }
    if let Some(policy) = &process.memory_policy {
        schedule::set_memory_policy(policy.mode, &policy.nodes)
            .map_err(|e| StepError::io("set memory policy", policy.mode, &e))?;
    }
    if let Some(profile) = &process.apparmor_profile {
        program.write_attr(
            &["apparmor/exec", "exec"],
            &format!("exec {profile}"),
            "apply apparmor profile",
            profile,
        )?;
    }
    if let Some(label) = &process.selinux_label {
        program.write_attr(&["exec"], label, "set selinux label", label)?;
    }
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(|e| StepError::os("set no_new_privs", "", e))?;
    }
    Ok(())
}

/// exec's CPU affinity until it is in the container's cgroup.
///
/// # Errors
/// The kernel's.
pub fn initial_affinity(program: &Program) -> Result<(), StepError> {
    program.process.initial_affinity.as_deref().map_or(Ok(()), set_affinity)
}

/// exec's CPU affinity inside the cgroup; without one all of the cgroup's CPUs, whatever the caller's were.
///
/// # Errors
/// The kernel's.
pub fn final_affinity(program: &Program) -> Result<(), StepError> {
    if let Some(cpus) = program.process.final_affinity.as_deref() {
        return set_affinity(cpus);
    }
    if program.process.initial_affinity.is_none() {
        reset_affinity();
    }
    Ok(())
}

/// All of the group's CPUs, whatever the caller's were. Best effort: the kernel cuts it to the cpuset.
pub fn reset_affinity() {
    let _ = set_affinity(&(0..CpuSet::MAX_CPU).collect::<Vec<_>>());
}

fn set_affinity(cpus: &[usize]) -> Result<(), StepError> {
    let mut set = CpuSet::new();
    cpus.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU).for_each(|cpu| set.set(*cpu));
    rustix::thread::sched_setaffinity(None, &set).map_err(|e| StepError::os("set cpu affinity", "", e))
}

/// Gives the standard streams to the container's user, so that it can open `/dev/stdout` again.
///
/// # Errors
/// The kernel's, but for streams that cannot be given away.
pub fn give_streams(uid: u32) -> Result<(), StepError> {
    let null = rustix::fs::stat("/dev/null").ok().map(|s| s.st_rdev);
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        give(stream, uid, null)?;
    }
    Ok(())
}

fn give(stream: BorrowedFd<'_>, uid: u32, null: Option<u64>) -> Result<(), StepError> {
    use rustix::io::Errno;
    let Ok(stat) = rustix::fs::fstat(stream) else { return Ok(()) };
    if stat.st_uid == uid || Some(stat.st_rdev) == null {
        return Ok(());
    }
    match rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), Some(Gid::from_raw(stat.st_gid))) {
        // EINVAL: an id that is not mapped in a user namespace; EPERM, EROFS: a file of the host's.
        Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::ROFS) => Ok(()),
        Err(e) => Err(StepError::os("change owner of standard stream", "", e)),
    }
}
