//! Why a pull failed.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, Kind};
use crate::{Digest, layer, manifest, registry, store};

/// An error of pulling or importing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A manifest or configuration.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// The layer store.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// One layer failed.
    #[error("layer {blob}")]
    InLayer {
        /// Its blob.
        blob: Digest,
        /// How.
        source: Box<Error>,
    },
    /// The blob is not what the manifest says.
    #[error("the blob has the digest {actual}, not that of the manifest")]
    BlobDigest {
        /// What came.
        actual: Digest,
    },
    /// The blob is longer or shorter than the manifest says.
    #[error("the blob has {} {actual} bytes, the manifest says {expected}", if actual > expected { "at least" } else { "only" })]
    BlobSize {
        /// The manifest's word.
        expected: u64,
        /// The bytes that came.
        actual: u64,
    },
    /// The blob does not decompress.
    #[error("decompress the blob")]
    Decompress {
        /// Why.
        source: io::Error,
    },
    /// A file of a partial download.
    #[error("{action} {}", path.display())]
    Ingest {
        /// What was done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The fetching side went away: the pull was dropped.
    #[error("interrupted")]
    Interrupted,
    /// A test's fault.
    #[error(transparent)]
    Fault(#[from] crate::fault::Injected),
}

impl Error {
    pub(super) fn ingest(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Ingest { action, path, source }
    }

    /// Whether fetching the blob once more from the beginning may help: what came, or what was kept of it, was bad.
    pub(super) const fn is_bad_content(&self) -> bool {
        matches!(
            self,
            Self::BlobDigest { .. }
                | Self::BlobSize { .. }
                | Self::Decompress { .. }
                | Self::Layer(layer::Error::DigestMismatch { .. })
        )
    }
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Registry(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
            Self::Layer(error) => error.kind(),
            Self::InLayer { source, .. } => source.kind(),
            Self::BlobDigest { .. } | Self::BlobSize { .. } | Self::Decompress { .. } => ErrorKind::Corrupt,
            Self::Ingest { source, .. } => ErrorKind::from_io(source),
            Self::Interrupted => ErrorKind::Unavailable,
            Self::Fault(_) => ErrorKind::Kernel,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::Manifest(error) => error.hint(),
            Self::Layer(layer::Error::Io { source, path, .. }) | Self::Ingest { source, path, .. } => {
                store::error::io_hint(source, path)
            }
            Self::Layer(error) => error.hint(),
            Self::InLayer { source, .. } => source.hint(),
            Self::BlobDigest { .. } | Self::BlobSize { .. } | Self::Decompress { .. } => {
                Some("the registry, or something between, sends other bytes than it promised".into())
            }
            Self::Interrupted | Self::Fault(_) => None,
        }
    }
}
