//! Scheduling class, I/O priority and personality, for which there is no safe wrapper.

use std::io;

use super::check;

/// The kernel's `struct sched_attr`, first version (sched_setattr(2), Linux 3.14).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// `sizeof(struct sched_attr)`; [`set_scheduler`] fills it in.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value, for SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// Static priority, for SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub runtime: u64,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub deadline: u64,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub period: u64,
}

/// Sets this process's scheduling policy and parameters.
///
/// # Errors
/// EPERM without CAP_SYS_NICE, EINVAL.
pub fn set_scheduler(attributes: SchedAttr) -> io::Result<()> {
    let attributes = SchedAttr { size: size_of::<SchedAttr>() as u32, ..attributes };
    // SAFETY: the kernel reads `size` bytes of a structure that outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attributes, 0) }).map(drop)
}

/// Sets this process's I/O class (1 to 3) and priority (0 to 7). ioprio_set(2)
///
/// # Errors
/// EPERM for the real-time class without privilege.
pub fn set_io_priority(class: u32, priority: u32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_CLASS_SHIFT: u32 = 13;
    let value = (class << IOPRIO_CLASS_SHIFT) | priority;
    // SAFETY: values only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) }).map(drop)
}

/// Sets this process's execution domain. personality(2)
///
/// # Errors
/// EINVAL for an unknown one.
pub fn set_personality(domain: u64) -> io::Result<()> {
    // SAFETY: values only.
    check(unsafe { libc::syscall(libc::SYS_personality, domain) }).map(drop)
}

/// Sets where this process's memory comes from; inherited over exec. set_mempolicy(2)
///
/// # Errors
/// EINVAL for nodes that are not there or that the mode does not take.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> io::Result<()> {
    // The kernel counts one bit more than it reads.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads `bits - 1` bits of a slice that outlives the call.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}
