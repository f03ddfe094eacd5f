//! Writes a planned index in one pass.

use std::io::{self, Write};

use super::chunks::{self, Chunk};
use super::format::{self, INODE, Inode, NULL_ADDRESS, SUPERBLOCK_OFFSET, Superblock};
use super::layout::{self, Data, Layout, Placed};
use super::{BLOCK, directory, xattrs};
use crate::layer::Error;
use crate::layer::model::{Content, LayerTree, Node, NodeId};
use crate::tar::Extent;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Index {
    /// Number of inodes.
    pub inodes: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// Reads bytes of the tar at an offset; those behind its end are zeros.
pub type ReadTar<'a> = &'a dyn Fn(u64, &mut [u8]) -> io::Result<()>;

/// Writes the index of `tree` whose files' bytes are in a tar of `tar_size` bytes. `io_error` says which file failed.
pub fn write(
    tree: &LayerTree,
    tar_size: u64,
    uuid: [u8; 16],
    out: &mut dyn Write,
    read_tar: ReadTar<'_>,
    io_error: &dyn Fn(io::Error) -> Error,
) -> Result<Index, Error> {
    let layout = layout::plan(tree)?;
    let tar_blocks = tar_size.div_ceil(BLOCK);
    // Addresses are joint: index and tar together have to fit into 32 bits of blocks, 2 TiB.
    let end = u64::from(layout.blocks) + tar_blocks;
    let tar_blocks = u32::try_from(tar_blocks).ok().filter(|_| end < u64::from(NULL_ADDRESS));
    let tar_blocks = tar_blocks.ok_or(Error::TooLarge { what: "tar of more than 2 TiB" })?;
    let mut writer = Writer { tree, layout: &layout, out, position: 0, read_tar };
    writer.all(tar_blocks, uuid).map_err(io_error)?;
    Ok(Index { inodes: layout.inodes.len() as u64, bytes: writer.position })
}

struct Writer<'a> {
    tree: &'a LayerTree,
    layout: &'a Layout,
    out: &'a mut dyn Write,
    position: u64,
    read_tar: ReadTar<'a>,
}

impl Writer<'_> {
    fn all(&mut self, tar_blocks: u32, uuid: [u8; 16]) -> io::Result<()> {
        let superblock = Superblock {
            // Among the first few slots; it may be moved by a block so that its entries fit behind it.
            root: self.layout.numbers[NodeId::ROOT.index()] as u16,
            inodes: self.layout.inodes.len() as u64,
            blocks: self.layout.blocks,
            tar_blocks,
            uuid,
        };
        self.pad_to(SUPERBLOCK_OFFSET)?;
        self.put(&superblock.encode())?;
        let layout = self.layout;
        for (number, placed) in layout.inodes.iter().enumerate() {
            self.inode(number as u32 + 1, placed)?;
        }
        self.pad_to(layout.inodes_end.next_multiple_of(BLOCK))?;
        for placed in &layout.inodes {
            self.blocks(placed)?;
        }
        self.pad_to(u64::from(layout.blocks) * BLOCK)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.position += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad_to(&mut self, position: u64) -> io::Result<()> {
        const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
        while self.position < position {
            let length = (position - self.position).min(BLOCK);
            self.put(&ZEROS[..length as usize])?;
        }
        Ok(())
    }

    fn inode(&mut self, number: u32, placed: &Placed) -> io::Result<()> {
        let node = self.tree.node(placed.node);
        let inode = Inode {
            layout: placed.data_layout(),
            xattr_bytes: placed.xattr_bytes,
            mode: node.st_mode(),
            size: placed.size,
            union: self.union(node, placed),
            number,
            uid: node.uid,
            gid: node.gid,
            mtime: node.mtime.seconds,
            mtime_nanoseconds: node.mtime.nanoseconds,
            links: self.layout.links[placed.node.index()],
        };
        self.pad_to(placed.position)?;
        self.put(&inode.encode())?;
        self.put(&xattrs::encode(self.tree, placed.node))?;
        match placed.data {
            Data::Inline => self.put(&self.small_data(placed)),
            Data::Chunks(plan, block) => {
                self.pad_to((placed.position + INODE + placed.xattr_bytes).next_multiple_of(8))?;
                self.chunk_list(node, &plan, block)
            }
            Data::None | Data::Blocks(_) | Data::Tar(_) => Ok(()),
        }
    }

    fn union(&self, node: &Node, placed: &Placed) -> u32 {
        match (&node.content, placed.data) {
            (Content::CharDevice(major, minor) | Content::BlockDevice(major, minor), _) => {
                format::device_number(*major, *minor)
            }
            (_, Data::Blocks(block)) => block,
            (_, Data::Tar(offset)) => self.layout.blocks + (offset / BLOCK) as u32,
            (_, Data::Chunks(plan, _)) => chunks::format(&plan),
            (Content::File { .. }, Data::None) => NULL_ADDRESS,
            (_, Data::None | Data::Inline) => 0,
        }
    }

    /// The bytes of a directory or a link.
    fn small_data(&self, placed: &Placed) -> Vec<u8> {
        match &self.tree.node(placed.node).content {
            Content::Directory { children, parent, .. } => {
                let entries = directory::entries(children, placed.node, *parent);
                directory::encode(&entries, |node| {
                    (self.layout.numbers[node.index()], file_type(&self.tree.node(node).content))
                })
            }
            Content::Symlink(target) => target.to_vec(),
            _ => Vec::new(),
        }
    }

    fn chunk_list(&mut self, node: &Node, plan: &chunks::Plan, first_copy: u32) -> io::Result<()> {
        let Content::File { size, extents } = &node.content else { return Ok(()) };
        let copy_blocks = (plan.chunk_size() / BLOCK) as u32;
        let mut next_copy = first_copy;
        for chunk in chunks::list(*size, extents, plan) {
            let (device, address) = match chunk {
                Chunk::Hole => (0, NULL_ADDRESS),
                Chunk::Tar(offset) => (1, (offset / BLOCK) as u32),
                Chunk::Copy => (0, next_copy),
            };
            if chunk == Chunk::Copy {
                next_copy += copy_blocks;
            }
            let mut index = [0; 8];
            index[2..4].copy_from_slice(&u16::to_le_bytes(device));
            index[4..].copy_from_slice(&address.to_le_bytes());
            self.put(&index)?;
        }
        Ok(())
    }

    fn blocks(&mut self, placed: &Placed) -> io::Result<()> {
        match placed.data {
            Data::Blocks(block) => {
                self.pad_to(u64::from(block) * BLOCK)?;
                self.put(&self.small_data(placed))
            }
            Data::Chunks(plan, block) => {
                self.pad_to(u64::from(block) * BLOCK)?;
                let Content::File { size, extents } = &self.tree.node(placed.node).content else {
                    return Ok(());
                };
                let copies = chunks::list(*size, extents, &plan)
                    .enumerate()
                    .filter(|(_, chunk)| *chunk == Chunk::Copy);
                for (nth, _) in copies {
                    self.copy(extents, nth as u64 * plan.chunk_size(), plan.chunk_size())?;
                }
                Ok(())
            }
            Data::None | Data::Inline | Data::Tar(_) => Ok(()),
        }
    }

    /// Puts the bytes of a file from `begin` on together, block by block.
    fn copy(&mut self, extents: &[Extent], begin: u64, length: u64) -> io::Result<()> {
        let mut next = extents.partition_point(|extent| extent.file_offset + extent.length <= begin);
        for at in (begin..begin + length).step_by(BLOCK as usize) {
            let mut block = [0; BLOCK as usize];
            while let Some(extent) = extents.get(next).filter(|extent| extent.file_offset < at + BLOCK) {
                let end = extent.file_offset + extent.length;
                let (from, to) = (extent.file_offset.max(at), end.min(at + BLOCK));
                let part = &mut block[(from - at) as usize..(to - at) as usize];
                (self.read_tar)(extent.tar_offset + (from - extent.file_offset), part)?;
                if end > at + BLOCK {
                    break;
                }
                next += 1;
            }
            self.put(&block)?;
        }
        Ok(())
    }
}

fn file_type(content: &Content) -> u8 {
    match content {
        Content::File { .. } => 1,
        Content::Directory { .. } => 2,
        Content::CharDevice(..) => 3,
        Content::BlockDevice(..) => 4,
        Content::Fifo => 5,
        Content::Symlink(_) => 7,
    }
}
