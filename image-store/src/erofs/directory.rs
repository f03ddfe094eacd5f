//! Directory blocks: entries sorted by name, `.` and `..` among them; each block has its table first, then its names.

use super::BLOCK;
use crate::layer::model::{Children, NodeId};

const ENTRY: usize = 12;

/// An entry of a directory.
#[derive(Debug, Clone, Copy)]
pub struct DirectoryEntry<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// What it names.
    pub node: NodeId,
}

/// All entries in the order in which they are stored.
pub fn entries(children: &Children, own: NodeId, parent: NodeId) -> Vec<DirectoryEntry<'_>> {
    let mut entries: Vec<_> = children.iter().map(|(name, &node)| DirectoryEntry { name, node }).collect();
    for (name, node) in [(&b"."[..], own), (b"..", parent)] {
        let at = entries.partition_point(|entry| entry.name < name);
        entries.insert(at, DirectoryEntry { name, node });
    }
    entries
}

/// Length of a directory with these names: whole blocks and what the last one uses.
pub fn size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let (mut full, mut used) = (0, 0);
    for name in names {
        let bytes = ENTRY + name.len();
        if used + bytes > BLOCK as usize {
            (full, used) = (full + BLOCK, 0);
        }
        used += bytes;
    }
    full + used as u64
}

/// Encodes a directory; `describe` gives a node's inode number and directory file type.
pub fn encode(entries: &[DirectoryEntry<'_>], describe: impl Fn(NodeId) -> (u64, u8)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
        let (block, later) = rest.split_at(fitting(rest));
        let mut name_offset = block.len() * ENTRY;
        for entry in block {
            let (number, file_type) = describe(entry.node);
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&(name_offset as u16).to_le_bytes());
            bytes.extend_from_slice(&[file_type, 0]);
            name_offset += entry.name.len();
        }
        block.iter().for_each(|entry| bytes.extend_from_slice(entry.name));
        rest = later;
    }
    bytes
}

fn fitting(entries: &[DirectoryEntry<'_>]) -> usize {
    let mut used = 0;
    let fits = |entry: &&DirectoryEntry<'_>| {
        used += ENTRY + entry.name.len();
        used <= BLOCK as usize
    };
    entries.iter().take_while(fits).count()
}
