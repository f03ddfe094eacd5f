//! The terminal: a pty of the container's own devpts, made after its mounts, whose master goes to the parent.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::StepError;
use crate::sys::descriptors;

const PTMX: &str = "/dev/ptmx";
/// Major number of `/dev/ptmx` (5:2).
const TTYAUX_MAJOR: u32 = 5;

/// Both ends of a terminal.
#[derive(Debug)]
pub struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Allocates a terminal in the current root; the slave is opened through its master, never by name.
///
/// # Errors
/// No devpts, or a `/dev/ptmx` that is something else.
pub fn open(size: Option<(u16, u16)>) -> Result<Terminal, StepError> {
    let failed = |step: &'static str| move |e| StepError::os(step, PTMX, e);
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open(PTMX, flags, Mode::empty()).map_err(failed("open terminal"))?;
    let device = rustix::fs::fstat(&master).map_err(failed("check"))?.st_rdev;
    if (rustix::fs::major(device), rustix::fs::minor(device)) != (TTYAUX_MAJOR, 2) {
        return Err(StepError::why("open terminal", PTMX, "is not the terminal multiplexer"));
    }
    rustix::pty::unlockpt(&master).map_err(failed("unlock terminal"))?;
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )
    .map_err(failed("open slave of"))?;
    if let Some((rows, columns)) = size.filter(|(r, c)| *r != 0 || *c != 0) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).map_err(failed("set size of"))?;
    }
    Ok(Terminal { master, slave })
}

/// Makes `slave` the standard streams and the controlling terminal of this session.
///
/// # Errors
/// The kernel's.
pub fn adopt(slave: &OwnedFd) -> Result<(), StepError> {
    for stream in 0..3 {
        descriptors::dup_onto(slave.as_raw_fd(), stream)
            .map_err(|e| StepError::io("set standard stream", stream, &e))?;
    }
    rustix::process::ioctl_tiocsctty(slave).map_err(|e| StepError::os("set controlling terminal", "", e))
}
