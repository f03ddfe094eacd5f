//! The start gate: init waits in the open of the exec fifo's write end until `start` opens the read end.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::StepError;
use super::program::Program;

/// Waits at the fifo (held O_PATH, so that nothing opened it yet), and tells `start` that it passed.
///
/// # Errors
/// The kernel's.
pub fn pass(fifo: &OwnedFd, program: &Program) -> Result<(), StepError> {
    let failed = |e| StepError::os("open exec fifo", "", e);
    let own = program.proc_fd()?;
    let open = || {
        rustix::fs::openat(
            &own,
            fifo.as_raw_fd().to_string(),
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    let gate = rustix::io::retry_on_intr(open).map_err(failed)?;
    rustix::io::write(&gate, b"0").map(drop).map_err(|e| StepError::os("write 0 exec fifo", "", e))
}
