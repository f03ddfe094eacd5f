//! The parent's side of the handshake: what it does at each message of the child, for create and exec alike.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::State;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::Error;
use super::channel::{Channel, Message, Received};
use super::deliver::{self, ListenerTarget};
use super::terminal::keep_newlines;
use crate::init::StepError;
use crate::plan::process::Rlimit;
use crate::sys::clone::Child;
use crate::sys::limits;

/// What `create` and `exec` do differently.
pub trait Parent {
    /// The child has its final pid.
    fn moved(&mut self, pid: i32, pidfd: &OwnedFd) -> Result<(), Error>;
    /// Mounts and devices are made.
    fn mounted(&mut self, pid: i32, pidfd: &OwnedFd) -> Result<(), Error>;
    /// The child needs the source of mount `index`; `None` where it can't be opened from here either.
    fn source(&mut self, index: usize, child: &Child) -> Result<Option<OwnedFd>, Error>;
    /// Only the loss of privileges is left.
    fn ready(&mut self, pid: i32, pidfd: &OwnedFd) -> Result<(), Error>;
    /// The state document for a seccomp agent.
    fn state(&self) -> State;
    /// Whether the child executes without waiting at a gate. Then its end after `ready` is the program's: what goes
    /// wrong on the way is told before, and a short program may have ended when we look.
    fn executes(&self) -> bool;
}

/// What the handshake needs and gives.
#[derive(Debug)]
pub struct Handshake<'a> {
    pub channel: Channel,
    pub child: Child,
    pub console_socket: Option<&'a Path>,
    pub listener: Option<ListenerTarget>,
    pub rlimits: &'a [Rlimit],
    /// The terminal's master, where no socket takes it.
    pub console: Option<OwnedFd>,
}

impl Handshake<'_> {
    /// Answers the child until it stands at its gate or executes.
    ///
    /// # Errors
    /// The child's failed step, its death, or a step of ours.
    pub fn run(&mut self, parent: &mut dyn Parent) -> Result<(), Error> {
        let mut ready = false;
        loop {
            match self.channel.next(&self.child.pidfd)? {
                Received::Message(message, fd) => {
                    ready |= matches!(message, Message::Ready);
                    self.answer(message, fd, parent)?;
                }
                Received::Closed => return Ok(()),
                Received::Died if ready && parent.executes() => return Ok(()),
                Received::Died => return Err(Error::Died(how_it_died(&self.child.pidfd))),
            }
        }
    }

    fn answer(
        &mut self,
        message: Message,
        fd: Option<OwnedFd>,
        parent: &mut dyn Parent,
    ) -> Result<(), Error> {
        let needed = |fd: Option<OwnedFd>| {
            fd.ok_or_else(|| StepError::why("receive", "handshake message", "a descriptor is missing"))
        };
        match message {
            Message::Failed(error) => return Err(Error::Step(error)),
            Message::Again => {
                self.follow(needed(fd)?)?;
                parent.moved(self.child.pid, &self.child.pidfd)?;
            }
            Message::Source(index) => {
                let source = parent.source(index, &self.child)?;
                return Ok(self.channel.send(&Message::Source(index), source.as_ref().map(AsFd::as_fd))?);
            }
            Message::Console => return self.take_console(needed(fd)?),
            Message::Mounted => parent.mounted(self.child.pid, &self.child.pidfd)?,
            Message::Ready => {
                // Not before: a low limit would stop our own steps.
                self.limit()?;
                parent.ready(self.child.pid, &self.child.pidfd)?;
            }
            Message::Listener => {
                if let Some(target) = &self.listener {
                    deliver::send_listener(target, &parent.state(), self.child.pid, &needed(fd)?)?;
                }
            }
            Message::Go => {}
        }
        Ok(self.channel.send(&Message::Go, None)?)
    }

    /// The second child took over; the first is gone in a moment and is ours to reap.
    fn follow(&mut self, pidfd: OwnedFd) -> Result<(), Error> {
        let pid = pid_of(&pidfd)?;
        let first = std::mem::replace(&mut self.child, Child { pid, pidfd, in_cgroup: true });
        let _ = waitid(WaitId::PidFd(first.pidfd.as_fd()), WaitIdOptions::EXITED);
        Ok(())
    }

    fn take_console(&mut self, master: OwnedFd) -> Result<(), Error> {
        match self.console_socket {
            Some(path) => {
                let socket = deliver::open_socket(path)?;
                deliver::send_fd(&socket, b"/dev/ptmx", master.as_fd())?;
            }
            None => {
                // Now, for the program may be done before anybody looks at its terminal.
                keep_newlines(&master);
                self.console = Some(master);
            }
        }
        Ok(())
    }

    fn limit(&self) -> Result<(), Error> {
        for limit in self.rlimits {
            limits::set(self.child.pid, limit.resource, limit.soft, limit.hard).map_err(|e| {
                StepError::io(
                    "error setting rlimits for ready process: error setting rlimit type",
                    limit.resource,
                    &e,
                )
            })?;
        }
        Ok(())
    }
}

/// The pid of a pidfd in our namespace, from its fdinfo.
fn pid_of(pidfd: &OwnedFd) -> Result<i32, StepError> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(&path).map_err(|e| StepError::io("read", &path, &e))?;
    let pid = text.lines().find_map(|l| l.strip_prefix("Pid:")?.trim().parse().ok()).filter(|pid| *pid > 0);
    pid.ok_or_else(|| StepError::why("read", path, "the process is gone"))
}

fn how_it_died(pidfd: &OwnedFd) -> String {
    match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
        Ok(Some(status)) => match (status.terminating_signal(), status.exit_status()) {
            (Some(libc::SIGKILL), _) => {
                "was killed by SIGKILL before it was ready (is the memory limit of its cgroup too low?)"
                    .to_owned()
            }
            (Some(signal), _) => format!("was killed by signal {signal} before it was ready"),
            (_, code) => format!("exited with code {} before it was ready", code.unwrap_or(-1)),
        },
        _ => "exited before it was ready".to_owned(),
    }
}
