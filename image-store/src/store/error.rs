//! What can go wrong with the store on disk.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, Kind};
use crate::{Digest, layer};

/// An error of the store.
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
    /// A record that does not parse or is of a version to come.
    #[error("record {}: {what}", path.display())]
    Record {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// No image has this name.
    #[error("image {name:?} is not in the store")]
    NoSuchImage {
        /// As given.
        name: String,
    },
    /// The beginning of an id fits several images.
    #[error("image id {prefix:?} is ambiguous: {count} images begin with it")]
    Ambiguous {
        /// As given.
        prefix: String,
        /// How many fit.
        count: usize,
    },
    /// A blob that a record names is missing.
    #[error("blob {digest} is not in the store")]
    NoSuchBlob {
        /// Which.
        digest: Digest,
    },
    /// A blob whose content is not what its name says.
    #[error("blob {digest}: its content has the digest {actual}")]
    CorruptBlob {
        /// Its name.
        digest: Digest,
        /// The digest of what is there.
        actual: Digest,
    },
    /// A blob that is too large to be a manifest or configuration.
    #[error("blob {digest} has {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Which.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A layer.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// A manifest or configuration in the store that does not parse.
    #[error(transparent)]
    Manifest(#[from] crate::manifest::Error),
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source }
    }
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => ErrorKind::from_io(source),
            Self::Record { .. } | Self::NoSuchBlob { .. } | Self::CorruptBlob { .. } => ErrorKind::Corrupt,
            Self::NoSuchImage { .. } => ErrorKind::NotFound,
            Self::Ambiguous { .. } => ErrorKind::Conflict,
            Self::TooLarge { .. } => ErrorKind::Exhausted,
            Self::Layer(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, path, .. } => io_hint(source, path),
            Self::Record { .. } | Self::NoSuchBlob { .. } | Self::CorruptBlob { .. } => {
                Some("`coraclectl fsck --repair` drops what is damaged and names what to pull again".into())
            }
            Self::NoSuchImage { name } => {
                Some(format!("`coraclectl pull {name}` fetches it, `coraclectl images` lists what is there"))
            }
            Self::Ambiguous { .. } => Some("give more digits of the id".into()),
            Self::TooLarge { .. } => None,
            Self::Layer(layer::Error::Io { source, path, .. }) => io_hint(source, path),
            Self::Layer(error) => error.hint(),
            Self::Manifest(error) => error.hint(),
        }
    }
}

/// What to do about a full or forbidden disk.
pub(crate) fn io_hint(source: &io::Error, path: &Path) -> Option<String> {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(format!(
            "no space or no inodes left at {}: `coraclectl rmi IMAGE` and `coraclectl gc` make room",
            path.display()
        )),
        io::ErrorKind::PermissionDenied => {
            Some("run as root, or give a directory of your own with --root".into())
        }
        _ => None,
    }
}
