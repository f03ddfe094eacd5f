//! Why a seccomp profile could not be compiled, kept or loaded.

use std::path::PathBuf;

use crate::error::{ErrorKind, Kind};

/// A failure of the seccomp compiler.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A rule's action is `SCMP_ACT_NOTIFY` for `write`: the runtime needs it to hand the listener over.
    #[error("SCMP_ACT_NOTIFY cannot be used for the write syscall")]
    NotifyWrite,
    /// The default action is `SCMP_ACT_NOTIFY`, which would cover `write` too.
    #[error("SCMP_ACT_NOTIFY cannot be used as default action")]
    NotifyDefault,
    /// A rule names the empty string.
    #[error("empty string is not a valid syscall")]
    EmptyName,
    /// A rule compares an argument that system calls don't have.
    #[error("seccomp rule for {syscall} compares argument {index}, the last is 5")]
    ArgumentIndex {
        /// The rule's system call.
        syscall: String,
        /// The index given.
        index: usize,
    },
    /// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` needs a listener.
    #[error("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY")]
    WaitKillableWithoutListener,
    /// The host's own architecture has no system call table here.
    #[error("seccomp profiles can't be compiled for {0}")]
    HostArch(String),
    /// The program is longer than the kernel accepts.
    #[error("seccomp profile needs {0} instructions, the kernel takes 4096")]
    TooLong(usize),
    /// The cache could not be used; the caller may compile without it.
    #[error("seccomp cache {path}")]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotifyWrite
            | Self::NotifyDefault
            | Self::EmptyName
            | Self::ArgumentIndex { .. }
            | Self::WaitKillableWithoutListener => ErrorKind::Invalid,
            Self::HostArch(_) => ErrorKind::Unsupported,
            Self::TooLong(_) => ErrorKind::Exhausted,
            Self::Cache { .. } => ErrorKind::Kernel,
        }
    }
}
