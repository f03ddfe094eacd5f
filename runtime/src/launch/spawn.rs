//! The parent's part of the namespace plan: enters what only concerns children, clones, and comes back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::init::{StepError, shed};
use crate::plan::namespaces::{Kind, Step};
use crate::sys::clone::{Child, CloneArgs, clone_child};
use crate::sys::namespaces;

/// Walks the parent's steps up to the clone and undoes what was for the child; `body` runs in the child.
///
/// # Errors
/// The first step that the kernel refuses; the parent is back in its own namespaces then too.
pub fn spawn(
    steps: &[Step],
    opened: &[(Kind, OwnedFd)],
    into_cgroup: Option<BorrowedFd<'_>>,
    body: impl FnOnce() -> i32,
) -> Result<Child, StepError> {
    let mut away = Away(Vec::new());
    let mut flags = 0;
    for step in steps {
        match step {
            Step::Enter(kind, _) => away.enter(*kind, opened)?,
            Step::EnterNewTime(offsets) => away.enter_new_time(offsets)?,
            Step::Clone(wanted) => {
                flags = *wanted;
                break;
            }
            _ => {}
        }
    }
    // Inherited by the child, which a container that it is cloned into can then never open, not even for a moment.
    // Without privilege the parent itself needs the child's files in `/proc`; then the child does it when they are written.
    if rustix::process::geteuid().is_root() {
        shed::undump()?;
    }
    let child = clone_child(CloneArgs { flags, into_cgroup }, body)
        .map_err(|e| hint(StepError::io("clone init", format!("({flags:#x})"), &e), flags));
    away.back()?;
    child
}

fn hint(error: StepError, flags: u64) -> StepError {
    match error.errno {
        Some(libc::EPERM) if flags & Kind::User.flag() == 0 => {
            error.hint("namespaces need root or a user namespace in the configuration")
        }
        Some(libc::ENOSPC) => error.hint("a limit in /proc/sys/user/max_*_namespaces is reached"),
        Some(libc::EINVAL) => error.hint("does this kernel have all the namespaces that are asked for?"),
        _ => error,
    }
}

/// The own namespaces of those that were left.
struct Away(Vec<(Kind, OwnedFd)>);

impl Away {
    fn enter(&mut self, kind: Kind, opened: &[(Kind, OwnedFd)]) -> Result<(), StepError> {
        let fd = opened.iter().find(|(k, _)| *k == kind).map(|(_, fd)| fd);
        let fd = fd.ok_or_else(|| StepError::why("enter namespace", kind.proc_name(), "not opened"))?;
        self.remember(kind)?;
        namespaces::join(fd.as_fd(), kind.flag())
            .map_err(|e| StepError::io("enter namespace", kind.proc_name(), &e))
    }

    fn enter_new_time(&mut self, offsets: &str) -> Result<(), StepError> {
        self.remember(Kind::Time)?;
        namespaces::unshare(Kind::Time.flag())
            .map_err(|e| StepError::io("unshare time namespace", "", &e))?;
        let path = "/proc/self/timens_offsets";
        std::fs::write(path, offsets).map_err(|e| StepError::io("write", path, &e))
    }

    fn remember(&mut self, kind: Kind) -> Result<(), StepError> {
        let path = format!("/proc/self/ns/{}", kind.proc_name());
        let own = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| StepError::os("open", &path, e))?;
        self.0.push((kind, own));
        Ok(())
    }

    fn back(&mut self) -> Result<(), StepError> {
        let mut result = Ok(());
        while let Some((kind, own)) = self.0.pop() {
            let back = namespaces::join(own.as_fd(), kind.flag())
                .map_err(|e| StepError::io("return to own namespace", kind.proc_name(), &e));
            result = result.and(back);
        }
        result
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        // Only after an early error, which is the one that is reported.
        let _ = self.back();
    }
}
