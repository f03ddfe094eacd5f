//! The first acts of every child: what it has of its parent that a container must never reach.
//!
//! Before any namespace is entered the process becomes non-dumpable (no ptrace, no `/proc/<pid>/fd` from inside) and
//! really closes every descriptor that is not in its plan: close-on-exec would come too late (CVE-2024-21626).

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use super::StepError;
use crate::sys::descriptors;

/// Makes the process non-dumpable.
///
/// # Errors
/// The kernel's.
pub fn undump() -> Result<(), StepError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| StepError::os("make non-dumpable", "", e))
}

/// Makes the process dumpable for the time in which an unprivileged parent needs its `/proc` files.
///
/// # Errors
/// The kernel's.
pub fn redump() -> Result<(), StepError> {
    set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(|e| StepError::os("make dumpable", "", e))
}

/// Puts the three streams in place of descriptors 0 to 2.
///
/// # Errors
/// The kernel's.
pub fn streams(streams: &[OwnedFd; 3]) -> Result<(), StepError> {
    for (target, fd) in (0..).zip(streams) {
        descriptors::dup_onto(fd.as_raw_fd(), target)
            .map_err(|e| StepError::io("set standard stream", target, &e))?;
    }
    Ok(())
}

/// Closes everything but the standard streams, `preserved` descriptors after them, and `keep`.
///
/// # Errors
/// A preserved descriptor is not open; the kernel's.
pub fn descriptors(preserved: u32, mut keep: Vec<RawFd>) -> Result<(), StepError> {
    let first = 3 + i32::try_from(preserved).unwrap_or(0);
    descriptors::close_all_but(first, &mut keep).map_err(|e| StepError::io("close descriptors", "", &e))
}

/// Marks everything behind the preserved descriptors close-on-exec, and lets the preserved ones survive.
///
/// # Errors
/// A preserved descriptor is not open; the kernel's.
pub fn seal_descriptors(preserved: u32) -> Result<(), StepError> {
    let first = 3 + i32::try_from(preserved).unwrap_or(0);
    for fd in 3..first {
        descriptors::clear_cloexec(fd).map_err(|e| StepError::io("preserve descriptor", fd, &e))?;
    }
    descriptors::cloexec_from(first).map_err(|e| StepError::io("close descriptors", "", &e))
}
