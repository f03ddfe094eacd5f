//! The start gate: init waits in the open of the exec fifo's write end until `start` opens the read end.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;

use super::StepError;
use super::program::Program;
use crate::sys::signals;

/// Waits at the fifo (held O_PATH, so that nothing opened it yet), and tells `start` that it passed.
///
/// # Errors
/// The kernel's.
pub fn pass(fifo: &OwnedFd, program: &Program) -> Result<(), StepError> {
    let failed = |e| StepError::os("open exec fifo", "", e);
    // The first process of a pid namespace is not killed by a signal that it doesn't handle.
    signals::exit_on_request().map_err(|e| StepError::io("handle signals", "", &e))?;
    let gate = program.reopen(fifo.as_fd(), OFlags::WRONLY).map_err(failed)?;
    rustix::io::write(&gate, b"0").map(drop).map_err(|e| StepError::os("write 0 exec fifo", "", e))
}
