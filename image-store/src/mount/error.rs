//! What can go wrong with mounts.

use std::io;
use std::path::PathBuf;

use crate::error::{ErrorKind, Kind};

/// An error of mounting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This kernel or build lacks something.
    #[error("{what} is not supported here")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },
    /// A step of making a mount failed. `log` is what the kernel wrote to the mount context.
    #[error("mount {file_system}: {step}{}{log}", if log.is_empty() { "" } else { ": " })]
    Mount {
        /// Type of the file system.
        file_system: &'static str,
        /// Which step: an option, or create.
        step: String,
        /// The kernel's own words, when it had any.
        log: String,
        /// The errno.
        source: io::Error,
    },
    /// A mount could not be put at, or taken from, its place.
    #[error("mount point {}", target.display())]
    Attach {
        /// Where.
        target: PathBuf,
        /// The errno.
        source: io::Error,
    },
    /// The ids of a mount could not be mapped.
    #[error("map the ids of a lower layer")]
    IdMap {
        /// The errno.
        source: io::Error,
    },
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Mount { source, .. } | Self::Attach { source, .. } | Self::IdMap { source } => {
                ErrorKind::from_io(source)
            }
        }
    }
}
