//! The foreground of `run` and `exec`: forwards signals, shows the terminal, reaps, and returns the exit code.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::terminal::Terminal;
use super::{Created, Error, Execed};
use crate::init::StepError;

/// What [`wait_foreground`] waits for; made from [`Created`] or [`Execed`].
#[derive(Debug)]
pub struct Foreground {
    /// The process's id in our pid namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Its terminal's master, where it has one and nobody else took it.
    pub console: Option<OwnedFd>,
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

/// Stays in the foreground until the process ends: forwards signals, copies the terminal; returns its exit code as
/// a shell would show it (128 + signal).
///
/// # Errors
/// The kernel's.
pub fn wait_foreground(process: Foreground) -> Result<u8, Error> {
    let signals = block_signals().map_err(|e| StepError::os("watch signals", "", e))?;
    let mut terminal = process.console.map(Terminal::connect);
    loop {
        wait(&signals, &process.pidfd, terminal.as_ref())?;
        forward(&signals, &process.pidfd, terminal.as_ref());
        if let Some(terminal) = &mut terminal {
            terminal.copy();
        }
        if let Some(code) = reap(process.pid, &process.pidfd)? {
            if let Some(terminal) = &mut terminal {
                terminal.drain();
            }
            return Ok(code);
        }
    }
}

fn block_signals() -> Result<SignalFd, rustix::io::Errno> {
    let mut set = SigSet::all();
    // What the processor raises must still end us.
    for fault in
        [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGTRAP, Signal::SIGABRT]
    {
        set.remove(fault);
    }
    let errno = |e: nix::errno::Errno| rustix::io::Errno::from_raw_os_error(e as i32);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).map_err(errno)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(errno)
}

fn wait(signals: &SignalFd, pidfd: &OwnedFd, terminal: Option<&Terminal>) -> Result<(), StepError> {
    let mut fds = vec![
        PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN),
    ];
    fds.extend(terminal.iter().flat_map(|t| t.poll_fds()));
    rustix::io::retry_on_intr(|| poll(&mut fds, None))
        .map(drop)
        .map_err(|e| StepError::os("wait for container", "", e))
}

fn forward(signals: &SignalFd, pidfd: &OwnedFd, terminal: Option<&Terminal>) {
    while let Ok(Some(info)) = signals.read_signal() {
        let number = i32::try_from(info.ssi_signo).unwrap_or(0);
        match number {
            // SIGURG is Go's preemption signal and never meant for the container; SIGPIPE is about our own output.
            libc::SIGCHLD | libc::SIGURG | libc::SIGPIPE => {}
            libc::SIGWINCH if terminal.is_some() => {
                if let Some(terminal) = terminal {
                    terminal.resize();
                }
            }
            _ => {
                if let Some(signal) = rustix::process::Signal::from_named_raw(number) {
                    let _ = pidfd_send_signal(pidfd, signal);
                }
            }
        }
    }
}

/// The exit code, once there is one; also reaps what the container's processes left to us.
fn reap(pid: i32, pidfd: &OwnedFd) -> Result<Option<u8>, StepError> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let failed = |e| StepError::os("wait for container", "", e);
    let status =
        rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), options)).map_err(failed)?;
    let Some(status) = status else {
        reap_orphans(pid);
        return Ok(None);
    };
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (_, Some(signal)) => 128 + signal,
        _ => 255,
    };
    Ok(Some(u8::try_from(code & 0xff).unwrap_or(255)))
}

/// Only processes other than ours: its own status is taken through its pidfd. Each is reaped by its pid, because ours may
/// end between the look and the reaping.
fn reap_orphans(own: i32) {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Some(pid) = waitid(Id::All, peek).ok().and_then(|status| status.pid()) {
        if pid.as_raw() == own || waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG).is_err() {
            return;
        }
    }
}
