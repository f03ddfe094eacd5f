//! Why a verb fails, printed as a chain without more decoration: callers match these texts.

use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, Kind};
use crate::init::step_error::errno_text;
use crate::{hooks, launch, spec, state};

/// The failure of a verb.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the user asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The container's state does not allow it.
    #[error("{0}")]
    Refused(String),
    /// Known, and not to be had from this program.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The verb, as runc prefixes it.
    #[error("{what} failed: {source}")]
    Verb { what: String, source: Box<Error> },
    #[error(transparent)]
    State(#[from] state::Error),
    #[error(transparent)]
    Spec(#[from] spec::Error),
    #[error(transparent)]
    Launch(launch::Error),
    /// A failure between the clone and the program, under the head that runc gives it.
    #[error("unable to start container process: {0}")]
    Starting(launch::Error),
    #[error(transparent)]
    Hook(#[from] hooks::Error),
    #[error("{0}")]
    Group(super::group::Error),
    #[error("{action} {}: {}", path.display(), text(source))]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("parse {}: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Fault(#[from] crate::fault::Injected),
}

impl Error {
    pub(super) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Puts `<program> <verb> failed:` before the error.
    pub(super) fn in_verb(self, what: impl Into<String>) -> Self {
        Self::Verb { what: what.into(), source: Box::new(self) }
    }
}

impl From<launch::Error> for Error {
    fn from(error: launch::Error) -> Self {
        use launch::Error as Cause;
        match error {
            Cause::Step(_) | Cause::Died(_) | Cause::Cgroup(_) | Cause::Hook(_) => Self::Starting(error),
            Cause::NoContainer
            | Cause::Exists
            | Cause::State(_)
            | Cause::Invalid(_)
            | Cause::Unsupported(_)
            | Cause::Fault(_)
            | Cause::Record(_) => Self::Launch(error),
        }
    }
}

fn text(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), errno_text)
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Usage(_) | Self::Json { .. } => ErrorKind::Invalid,
            Self::Refused(_) => ErrorKind::Conflict,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Verb { source, .. } => source.kind(),
            Self::State(error) => error.kind(),
            Self::Spec(error) => error.kind(),
            Self::Launch(error) | Self::Starting(error) => error.kind(),
            Self::Hook(error) => error.kind(),
            Self::Group(error) => super::group::kind(error),
            Self::Io { source, .. } => source.raw_os_error().map_or(ErrorKind::Kernel, |e| {
                ErrorKind::from_errno(rustix::io::Errno::from_raw_os_error(e))
            }),
            Self::Fault(_) => ErrorKind::Kernel,
        }
    }
}
