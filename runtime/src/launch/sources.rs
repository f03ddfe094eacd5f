//! Bind sources that the child can't open or may not map: a helper opens them in the child's mount namespace.
//!
//! With a user namespace the mounts of the container's mount namespace are copies whose flags the kernel has locked
//! (mount_namespaces(7)); a clone made there keeps the locks, one made in the host's mount namespace has none. The helper has
//! the host's privileges and ids and the container's mounts, in which no code but ours runs yet; it does nothing but this.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::os::fd::AsFd;

use super::channel::{Channel, Message, Received};
use crate::init::StepError;
use crate::plan::RootfsPlan;
use crate::plan::namespaces::Kind;
use crate::sys::clone::Child;
use crate::sys::namespaces;
use crate::sys::worker::fork_worker;

/// Opens the source of mount `index` as `child` would if it could; `None` where that fails and the child knows why.
///
/// # Errors
/// A source that must be mapped and can't be; the helper's own failures.
pub fn open(plan: &RootfsPlan, index: usize, child: &Child) -> Result<Option<OwnedFd>, StepError> {
    let worker = fork_worker(|socket| help(&Channel::from(socket), plan, index, child))
        .map_err(|e| StepError::io("fork", "helper for bind sources", &e))?;
    let answer = Channel::from(worker.socket).next(&worker.pidfd);
    let _ = waitid(WaitId::PidFd(worker.pidfd.as_fd()), WaitIdOptions::EXITED);
    match answer? {
        Received::Message(Message::Source(_), Some(fd)) => Ok(Some(fd)),
        Received::Message(Message::Failed(_), _) if !plan.must_have_source(index) => Ok(None),
        Received::Message(Message::Failed(error), _) => Err(error),
        _ => Err(StepError::why("open bind source", index, "the helper died")),
    }
}

/// The helper's life; returns its exit code.
fn help(parent: &Channel, plan: &RootfsPlan, index: usize, child: &Child) -> i32 {
    let opened = enter(child).and_then(|()| plan.open_source(index));
    let sent = match opened {
        Ok(fd) => parent.send(&Message::Source(index), Some(fd.as_fd())),
        Err(error) => parent.send(&Message::Failed(error), None),
    };
    i32::from(sent.is_err())
}

fn enter(child: &Child) -> Result<(), StepError> {
    let refused = |e: &std::io::Error| StepError::io("enter mount namespace of", child.pid, e);
    match namespaces::join(&child.pidfd, Kind::Mount.flag()) {
        // Before Linux 5.8 a pidfd is no namespace. The child is ours and not reaped: its number is still its own.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let path = format!("/proc/{}/ns/mnt", child.pid);
            let namespace = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| StepError::os("open", &path, e))?;
            namespaces::join(namespace, Kind::Mount.flag()).map_err(|e| refused(&e))
        }
        other => other.map_err(|e| refused(&e)),
    }
}
