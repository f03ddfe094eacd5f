//! The xattr area behind an inode.

use crate::layer::model::{LayerTree, NodeId};

// Longest first: the name index that is found first counts.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"security.", 6),
    (b"trusted.", 4),
    (b"user.", 1),
];

/// Encodes a node's attributes, and the overlay's; empty when there are none.
pub fn encode(tree: &LayerTree, node: NodeId) -> Vec<u8> {
    let mut area = vec![0; 12];
    for xattr in &tree.node(node).xattrs {
        push(&mut area, &xattr.name, &xattr.value);
    }
    for (name, value) in tree.overlay_xattrs(node) {
        push(&mut area, name, value);
    }
    if area.len() == 12 { Vec::new() } else { area }
}

fn push(area: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let Some((prefix, index)) = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)) else { return };
    let name = &name[prefix.len()..];
    // Lengths are checked when the entry is taken (`layer::xattr::check`).
    area.extend_from_slice(&[name.len() as u8, *index]);
    area.extend_from_slice(&(value.len() as u16).to_le_bytes());
    area.extend_from_slice(name);
    area.extend_from_slice(value);
    area.resize(area.len().next_multiple_of(4), 0);
}
