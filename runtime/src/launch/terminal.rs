//! The caller's terminal while a container's terminal is shown on it: raw mode, size, and the way back.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

/// The container's terminal, connected to our standard streams.
#[derive(Debug)]
pub struct Terminal {
    master: OwnedFd,
    /// Our terminal's modes before, where our stdin is one.
    before: Option<Termios>,
    input_open: bool,
    output_open: bool,
}

impl Terminal {
    /// Connects `master`; our own terminal, if any, becomes raw until the value is dropped.
    #[must_use]
    pub fn connect(master: OwnedFd) -> Self {
        let stdin = rustix::stdio::stdin();
        let before = isatty(stdin).then(|| tcgetattr(stdin).ok()).flatten();
        if let Some(modes) = &before {
            let mut raw = modes.clone();
            raw.make_raw();
            // The container's newlines come as they are, and ours makes carriage returns of them.
            raw.output_modes |= modes.output_modes & OutputModes::OPOST;
            let _ = tcsetattr(stdin, OptionalActions::Now, &raw);
        }
        let terminal = Self { master, before, input_open: true, output_open: true };
        terminal.resize();
        terminal
    }

    /// Gives the container's terminal the size of ours.
    pub fn resize(&self) {
        if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    /// The descriptors to wait for: our stdin and the master, each while it is open.
    #[must_use]
    pub fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let mut fds = Vec::new();
        if self.output_open {
            fds.push(PollFd::new(&self.master, PollFlags::IN));
        }
        if self.input_open {
            fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
        fds
    }

    /// Copies what is there, in both directions, without waiting.
    pub fn copy(&mut self) {
        if self.output_open && readable(self.master.as_fd()) {
            self.output_open = copy(self.master.as_fd(), rustix::stdio::stdout());
        }
        if self.input_open && readable(rustix::stdio::stdin()) {
            self.input_open = copy(rustix::stdio::stdin(), self.master.as_fd());
        }
    }

    /// Copies the container's last words: what its terminal still holds.
    pub fn drain(&mut self) {
        while self.output_open && readable(self.master.as_fd()) {
            self.output_open = copy(self.master.as_fd(), rustix::stdio::stdout());
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(modes) = &self.before {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, modes);
        }
    }
}

/// Output that is redirected to a file should be what the program wrote, so that `\n` does not become `\r\n`.
pub(super) fn keep_newlines(master: &OwnedFd) {
    if let Ok(mut modes) = tcgetattr(master) {
        modes.output_modes.remove(OutputModes::ONLCR);
        let _ = tcsetattr(master, OptionalActions::Now, &modes);
    }
}

fn readable(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1))
}

/// One read and its writes; `false` at the end. EIO is how a terminal says that its last slave is closed.
fn copy(from: impl AsFd, to: impl AsFd) -> bool {
    let mut buffer = [0_u8; 32 * 1024];
    let length = match rustix::io::retry_on_intr(|| rustix::io::read(&from, &mut buffer)) {
        Ok(0) | Err(Errno::IO) => return false,
        Ok(length) => length,
        Err(Errno::AGAIN) => return true,
        Err(_) => return false,
    };
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        match rustix::io::write(&to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::new(&to, PollFlags::OUT)];
                let _ = poll(&mut fds, None);
            }
            Err(_) => return false,
        }
    }
    true
}
