//! What can go wrong with layers.

use std::io;
use std::path::{Path, PathBuf};

use super::path::PathError;
use super::{BackEnd, DiffId};
use crate::error::{ErrorKind, Kind};
use crate::{fault, mount, tar};

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
    /// `finish` after a failed `write`.
    #[error("layer {diff_id}: an earlier write failed")]
    WriterFailed {
        /// Which layer.
        diff_id: DiffId,
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
    /// The stream is no acceptable tar.
    #[error(transparent)]
    Tar(#[from] tar::Error),
    /// An entry's path is refused.
    #[error("entry {path:?}")]
    Path {
        /// The path as it stands in the archive.
        path: String,
        /// Why.
        source: PathError,
    },
    /// An entry that no tree can hold.
    #[error("entry {path:?} {reason}")]
    Entry {
        /// The path as it stands in the archive.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// A hard link to what the layer does not hold.
    #[error("entry {path:?}: there is no file {target:?} to link to")]
    HardLink {
        /// The new name.
        path: String,
        /// The missing one.
        target: String,
    },
    /// The layer has more files than its index may take memory for.
    #[error("the layer has too many files")]
    TooManyFiles,
    /// The layer is too large for its format.
    #[error("the layer is too large: {what}")]
    TooLarge {
        /// What is.
        what: &'static str,
    },
    /// A mount failed.
    #[error(transparent)]
    Mount(#[from] mount::Error),
    /// A test asked for it.
    #[error(transparent)]
    Injected(#[from] fault::Injected),
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
            Self::WriterFailed { .. } => ErrorKind::Conflict,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::DiffId { .. } | Self::Path { .. } | Self::Entry { .. } | Self::HardLink { .. } => {
                ErrorKind::Invalid
            }
            Self::TooManyFiles | Self::TooLarge { .. } => ErrorKind::Exhausted,
            Self::Tar(source) => source.kind(),
            Self::Mount(source) => source.kind(),
            Self::Injected(_) => ErrorKind::Kernel,
            Self::DigestMismatch { .. } | Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::BackEnd { .. } | Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Io { source, .. } => ErrorKind::from_io(source),
        }
    }
}
