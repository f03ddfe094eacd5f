//! A push parser for tar streams: bytes in, in pieces of any size, entries and file data out.
//!
//! Reads v7, ustar, star, GNU (long names, base-256, old sparse) and PAX (global and local, xattrs, sparse 0.0, 0.1, 1.0).
//! The stream comes from a registry and is hostile: names, extended headers and sparse maps are bounded ([`limits`]),
//! numbers are checked, and nothing is allocated by a size that the stream merely claims. Paths are handed out as they
//! stand; what they mean is [`crate::layer`]'s matter.

mod entry;
mod error;
mod header;
mod number;
mod pax;
mod sparse;
mod walker;

pub use entry::{Entry, EntryKind, Event, Extent, Timestamp, Xattr};
pub use error::Error;
pub use walker::Walker;

/// Bounds on what one entry may make the parser keep.
pub mod limits {
    /// Bytes of one extended header: PAX, GNU long name or long link.
    pub const EXTENDED_HEADER: u64 = 1 << 20;
    /// Bytes of all global PAX values that are kept.
    pub const GLOBAL_PAX: usize = 1 << 20;
    /// Bytes of a file with its holes, more than any file system stores.
    pub const FILE: u64 = 1 << 60;
    /// Extents of one sparse file.
    pub const EXTENTS: usize = 1 << 16;
}

/// Everything in a tar is laid out in blocks of this many bytes.
pub const BLOCK: usize = 512;
