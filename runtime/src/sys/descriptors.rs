//! Which descriptors a process has: closing all but some, and taking over inherited ones.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::check;

/// Closes every descriptor from `first` on that is not in `keep`, by close_range(2) (Linux 5.9) between the kept ones.
///
/// `OwnedFd`s of closed descriptors must be forgotten or never dropped: only a child between clone and exec calls this.
///
/// # Errors
/// The kernel's, and those of reading `/proc/self/fd` on kernels without close_range.
pub fn close_all_but(first: RawFd, keep: &mut Vec<RawFd>) -> io::Result<()> {
    keep.sort_unstable();
    keep.dedup();
    let mut from = first.unsigned_abs();
    for &fd in keep.iter().filter(|&&fd| fd >= first) {
        let fd = fd.unsigned_abs();
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = fd + 1;
    }
    close_range(from, u32::MAX)
}

/// Closes descriptors that were opened one after the other with one call for each run of numbers.
pub fn close_all(descriptors: impl IntoIterator<Item = OwnedFd>) {
    let mut owned: Vec<OwnedFd> = descriptors.into_iter().collect();
    owned.sort_unstable_by_key(AsRawFd::as_raw_fd);
    let numbers: Vec<RawFd> = owned.iter().map(AsRawFd::as_raw_fd).collect();
    let mut owned = owned.into_iter();
    for run in numbers.chunk_by(|a, b| a + 1 == *b) {
        let fds: Vec<OwnedFd> = owned.by_ref().take(run.len()).collect();
        let (first, last) = (run[0].unsigned_abs(), run[run.len() - 1].unsigned_abs());
        // SAFETY: all descriptors of the run are ours, and are forgotten below if they are closed here.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        // Without close_range each is closed on its own: `/proc/self/fd` may be another namespace's by now.
        if result == 0 {
            fds.into_iter().for_each(std::mem::forget);
        }
    }
}

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
/// The kernel's.
pub fn cloexec_from(first: RawFd) -> io::Result<()> {
    // SAFETY: changes flags of descriptors only.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_uint)
    };
    match check(result) {
        Ok(_) => Ok(()),
        Err(_) => each_open(first, |fd| {
            // SAFETY: sets a flag of a descriptor; a stale number gives EBADF.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }),
    }
}

/// Lets `fd` survive an exec.
///
/// # Errors
/// EBADF.
pub fn clear_cloexec(fd: RawFd) -> io::Result<()> {
    // SAFETY: sets a flag of a descriptor; a stale number gives EBADF.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }.into()).map(drop)
}

/// Says whether descriptor `fd` is open.
#[must_use]
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: reads a flag; a stale number gives EBADF.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Duplicates `fd` onto the number `target`, inheritable. dup2(2)
///
/// # Errors
/// The kernel's.
pub fn dup_onto(fd: RawFd, target: RawFd) -> io::Result<()> {
    // SAFETY: only standard streams are replaced, which no OwnedFd owns.
    check(unsafe { libc::dup2(fd, target) }.into()).map(drop)
}

/// Takes over a descriptor that the caller's protocol hands to us by number.
///
/// # Errors
/// EBADF when it is not open.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    if !is_open(fd) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and by the protocol ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn close_range(from: u32, to: u32) -> io::Result<()> {
    // SAFETY: the caller is a child that uses none of these descriptors any more.
    let result = unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
    match check(result) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            let to = i32::try_from(to).unwrap_or(i32::MAX);
            each_open(from as RawFd, |fd| {
                if fd <= to {
                    // SAFETY: as above.
                    unsafe { libc::close(fd) };
                }
            })
        }
        Err(error) => Err(error),
    }
}

fn each_open(first: RawFd, mut act: impl FnMut(RawFd)) -> io::Result<()> {
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&fd| fd >= first)
        .collect();
    open.into_iter().for_each(&mut act);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clone::{CloneArgs, clone_child};
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::os::fd::AsFd;

    #[test]
    fn closes_runs_and_nothing_between_them() {
        let files: Vec<OwnedFd> = (0..6).map(|_| std::fs::File::open("/").unwrap().into()).collect();
        let child = clone_child(CloneArgs::default(), || {
            let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
            let kept = numbers[2];
            // The child's copies are the only ones that it may close.
            let owned = numbers.iter().filter(|fd| **fd != kept).map(|fd| adopt(*fd).unwrap());
            close_all(owned.collect::<Vec<_>>());
            i32::from(numbers.iter().all(|fd| is_open(*fd) == (*fd == kept)))
        })
        .unwrap();
        let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(1));
    }

    #[test]
    fn closes_all_but_the_kept_ones() {
        let kept = std::fs::File::open("/").unwrap();
        let lost = std::fs::File::open("/").unwrap();
        let child = clone_child(CloneArgs::default(), || {
            let done = close_all_but(3, &mut vec![kept.as_raw_fd()]).is_ok();
            i32::from(done && is_open(kept.as_raw_fd()) && !is_open(lost.as_raw_fd()))
        })
        .unwrap();
        let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(1));
    }
}
