//! Writes the index of a layer: an EROFS image that holds names and metadata, whose file extents point into a second
//! device, the layer's tar.
//!
//! ```text
//! block 2   superblock (byte 1024), one device slot (byte 1152)
//! 1280      inodes, each with its xattrs and, where that fits into its block, its link target, directory or chunk list
//! …         blocks of larger directories and links, and the few pieces of sparse files that the tar holds unaligned
//! N         where the tar begins in the joint address space: a file's address is N + its offset in the tar / 512
//! ```
//!
//! Blocks have 512 bytes, as a tar's, so that each file of a tar begins at a block. Plain files need no list of extents
//! (one address each); sparse ones have chunk lists. The layout is planned first ([`layout`]), then written in one
//! sequential pass. Source: Linux `fs/erofs/erofs_fs.h`; 512-byte blocks need 6.4, files as devices 6.12.

mod chunks;
mod directory;
mod format;
mod layout;
mod writer;
mod xattrs;

pub use writer::write;

/// Bytes of a block, as a power of two.
pub const BLOCK_BITS: u32 = 9;
/// Bytes of a block.
pub const BLOCK: u64 = 1 << BLOCK_BITS;
