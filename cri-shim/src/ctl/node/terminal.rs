//! The user's terminal: raw while a command in a container has it, and its size.

use std::io::{Stdin, stdin, stdout};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Standard input without line editing, echo or signals; restored when dropped.
pub(super) struct RawMode {
    input: Stdin,
    before: Termios,
}

impl RawMode {
    /// None where standard input is no terminal.
    pub(super) fn enter() -> Option<Self> {
        let input = stdin();
        let before = tcgetattr(&input).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&input, OptionalActions::Now, &raw).ok()?;
        Some(Self { input, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.input, OptionalActions::Now, &self.before);
    }
}

/// Columns and rows.
pub(super) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(stdout()).ok()?;
    Some((size.ws_col, size.ws_row))
}
