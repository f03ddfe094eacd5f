//! Decides where everything of an index stands, before anything is written.

use super::chunks::{self, Plan};
use super::format::{DataLayout, INODE, INODES_OFFSET, SLOT};
use super::{BLOCK, directory, xattrs};
use crate::layer::Error;
use crate::layer::model::{Content, LayerTree, NodeId};

/// Bytes that the chunk lists and copies of all sparse files together may take.
const MOST_SPARSE_BYTES: u64 = 1 << 30;

/// A planned inode.
#[derive(Debug, Clone, Copy)]
pub struct Placed {
    /// Which node.
    pub node: NodeId,
    /// Byte position of the inode.
    pub position: u64,
    /// Bytes of the xattr area.
    pub xattr_bytes: u64,
    /// Length of the inode's data.
    pub size: u64,
    /// Where the data is.
    pub data: Data,
}

/// Where the data of an inode is.
#[derive(Debug, Clone, Copy)]
pub enum Data {
    /// There is none.
    None,
    /// Behind the inode.
    Inline,
    /// In blocks of the index that begin with this one.
    Blocks(u32),
    /// In the tar, one run from this offset.
    Tar(u64),
    /// In chunks; copies take blocks of the index that begin with this one.
    Chunks(Plan, u32),
}

/// The whole plan.
#[derive(Debug)]
pub struct Layout {
    /// All inodes in the order of their positions, the root first.
    pub inodes: Vec<Placed>,
    /// Inode number of each node, 0 for nodes that later entries replaced.
    pub numbers: Vec<u64>,
    /// Names of each node.
    pub links: Vec<u32>,
    /// Where the inodes end.
    pub inodes_end: u64,
    /// Blocks of the index.
    pub blocks: u32,
}

/// Plans an index.
pub fn plan(tree: &LayerTree) -> Result<Layout, Error> {
    let (order, links) = breadth_first(tree);
    let mut layout = Layout {
        inodes: Vec::with_capacity(order.len()),
        numbers: vec![0; tree.len()],
        links,
        inodes_end: INODES_OFFSET,
        blocks: 0,
    };
    let mut sparse_bytes = 0;
    for node in order {
        let placed = place(tree, node, layout.inodes_end)?;
        if let Data::Chunks(plan, _) = placed.data {
            sparse_bytes += plan.cost();
            if sparse_bytes > MOST_SPARSE_BYTES {
                return Err(Error::TooLarge { what: "maps of sparse files" });
            }
        }
        layout.numbers[node.index()] = placed.position / SLOT;
        layout.inodes_end = placed.position + placed.bytes();
        layout.inodes.push(placed);
    }
    assign_blocks(&mut layout)?;
    Ok(layout)
}

// Neighbours in a directory are neighbours in the index: listing with attributes reads few blocks.
fn breadth_first(tree: &LayerTree) -> (Vec<NodeId>, Vec<u32>) {
    let mut links = vec![0_u32; tree.len()];
    let mut order = vec![NodeId::ROOT];
    links[NodeId::ROOT.index()] = 2;
    let mut at = 0;
    while let Some(&directory) = order.get(at) {
        at += 1;
        let Content::Directory { children, .. } = &tree.node(directory).content else { continue };
        for &child in children.values() {
            if links[child.index()] == 0 {
                order.push(child);
            }
            links[child.index()] += 1;
            if tree.node(child).is_directory() {
                links[child.index()] += 1;
                links[directory.index()] += 1;
            }
        }
    }
    (order, links)
}

impl Placed {
    /// Bytes of the inode, its xattrs and what is behind them.
    fn bytes(&self) -> u64 {
        let head = INODE + self.xattr_bytes;
        match self.data {
            Data::Inline => head + self.size,
            Data::Chunks(plan, _) => head.next_multiple_of(8) + plan.count * 8,
            Data::None | Data::Blocks(_) | Data::Tar(_) => head,
        }
    }

    /// The layout field of the inode.
    pub fn data_layout(&self) -> DataLayout {
        match self.data {
            Data::Inline => DataLayout::FlatInline,
            Data::Chunks(..) => DataLayout::ChunkBased,
            Data::None | Data::Blocks(_) | Data::Tar(_) => DataLayout::FlatPlain,
        }
    }
}

fn place(tree: &LayerTree, node: NodeId, after: u64) -> Result<Placed, Error> {
    let content = &tree.node(node).content;
    let xattr_bytes = xattrs::encode(tree, node).len() as u64;
    let (size, data) = match content {
        Content::Directory { children, parent, .. } => {
            let entries = directory::entries(children, node, *parent);
            (directory::size(entries.iter().map(|entry| entry.name)), Data::Inline)
        }
        Content::Symlink(target) => (target.len() as u64, Data::Inline),
        Content::File { size, extents } => (*size, file_data(*size, extents)?),
        Content::CharDevice(..) | Content::BlockDevice(..) | Content::Fifo => (0, Data::None),
    };
    let mut placed = Placed { node, position: after.next_multiple_of(SLOT), xattr_bytes, size, data };
    if matches!(data, Data::Inline) && !fit_inline(&mut placed) {
        placed.data = Data::Blocks(0);
    }
    Ok(placed)
}

fn file_data(size: u64, extents: &[crate::tar::Extent]) -> Result<Data, Error> {
    match extents {
        _ if size == 0 => Ok(Data::None),
        [extent] if extent.length == size && extent.tar_offset.is_multiple_of(BLOCK) => {
            Ok(Data::Tar(extent.tar_offset))
        }
        _ => {
            let plan = chunks::plan(size, extents).ok_or(Error::TooLarge { what: "map of a sparse file" })?;
            Ok(Data::Chunks(plan, 0))
        }
    }
}

/// Moves the inode on until the data behind it lies within one block, as the kernel demands; false when it is too long.
fn fit_inline(placed: &mut Placed) -> bool {
    // A block less an inode; longer ones would leave most of a block empty before them.
    if placed.size > BLOCK - INODE {
        return false;
    }
    let start = placed.position;
    for position in (start..start + BLOCK).step_by(SLOT as usize) {
        let data = position + INODE + placed.xattr_bytes;
        if data % BLOCK + placed.size <= BLOCK {
            placed.position = position;
            return true;
        }
    }
    false
}

fn assign_blocks(layout: &mut Layout) -> Result<(), Error> {
    let mut next = layout.inodes_end.div_ceil(BLOCK);
    let too_large = || Error::TooLarge { what: "index" };
    for placed in &mut layout.inodes {
        let first = u32::try_from(next).map_err(|_| too_large())?;
        match &mut placed.data {
            Data::Blocks(block) => {
                *block = first;
                next += placed.size.div_ceil(BLOCK);
            }
            Data::Chunks(plan, block) => {
                *block = first;
                next += plan.copies * (plan.chunk_size() / BLOCK);
            }
            Data::None | Data::Inline | Data::Tar(_) => {}
        }
    }
    layout.blocks = u32::try_from(next).map_err(|_| too_large())?;
    Ok(())
}
