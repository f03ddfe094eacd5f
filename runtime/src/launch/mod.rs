//! The parent's side of a container's start: from a loaded specification to a process that waits at its start gate.
//!
//! ```text
//! create: facts → plan → open handles → cgroup → clone3 → id maps → [mounted] devices, hooks → [ready] record
//! start:  open the exec fifo (the child's write end answers) → poststart hooks
//! exec:   open namespaces → clone3 into the cgroup → joins → [ready] → execve
//! ```
//! Errors of the child arrive as [`StepError`] over a seqpacket socket; its death is seen on its pidfd.

mod request;

pub use request::{CreateRequest, Created, Error, ExecRequest, Execed, Stdio};

/// Creates the container of `req`: afterwards its init waits at the start gate and the record is on disk.
pub fn create(req: &CreateRequest) -> Result<Created, Error> {
    let _ = req;
    Err(Error::Unsupported("create".to_owned()))
}

/// Opens the start gate of container `id` below the state directory `root` and runs its poststart hooks.
pub fn start(root: &std::path::Path, id: &str) -> Result<(), Error> {
    let _ = (root, id);
    Err(Error::Unsupported("start".to_owned()))
}

/// Runs another process in a container.
pub fn exec(req: &ExecRequest) -> Result<Execed, Error> {
    let _ = req;
    Err(Error::Unsupported("exec".to_owned()))
}

/// Stays in the foreground until the process ends: forwards signals, copies the terminal; returns its exit code as
/// a shell would show it (128 + signal).
pub fn wait_foreground(process: Foreground) -> Result<u8, Error> {
    let _ = process;
    Err(Error::Unsupported("wait".to_owned()))
}

/// What [`wait_foreground`] waits for; made from [`Created`] or [`Execed`].
#[derive(Debug)]
pub struct Foreground {
    /// The process's id in our pid namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: std::os::fd::OwnedFd,
    /// Its terminal's master, where it has one and nobody else took it.
    pub console: Option<std::os::fd::OwnedFd>,
}

impl From<Created> for Foreground {
    fn from(c: Created) -> Self {
        Self { pid: c.pid, pidfd: c.pidfd, console: c.console }
    }
}

impl From<Execed> for Foreground {
    fn from(e: Execed) -> Self {
        Self { pid: e.pid, pidfd: e.pidfd, console: e.console }
    }
}
