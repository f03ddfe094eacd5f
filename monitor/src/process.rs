//! Children: workers under way and processes of `exec`.

use std::os::fd::OwnedFd;
use std::time::Instant;

use coracle_runtime::sys::worker::Worker;

use crate::container::Container;

/// What a worker was started for, with what its end needs.
#[derive(Debug)]
pub(crate) enum Job {
    Create(Box<Container>),
    Start {
        id: String,
    },
    Exec {
        tty: bool,
        timeout_ms: u64,
    },
    Signal,
    /// Removes what a creation that took too long has left, then tells the creation's failure.
    Undo,
    Delete {
        id: String,
    },
}

/// A worker under way and the client that waits for it.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) worker: Worker,
    pub(crate) job: Job,
    pub(crate) client: OwnedFd,
    pub(crate) deadline: Instant,
}

/// A process started by `exec`.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) client: OwnedFd,
    pub(crate) deadline: Option<Instant>,
    pub(crate) timed_out: bool,
}
