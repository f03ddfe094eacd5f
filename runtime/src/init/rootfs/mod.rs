//! Walks the root filesystem's plan in the child: mounts, `/dev`, the change of root, masked and read-only paths.
//!
//! ```text
//! parent: plan.open_sources() ─▶ handles ─▶ child: prepare ▶ (hooks) ▶ pivot ▶ [bind_console] ▶ (sysctls) ▶ finish
//! ```

use super::StepError;
use crate::plan::RootfsPlan;
use std::os::fd::{BorrowedFd, OwnedFd};

/// What the parent opened for the child, and what the steps hand on to each other.
#[derive(Debug, Default)]
pub struct RootfsHandles {
    /// One a mount of the plan; only where the child could not open the source itself.
    sources: Vec<Option<OwnedFd>>,
}

impl RootfsHandles {
    /// The descriptors that must survive the child's first close_range.
    pub fn as_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        self.sources.iter().flatten().map(AsFd::as_fd)
    }
}

impl RootfsPlan {
    /// Opens, in the parent before clone, the sources that the child can't reach or may not map.
    ///
    /// # Errors
    /// A source that does not exist or can't be cloned or mapped.
    pub fn open_sources(&self) -> Result<RootfsHandles, StepError> {
        Ok(RootfsHandles { sources: self.mounts.iter().map(|_| None).collect() })
    }
}

/// Sets the propagation, makes the mounts and `/dev`, in the container's namespaces, before the root changes.
///
/// # Errors
/// The first mount or node that the kernel or our own checks refuse.
pub fn prepare(plan: &RootfsPlan, _handles: &mut RootfsHandles) -> Result<(), StepError> {
    Err(unsupported(plan))
}

/// Makes the root filesystem the root: pivot_root, or move and chroot.
///
/// # Errors
/// The kernel's refusal.
pub fn pivot(plan: &RootfsPlan, _handles: &mut RootfsHandles) -> Result<(), StepError> {
    Err(unsupported(plan))
}

/// Binds the terminal's slave end `pts` onto `/dev/console`, after `pivot`.
///
/// # Errors
/// `pts` is not on a real devpts, or the bind is refused.
pub fn bind_console(
    plan: &RootfsPlan,
    _handles: &mut RootfsHandles,
    _pts: BorrowedFd<'_>,
) -> Result<(), StepError> {
    Err(unsupported(plan))
}

/// Makes late read-only mounts, the read-only root, read-only and masked paths; sysctls are written before.
///
/// # Errors
/// The kernel's refusal, or a `/dev/null` that is not the null device.
pub fn finish(plan: &RootfsPlan, _handles: &mut RootfsHandles) -> Result<(), StepError> {
    Err(unsupported(plan))
}

fn unsupported(plan: &RootfsPlan) -> StepError {
    StepError::why("prepare root filesystem", plan.root.display(), "not built yet")
}
