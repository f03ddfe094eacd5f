//! Resource limits of another process. prlimit(2), Linux 2.6.36.

use std::io;

use super::check;

/// Sets `resource` of process `pid`.
///
/// # Errors
/// EPERM for raising a hard limit without CAP_SYS_RESOURCE.
pub fn set(pid: i32, resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads one rlimit64 that outlives the call, and writes none.
    check(unsafe {
        libc::syscall(libc::SYS_prlimit64, pid, resource, &limit, std::ptr::null::<libc::rlimit64>())
    })
    .map(drop)
}
