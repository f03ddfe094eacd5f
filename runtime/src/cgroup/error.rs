//! What can go wrong with a cgroup, with the file and the value that were refused.

use std::path::PathBuf;

use rustix::io::Errno;

use crate::error::{ErrorKind, Kind};

/// Why an operation on a cgroup failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a value.
    #[error("write {value} to {}: {}", .path.display(), describe(*.errno))]
    Write {
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A file or directory could not be opened, read, made or removed.
    #[error("{action} {}: {}", .path.display(), describe(*.errno))]
    Path {
        /// What was done: `open`, `mkdir`, `rmdir`, `read`.
        action: &'static str,
        /// The object.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A file of the kernel holds what we do not understand.
    #[error("unexpected content of {}: {text}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
    /// A value of the configuration cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The host lacks what the configuration needs.
    #[error("{0}")]
    Unsupported(String),
    /// The group holds processes that are not the container's.
    #[error("container's cgroup is not empty: {count} process(es) in {}", .path.display())]
    NotEmpty {
        /// The group.
        path: PathBuf,
        /// How many processes.
        count: usize,
    },
    /// The group did not reach the wanted state in time.
    #[error("{action} {}: no answer within {seconds} s", .path.display())]
    Timeout {
        /// `freeze`, `kill`, `remove`.
        action: &'static str,
        /// The group or unit.
        path: PathBuf,
        /// The deadline.
        seconds: u64,
    },
    /// systemd or the bus refused.
    #[error("systemd: {call}: {message}")]
    Systemd {
        /// The method called.
        call: String,
        /// The answer.
        message: String,
    },
}

fn describe(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text[..end].to_lowercase()
}

impl Error {
    /// The errno, where the kernel gave one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Write { errno, .. } | Self::Path { errno, .. } => Some(*errno),
            Self::Content { .. }
            | Self::Invalid(_)
            | Self::Unsupported(_)
            | Self::NotEmpty { .. }
            | Self::Timeout { .. }
            | Self::Systemd { .. } => None,
        }
    }

    pub(super) fn path(action: &'static str, path: impl Into<PathBuf>, errno: Errno) -> Self {
        Self::Path { action, path: path.into(), errno }
    }

    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        Self::path(action, path, Errno::from_io_error(error).unwrap_or(Errno::IO))
    }
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Write { errno, .. } | Self::Path { errno, .. } => ErrorKind::from_errno(*errno),
            Self::Content { .. } | Self::Systemd { .. } => ErrorKind::Kernel,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::NotEmpty { .. } => ErrorKind::Conflict,
            Self::Timeout { .. } => ErrorKind::Exhausted,
        }
    }
}
