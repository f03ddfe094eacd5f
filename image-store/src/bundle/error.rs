//! What can go wrong with making a bundle.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, Kind};
use crate::{layer, mount, store};

/// An error of making a bundle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a path failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The target of `unpack` has something in it.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// Which directory.
        path: PathBuf,
    },
    /// Neither the image nor the caller says what to run.
    #[error("the image names no program to run, and none was given")]
    NoProgram,
    /// The image's file does not tell who the user is.
    #[error("user {name:?}: {what}")]
    User {
        /// As the image or the caller has it.
        name: String,
        /// Why it cannot be found.
        what: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A layer.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// A mount.
    #[error(transparent)]
    Mount(#[from] mount::Error),
}

impl Error {
    pub(super) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source }
    }
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => ErrorKind::from_io(source),
            Self::NotEmpty { .. } => ErrorKind::Conflict,
            Self::NoProgram => ErrorKind::Invalid,
            Self::User { .. } => ErrorKind::NotFound,
            Self::Store(error) => error.kind(),
            Self::Layer(error) => error.kind(),
            Self::Mount(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, path, .. } => store::error::io_hint(source, path),
            Self::NotEmpty { .. } => Some("give a directory that does not exist yet".into()),
            Self::NoProgram => Some("give a command after the image's name".into()),
            Self::User { .. } => Some("give numbers: --user UID:GID".into()),
            Self::Store(error) => error.hint(),
            Self::Layer(error) => error.hint(),
            Self::Mount(error) if error.kind() == ErrorKind::Denied => Some("mounting needs root".into()),
            Self::Mount(error) => error.hint(),
        }
    }
}
