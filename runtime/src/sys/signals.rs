//! Signal dispositions and masks: what a program inherits from us must be what it would inherit from a shell.

use std::io;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};

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

/// Ends the process on the signals that ask it to end, until the next exec. Without a handler the kernel would drop them
/// for the first process of a pid namespace.
///
/// # Errors
/// The kernel's.
pub fn exit_on_request() -> io::Result<()> {
    let action = SigAction::new(SigHandler::Handler(exit), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        // SAFETY: the handler calls _exit(2) and nothing else.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

extern "C" fn exit(signal: libc::c_int) {
    // SAFETY: _exit(2) is async-signal-safe and does not return.
    unsafe { libc::_exit(128 + signal) }
}
