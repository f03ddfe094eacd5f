//! A container as the verbs see it: its record, and the status computed from the kernel, never stored.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use super::{Context, Error, group};
use crate::state::{self, ContainerDir, Record, Status, Store};

/// How long a verb waits for another one that holds the container's lock.
const LOCK_DEADLINE: Duration = Duration::from_secs(30);

/// A container that exists.
#[derive(Debug)]
pub struct Container {
    pub record: Record,
    store: Store,
}

impl Container {
    /// Loads a container. A half-created one does not exist, as for runc, which has no record of it either.
    pub fn load(context: &Context, id: &str) -> Result<Self, Error> {
        if id.is_empty() {
            return Err(Error::Usage("container id cannot be empty".to_owned()));
        }
        let store = context.store();
        match store.load(id) {
            Ok(record) => Ok(Self { record, store }),
            Err(state::Error::HalfCreated { .. }) => Err(state::Error::NotFound.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// A container whose record is at hand.
    pub fn of(context: &Context, record: Record) -> Self {
        Self { record, store: context.store() }
    }

    /// The status by the kernel's word: the first process's identity, its start gate, its freezer.
    pub fn status(&self) -> Result<Status, Error> {
        let Some(identity) = &self.record.identity else { return Ok(Status::Creating) };
        if !identity.is_alive()? {
            return Ok(Status::Stopped);
        }
        if group::is_frozen(&self.record) {
            return Ok(Status::Paused);
        }
        let gate = self.store.path(&self.record.id).join("exec.fifo");
        Ok(if gate.symlink_metadata().is_ok() { Status::Created } else { Status::Running })
    }

    /// The first process, or `None` when it is gone.
    pub fn pidfd(&self) -> Result<Option<OwnedFd>, Error> {
        match &self.record.identity {
            Some(identity) => Ok(identity.open()?),
            None => Ok(None),
        }
    }

    /// Whether the kernel kills every process when the first one goes.
    pub fn has_own_pid_namespace(&self) -> bool {
        let namespaces = &self.record.config.namespaces;
        namespaces.iter().any(|ns| ns.kind == "NEWPID" && ns.path.as_os_str().is_empty())
    }

    /// Sends a signal to the first process, which cannot be another one by now.
    pub fn signal(&self, number: i32) -> Result<(), Error> {
        let Some(pidfd) = self.pidfd()? else { return Err(not_running()) };
        if number == 0 {
            return Ok(());
        }
        let signal = Signal::from_named_raw(number).map_or_else(|| realtime(number), Ok)?;
        match pidfd_send_signal(&pidfd, signal) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::SRCH) => Err(not_running()),
            Err(errno) => {
                let text = crate::init::step_error::errno_text(errno.raw_os_error());
                Err(Error::Refused(format!("unable to signal init: {text}")))
            }
        }
    }
}

fn not_running() -> Error {
    Error::Refused("container not running".to_owned())
}

fn realtime(number: i32) -> Result<Signal, Error> {
    crate::sys::signal_number::realtime(number)
        .ok_or_else(|| Error::Refused("unable to signal init: invalid argument".to_owned()))
}

/// Locks a container, waiting for the verb that holds it, but not for ever.
pub fn lock(store: &Store, id: &str) -> Result<ContainerDir, Error> {
    let start = Instant::now();
    loop {
        match store.try_lock(id) {
            Err(state::Error::Locked { .. }) if start.elapsed() < LOCK_DEADLINE => {
                pause_poll(Duration::from_millis(20))
            }
            other => return other.map_err(Error::from),
        }
    }
}

/// Waits until the process has exited; `false` when `limit` passed first.
pub fn wait_exit(pidfd: &OwnedFd, limit: Duration) -> bool {
    let start = Instant::now();
    loop {
        let Some(left) = limit.checked_sub(start.elapsed()) else { return false };
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        let timeout = Timespec::try_from(left).ok();
        if matches!(poll(&mut fds, timeout.as_ref()), Ok(n) if n > 0) {
            return true;
        }
    }
}

/// The pause between two looks at a condition that no descriptor reports.
pub fn pause_poll(time: Duration) {
    let _ = poll(&mut [], Timespec::try_from(time).ok().as_ref());
}
