//! What the parser hands out.

/// One event of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// An entry begins.
    Entry(Box<Entry>),
    /// Bytes of the current file; holes of sparse files are left out.
    Data {
        /// Where in the file they belong.
        file_offset: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The current file is complete. Comes after every entry of the kind `File`, and only there.
    FileEnd,
}

/// One member of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name as it stands in the archive.
    pub path: Vec<u8>,
    /// Target of symbolic and hard links, else empty.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Length of a file with its holes, else 0.
    pub size: u64,
    /// Where a file's bytes stand; holes are what no extent covers. In order, without overlap, none empty.
    pub extents: Vec<Extent>,
    /// Extended attributes, in the order of the archive, names unique.
    pub xattrs: Vec<Xattr>,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Full name with its namespace.
    pub name: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
}

/// The type of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// Another name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// Seconds and nanoseconds since the epoch; before it the seconds are negative and the nanoseconds still count upwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// A run of a file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins in the file.
    pub file_offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Where it begins in the uncompressed tar stream.
    pub tar_offset: u64,
}
