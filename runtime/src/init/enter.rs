//! Walks the child's part of the namespace plan.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::{StepError, shed};
use crate::launch::channel::{Channel, Message};
use crate::plan::namespaces::{Kind, Step};
use crate::sys::clone::clone_parent;
use crate::sys::{descriptors, namespaces};

/// What the steps need beside the plan.
#[derive(Debug, Default)]
pub struct Handles {
    /// Namespaces to join, opened by the parent.
    pub namespaces: Vec<(Kind, OwnedFd)>,
    /// Open `tasks` files of cgroup v1.
    pub tasks: Vec<OwnedFd>,
    /// The parent runs without privilege.
    pub unprivileged: bool,
    /// setgroups(2) is allowed in the user namespace.
    pub may_set_groups: bool,
}

impl Handles {
    /// Closes what was only for the way in: what is still open is within reach of the container's processes.
    pub fn close(&mut self) {
        let namespaces = std::mem::take(&mut self.namespaces).into_iter().map(|(_, fd)| fd);
        descriptors::close_all(namespaces.chain(std::mem::take(&mut self.tasks)));
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        self.close();
    }
}

/// Walks `steps`, as far as they are the child's; returns the flags of a second clone, if one is due.
///
/// # Errors
/// The first step that the kernel refuses.
pub fn walk(steps: &[Step], handles: &Handles) -> Result<Option<u64>, StepError> {
    for step in steps {
        match step {
            Step::BecomeRoot => become_root(handles.may_set_groups)?,
            Step::Join(kind, path) => join(*kind, path, handles)?,
            Step::JoinCgroups => join_cgroups(&handles.tasks)?,
            Step::Unshare(flags) => {
                namespaces::unshare(*flags)
                    .map_err(|e| StepError::io("unshare namespaces", format!("{flags:#x}"), &e))?;
            }
            Step::UnshareTime(offsets) => unshare_time(offsets)?,
            Step::CloneAgain(flags) => return Ok(Some(*flags)),
            Step::Enter(..) | Step::EnterNewTime(_) | Step::Clone(_) | Step::Restore(_) | Step::MapIds => {}
        }
    }
    Ok(None)
}

/// Takes id 0 of the user namespace, so that what is made next belongs to its root.
fn become_root(may_set_groups: bool) -> Result<(), StepError> {
    let failed = |e| StepError::os("become root of the user namespace", "", e);
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).map_err(failed)?;
    if may_set_groups {
        set_thread_groups(&[]).map_err(failed)?;
    }
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).map_err(failed)?;
    shed::undump()
}

fn join(kind: Kind, path: &std::path::Path, handles: &Handles) -> Result<(), StepError> {
    let what = format!("{} namespace {}", kind.proc_name(), path.display());
    let fd = handles.namespaces.iter().find(|(k, _)| *k == kind).map(|(_, fd)| fd);
    let fd = fd.ok_or_else(|| StepError::why("join", &what, "not opened"))?;
    namespaces::join(fd.as_fd(), kind.flag()).map_err(|e| StepError::io("join", &what, &e))
}

/// Writing 0 moves the writer. `tasks` needs no wait for an RCU grace period, which `cgroup.procs` costs 8 to 21 ms.
fn join_cgroups(tasks: &[OwnedFd]) -> Result<(), StepError> {
    for file in tasks {
        rustix::io::write(file, b"0").map_err(|e| StepError::os("join cgroup", "", e))?;
    }
    Ok(())
}

fn unshare_time(offsets: &str) -> Result<(), StepError> {
    namespaces::unshare(Kind::Time.flag()).map_err(|e| StepError::io("unshare time namespace", "", &e))?;
    // A non-dumpable process may not write its own file in a user namespace.
    shed::redump()?;
    let path = "/proc/self/timens_offsets";
    std::fs::write(path, offsets).map_err(|e| StepError::io("write", path, &e))?;
    shed::undump()
}

/// Makes a second child, as our parent's, that runs `rest`; tells the parent its pidfd.
///
/// Returns `Some(exit code)` in the first child, which ends, and `None` in the second, once `rest` has succeeded.
///
/// # Errors
/// The clone's in the first, those of `rest` in the second child.
pub fn clone_again(
    channel: &Channel,
    flags: u64,
    rest: impl FnOnce() -> Result<(), StepError>,
) -> Result<Option<i32>, StepError> {
    match clone_parent(flags) {
        Ok(Some(child)) => {
            channel.send(&Message::Again, Some(child.pidfd.as_fd()))?;
            Ok(Some(0))
        }
        Ok(None) => {
            // It may run before the first one has told of it: what it said then would be taken for the first one's word, and
            // limits and record would be of a process that is gone.
            channel.wait_go()?;
            rest().map(|()| None)
        }
        Err(e) => Err(StepError::io("clone again", "", &e)),
    }
}
