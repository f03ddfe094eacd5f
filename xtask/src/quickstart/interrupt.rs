//! Ctrl-C as something that is asked for between steps, so that nothing is left half removed.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Holds back SIGINT, SIGTERM and SIGHUP from now on.
pub struct Interrupt {
    signals: SignalFd,
}

impl Interrupt {
    pub fn hold() -> Result<Self, String> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block().map_err(|error| format!("block signals: {error}"))?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(|error| format!("signalfd: {error}"))?;
        Ok(Self { signals })
    }

    /// Until the user has had enough.
    pub fn wait(&self) -> Result<(), String> {
        loop {
            let mut events = [PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
            match poll(&mut events, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("poll: {error}")),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Asks `condition` again and again until it gives something; an error after `deadline`, or at Ctrl-C.
    pub fn until<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut condition: impl FnMut() -> Result<Option<T>, String>,
    ) -> Result<T, String> {
        let end = std::time::Instant::now() + deadline;
        loop {
            if let Some(found) = condition()? {
                return Ok(found);
            }
            if std::time::Instant::now() > end {
                return Err(format!("{what}: not within {} s", deadline.as_secs()));
            }
            let mut events = [PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
            let interval = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            if poll(&mut events, Some(&interval)).is_ok_and(|count| count > 0) {
                return Err("interrupted".to_owned());
            }
        }
    }
}
