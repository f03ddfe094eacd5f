//! `start`: opens the gate of a created container and runs its poststart hooks.

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::ContainerState;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use super::Error;
use super::create::record_error;
use crate::hooks::{self, Stage};
use crate::init::StepError;
use crate::state::{ContainerDir, Record, Store};

/// See [`super::start`].
pub fn start(root: &Path, id: &str) -> Result<(), Error> {
    let dir = Store::at(root).lock(id).map_err(record_error)?;
    let record = dir.load().map_err(record_error)?;
    let pidfd = record.identity.as_ref().map(|i| i.open().map_err(record_error)).transpose()?.flatten();
    let pidfd = pidfd.ok_or_else(|| Error::State("cannot start a container that has stopped".to_owned()))?;
    open(&dir, &record, &pidfd)
}

/// Opens the gate of the container whose lock the caller holds.
pub fn open(dir: &ContainerDir, record: &Record, pidfd: &OwnedFd) -> Result<(), Error> {
    let fifo = dir.exec_fifo();
    crate::fault::point("start.gate")?;
    open_gate(&fifo, pidfd)?;
    crate::fault::point("start.opened")?;
    // Gone before the hooks: a second start must fail.
    rustix::fs::unlink(&fifo).map_err(|e| StepError::os("remove", fifo.display(), e))?;
    poststart(record, pidfd)
}

fn open_gate(fifo: &Path, pidfd: &OwnedFd) -> Result<(), Error> {
    let failed = |e| StepError::os("open exec fifo", fifo.display(), e);
    // Without O_NONBLOCK the open would wait for a writer that may be dead.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let gate = match rustix::fs::open(fifo, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            return Err(Error::State("cannot start an already running container".to_owned()));
        }
        other => other.map_err(failed)?,
    };
    let mut byte = [0_u8; 1];
    loop {
        let mut fds = [PollFd::new(&gate, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut fds, None)).map_err(failed)?;
        let dead = !fds[1].revents().is_empty();
        match rustix::io::read(&gate, &mut byte) {
            Ok(1) => return Ok(()),
            // End of file and EAGAIN: no writer yet, or it is not yet through.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) if !dead => {}
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {
                return Err(Error::State("container process is already dead".to_owned()));
            }
            Err(e) => return Err(failed(e).into()),
        }
    }
}

fn poststart(record: &Record, pidfd: &OwnedFd) -> Result<(), Error> {
    let list = super::hooks_of(&record.spec, Stage::Poststart);
    if list.is_empty() {
        return Ok(());
    }
    let environment: Vec<_> = std::env::vars_os().collect();
    let state = record.oci_state(ContainerState::Running);
    hooks::run(Stage::Poststart, &list, &state, &environment).map_err(|e| {
        // runtime-spec, lifecycle: the container is stopped.
        let _ = pidfd_send_signal(pidfd, Signal::KILL);
        Error::Hook(Box::new(e))
    })
}
