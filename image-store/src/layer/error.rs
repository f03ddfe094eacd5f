//! What can go wrong with layers.

use std::io;
use std::path::{Path, PathBuf};

use super::{BackEnd, DiffId};
use crate::error::{ErrorKind, Kind};

/// An error of the layer store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such layer.
    #[error("layer {diff_id} is not in the store")]
    NotFound {
        /// The layer asked for.
        diff_id: DiffId,
    },
    /// A text that is no diff-id.
    #[error("{text:?} is not a diff-id (sha256 and 64 lower-case hex digits)")]
    DiffId {
        /// The text, cut.
        text: String,
    },
    /// The stream's digest is another.
    #[error("layer {expected}: the uncompressed data has the digest {actual}")]
    DigestMismatch {
        /// What the image's configuration promised.
        expected: DiffId,
        /// What came.
        actual: DiffId,
    },
    /// A committed layer that is damaged.
    #[error("layer {diff_id} is damaged: {what}")]
    Damaged {
        /// Which layer.
        diff_id: DiffId,
        /// What does not fit.
        what: &'static str,
    },
    /// The back end asked for can't work here.
    #[error("back end {back_end:?}: {reason}")]
    BackEnd {
        /// Which one.
        back_end: BackEnd,
        /// Why not.
        reason: String,
    },
    /// Something that this kernel or build lacks.
    #[error("{what} is not supported here")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },
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
}

impl Error {
    /// For `map_err`: an I/O error with what was done to which path.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source: source.into() }
    }
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::DiffId { .. } => ErrorKind::Invalid,
            Self::DigestMismatch { .. } | Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::BackEnd { .. } | Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Io { source, .. } => ErrorKind::from_io(source),
        }
    }
}
