//! Signal dispositions and masks: what a program inherits from us must be what it would inherit from a shell.

use std::io;

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};

/// Restores the default action of every signal and empties the mask, before an exec.
///
/// Rust's start-up ignores SIGPIPE, and an ignored signal stays ignored over execve(2).
///
/// # Errors
/// The kernel's.
pub fn reset() -> io::Result<()> {
    let untouched = [Signal::SIGKILL, Signal::SIGSTOP];
    for signal in Signal::iterator().filter(|signal| !untouched.contains(signal)) {
        // SAFETY: SIG_DFL is no handler of ours.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}
