//! The one error that comes out of a container's start: which step, on what, why, and what the user can do.
//!
//! It is data. The child sends it to its parent over the handshake socket, and the user reads
//! `mount proc on /proc: operation not permitted (hint)` instead of `EOF from child`.

use std::borrow::Cow;
use std::fmt;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, Kind};

/// A step of a container's start that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepError {
    /// What was being done, as a verb: `mount proc`, `set hostname`.
    pub step: Cow<'static, str>,
    /// What it was done to: a path, a name, a key; may be empty.
    pub object: String,
    /// The kernel's answer, where it was the kernel.
    pub errno: Option<i32>,
    /// The reason in words where there is no errno, or beside it.
    pub cause: String,
    /// What the user can do about it.
    pub hint: Option<Cow<'static, str>>,
}

impl StepError {
    /// A step that the kernel refused.
    pub fn os(step: impl Into<Cow<'static, str>>, object: impl fmt::Display, errno: Errno) -> Self {
        Self {
            step: step.into(),
            object: object.to_string(),
            errno: Some(errno.raw_os_error()),
            cause: String::new(),
            hint: None,
        }
    }

    /// A step that failed in `std`; keeps the errno where there is one.
    pub fn io(step: impl Into<Cow<'static, str>>, object: impl fmt::Display, error: &std::io::Error) -> Self {
        let errno = error.raw_os_error();
        Self {
            step: step.into(),
            object: object.to_string(),
            errno,
            cause: if errno.is_none() { error.to_string() } else { String::new() },
            hint: None,
        }
    }

    /// A step refused for a reason of our own.
    pub fn why(
        step: impl Into<Cow<'static, str>>,
        object: impl fmt::Display,
        cause: impl fmt::Display,
    ) -> Self {
        Self {
            step: step.into(),
            object: object.to_string(),
            errno: None,
            cause: cause.to_string(),
            hint: None,
        }
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says first what the step was a part of.
    #[must_use]
    pub fn inside(mut self, what: impl fmt::Display) -> Self {
        self.step = format!("{what}: {}", self.step).into();
        self
    }

    /// Adds a reason beside the errno.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.cause = cause.to_string();
        self
    }

    /// The error with every text cut to about `limit` bytes.
    #[must_use]
    pub fn shortened(&self, limit: usize) -> Self {
        let cut = |text: &str| match text.char_indices().find(|(at, _)| *at >= limit) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text.to_owned(),
        };
        Self {
            step: cut(&self.step).into(),
            object: cut(&self.object),
            errno: self.errno,
            cause: cut(&self.cause),
            hint: self.hint.as_ref().map(|hint| cut(hint).into()),
        }
    }

    /// The errno as a typed value.
    #[must_use]
    pub fn as_errno(&self) -> Option<Errno> {
        self.errno.map(Errno::from_raw_os_error)
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.step)?;
        if !self.object.is_empty() {
            write!(f, " {}", self.object)?;
        }
        if !self.cause.is_empty() {
            write!(f, ": {}", self.cause)?;
        }
        if let Some(errno) = self.errno {
            write!(f, ": {}", errno_text(errno))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for StepError {}

impl Kind for StepError {
    fn kind(&self) -> ErrorKind {
        self.as_errno().map_or(ErrorKind::Invalid, ErrorKind::from_errno)
    }
}

/// The text of an errno as Go's runtime and so runc prints it: lower case, without the number.
#[must_use]
pub fn errno_text(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.rsplit_once(" (os error").map_or(text.as_str(), |(head, _)| head);
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return String::new() };
    // `I/O error` and `RPC ...` keep their capitals, `Operation not permitted` does not.
    match chars.clone().next() {
        Some(second) if second.is_ascii_lowercase() => {
            first.to_ascii_lowercase().to_string() + chars.as_str()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_a_sentence() {
        let e = StepError::os("mount", "proc on /proc", Errno::PERM).hint("is /proc masked on the host?");
        assert_eq!(
            e.to_string(),
            "mount proc on /proc: operation not permitted (is /proc masked on the host?)"
        );
        assert_eq!(StepError::why("exec", "", "no such thing").to_string(), "exec: no such thing");
        let io = std::io::Error::from_raw_os_error(2);
        assert_eq!(StepError::io("open", "/x", &io).to_string(), "open /x: no such file or directory");
    }

    #[test]
    fn travels_as_data() {
        let e = StepError::os("set hostname", "web", Errno::INVAL).because("too long");
        let back: StepError = serde_json::from_str(&serde_json::to_string(&e).unwrap()).unwrap();
        assert_eq!(back, e);
    }
}
