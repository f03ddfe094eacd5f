//! What can be wrong with a tar stream.

use crate::error::{ErrorKind, Kind};

/// A malformed or unsupported archive. `offset` is the position in the uncompressed stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checksum of a header does not fit.
    #[error("tar header at {offset}: wrong checksum")]
    Checksum {
        /// Where the header begins.
        offset: u64,
    },
    /// A number field or value that is none, or too large.
    #[error("tar header at {offset}: {field} is no valid number")]
    Number {
        /// Where the header begins.
        offset: u64,
        /// Which one.
        field: &'static str,
    },
    /// An entry type that no file system tree can hold.
    #[error("tar header at {offset}: entry type {kind:?} is not supported")]
    Type {
        /// Where the header begins.
        offset: u64,
        /// The type flag.
        kind: char,
    },
    /// A PAX extended header that breaks the format.
    #[error("tar header at {offset}: malformed PAX record")]
    Pax {
        /// Where the entry's header begins.
        offset: u64,
    },
    /// A sparse map that breaks the format, or does not fit the file.
    #[error("tar header at {offset}: malformed sparse map")]
    Sparse {
        /// Where the entry's header begins.
        offset: u64,
    },
    /// Something is larger than this parser accepts.
    #[error("tar header at {offset}: {what} of more than {limit}")]
    TooLarge {
        /// Where the header begins.
        offset: u64,
        /// What.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The stream ends within an entry.
    #[error("the tar ends at {offset} within an entry")]
    Truncated {
        /// Length of the stream.
        offset: u64,
    },
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Type { .. } => ErrorKind::Unsupported,
            Self::TooLarge { .. } => ErrorKind::Exhausted,
            _ => ErrorKind::Invalid,
        }
    }
}
