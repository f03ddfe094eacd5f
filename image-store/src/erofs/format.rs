//! The structures on disk, little endian.

/// Where the superblock stands.
pub const SUPERBLOCK_OFFSET: u64 = 1024;
/// Where the one device slot stands.
pub const DEVICE_SLOT_OFFSET: u64 = SUPERBLOCK_OFFSET + 128;
/// Where inodes begin. Their numbers are positions in units of 32 bytes, so that none has the number 0.
pub const INODES_OFFSET: u64 = DEVICE_SLOT_OFFSET + 128;
/// Unit of inode positions.
pub const SLOT: u64 = 32;
/// Length of an extended inode.
pub const INODE: u64 = 64;
/// Address of a hole, and of the data of an empty file.
pub const NULL_ADDRESS: u32 = u32::MAX;

const MAGIC: u32 = 0xE0F5_E1E2;
const FEATURE_COMPAT_MTIME: u32 = 0x2;
const FEATURE_INCOMPAT_CHUNKED_FILE: u32 = 0x4;
const FEATURE_INCOMPAT_DEVICE_TABLE: u32 = 0x8;

/// What the superblock and the device slot say.
#[derive(Debug, Clone, Copy)]
pub struct Superblock {
    /// Position of the root inode in slots.
    pub root: u16,
    /// Number of inodes.
    pub inodes: u64,
    /// Blocks of the index, which is where the tar's begin.
    pub blocks: u32,
    /// Blocks of the tar.
    pub tar_blocks: u32,
    /// Identity, shown by `blkid`.
    pub uuid: [u8; 16],
}

impl Superblock {
    /// The superblock and the device slot behind it.
    pub fn encode(&self) -> [u8; 256] {
        let mut bytes = [0; 256];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC.to_le_bytes());
        put(8, &FEATURE_COMPAT_MTIME.to_le_bytes());
        put(12, &[super::BLOCK_BITS as u8]);
        put(14, &self.root.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(48, &self.uuid);
        put(64, b"coracle-layer");
        put(80, &(FEATURE_INCOMPAT_CHUNKED_FILE | FEATURE_INCOMPAT_DEVICE_TABLE).to_le_bytes());
        put(86, &1_u16.to_le_bytes());
        put(88, &((DEVICE_SLOT_OFFSET / 128) as u16).to_le_bytes());
        put(128, b"layer.tar");
        put(128 + 64, &self.tar_blocks.to_le_bytes());
        put(128 + 68, &self.blocks.to_le_bytes());
        bytes
    }
}

/// How an inode's data is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataLayout {
    /// One run of blocks.
    FlatPlain = 0,
    /// Behind the inode.
    FlatInline = 2,
    /// A list of chunk addresses behind the inode.
    ChunkBased = 4,
}

/// An extended inode.
#[derive(Debug, Clone, Copy)]
pub struct Inode {
    /// Layout of the data.
    pub layout: DataLayout,
    /// Bytes of the xattr area.
    pub xattr_bytes: u64,
    /// Type and permissions.
    pub mode: u16,
    /// Length of the data.
    pub size: u64,
    /// Block address, device number or chunk format, as the layout and type have it.
    pub union: u32,
    /// Running number.
    pub number: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds of the modification time.
    pub mtime: i64,
    /// Nanoseconds of it.
    pub mtime_nanoseconds: u32,
    /// Names.
    pub links: u32,
}

impl Inode {
    /// The 64 bytes.
    pub fn encode(&self) -> [u8; INODE as usize] {
        let mut bytes = [0; INODE as usize];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &(1 | (self.layout as u16) << 1).to_le_bytes());
        put(2, &xattr_count(self.xattr_bytes).to_le_bytes());
        put(4, &self.mode.to_le_bytes());
        put(8, &self.size.to_le_bytes());
        put(16, &self.union.to_le_bytes());
        put(20, &self.number.to_le_bytes());
        put(24, &self.uid.to_le_bytes());
        put(28, &self.gid.to_le_bytes());
        put(32, &self.mtime.to_le_bytes());
        put(40, &self.mtime_nanoseconds.to_le_bytes());
        put(44, &self.links.to_le_bytes());
        bytes
    }
}

// The area is a header of 12 bytes and units of 4; the header counts as one unit.
fn xattr_count(bytes: u64) -> u16 {
    if bytes == 0 { 0 } else { ((bytes - 12) / 4 + 1) as u16 }
}

/// A device number as `new_encode_dev` of the kernel has it.
pub fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}
