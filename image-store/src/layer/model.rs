//! A layer's tree in memory: what the entries of its tar come to when each is applied in order. Both back ends write this
//! model, so that they can't differ in what a whiteout, a repeated name or a link through a symbolic link means.
//!
//! The rules are those of unpacking one layer after the other, as the image specification has it:
//! - A later entry of a name wins; a directory over a directory keeps the children.
//! - What replaces something that hides the name below (a whiteout, a file) hides it too: a directory becomes opaque.
//! - A whiteout never removes what its own layer holds; of a directory it makes an opaque one.
//! - Parents that the archive does not mention are root's, 0755, of time 0.
//! - A parent that is a symbolic link of the same layer is followed, within the layer's root.
//!
//! Memory is bounded by [`MEMORY`]: some 300 bytes a file and what names, links and xattrs take.

use std::collections::BTreeMap;

use super::Error;
use super::path::{self, Meaning, PathError};
use super::xattr;
use crate::tar::{Entry, EntryKind, Extent, Timestamp, Xattr};

/// Index of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The root directory.
    pub const ROOT: Self = Self(0);

    /// The node's place in arrays of nodes.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The children of a directory, sorted by bytes.
pub type Children = BTreeMap<Box<[u8]>, NodeId>;

/// An inode.
#[derive(Debug)]
pub struct Node {
    /// What it is.
    pub content: Content,
    /// Permission bits with set-id and sticky bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Extended attributes that a layer may carry.
    pub xattrs: Vec<Xattr>,
}

/// What an inode holds.
#[derive(Debug)]
pub enum Content {
    /// A directory.
    Directory {
        /// Its entries.
        children: Children,
        /// The directory above; the root's is the root.
        parent: NodeId,
        /// Nothing of the layers below shows through.
        opaque: bool,
    },
    /// A regular file; holes are what no extent covers.
    File {
        /// Length.
        size: u64,
        /// Where its bytes stand.
        extents: Box<[Extent]>,
    },
    /// A symbolic link's target.
    Symlink(Box<[u8]>),
    /// A character device; 0/0 is a whiteout.
    CharDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// Bytes of memory that the model of one layer may take.
pub const MEMORY: usize = 1 << 30;
/// As many symbolic links as the kernel follows in one path.
const MOST_LINKS: usize = 40;

/// A layer's tree.
#[derive(Debug)]
pub struct LayerTree {
    nodes: Vec<Node>,
    memory: usize,
}

impl Default for LayerTree {
    fn default() -> Self {
        Self::new()
    }
}

impl LayerTree {
    /// An empty layer.
    pub fn new() -> Self {
        Self { nodes: vec![Node::directory(NodeId::ROOT)], memory: 0 }
    }

    /// The node of an id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// How many nodes there are, replaced ones included: the bound of [`NodeId::index`].
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The attributes by which an overlay knows what a directory hides.
    pub fn overlay_xattrs(&self, id: NodeId) -> Vec<(&'static [u8], &'static [u8])> {
        let Content::Directory { children, opaque, .. } = &self.node(id).content else { return Vec::new() };
        let mut xattrs: Vec<(&[u8], &[u8])> = Vec::new();
        if *opaque {
            xattrs.push((xattr::OPAQUE, b"y"));
        }
        if children.values().any(|&child| self.node(child).is_whiteout()) {
            xattrs.push((xattr::ORIGIN, b""));
        }
        xattrs
    }

    /// Whether the root hides all layers below.
    pub fn is_opaque(&self) -> bool {
        matches!(self.node(NodeId::ROOT).content, Content::Directory { opaque: true, .. })
    }

    /// Applies one entry. Answers with the node when it is a file, whose data comes next.
    pub fn apply(&mut self, entry: Entry) -> Result<Option<NodeId>, Error> {
        let raw = entry.path.clone();
        let names = path::names(&raw).map_err(|reason| path_error(&raw, reason))?;
        let Some((last, parents)) = names.split_last() else {
            return self.apply_root(entry).map(|()| None);
        };
        if parents.iter().any(|name| name.starts_with(b".wh..wh.")) {
            return Ok(None);
        }
        match path::meaning(last).ok_or_else(|| invalid(&raw, "is a whiteout of nothing"))? {
            Meaning::Ignored => Ok(None),
            Meaning::Opaque => {
                let directory = self.make_parents(parents, &raw)?;
                self.set_opaque(directory);
                Ok(None)
            }
            Meaning::Whiteout(hidden) => {
                let directory = self.make_parents(parents, &raw)?;
                self.white_out(directory, hidden)?;
                Ok(None)
            }
            Meaning::File(name) => {
                let directory = self.make_parents(parents, &raw)?;
                self.put(directory, name, entry)
            }
        }
    }

    fn apply_root(&mut self, entry: Entry) -> Result<(), Error> {
        if entry.kind != EntryKind::Directory {
            return Err(invalid(&entry.path, "makes the root something else than a directory"));
        }
        self.set_attributes(NodeId::ROOT, entry)
    }

    fn put(&mut self, directory: NodeId, name: &[u8], entry: Entry) -> Result<Option<NodeId>, Error> {
        let existing = self.child(directory, name);
        if entry.kind == EntryKind::HardLink {
            let target = self.link_target(&entry)?;
            return self.insert(directory, name, target).map(|()| None);
        }
        if let (EntryKind::Directory, Some(id)) = (entry.kind, existing)
            && self.node(id).is_directory()
        {
            return self.set_attributes(id, entry).map(|()| None);
        }
        let content = match entry.kind {
            EntryKind::Directory => Content::Directory {
                children: Children::new(),
                parent: directory,
                opaque: existing.is_some(),
            },
            EntryKind::File => Content::File { size: entry.size, extents: entry.extents.as_slice().into() },
            EntryKind::Symlink => Content::Symlink(symlink_target(&entry)?),
            EntryKind::CharDevice { major, minor } => Content::CharDevice(major, minor),
            EntryKind::BlockDevice { major, minor } => Content::BlockDevice(major, minor),
            EntryKind::Fifo => Content::Fifo,
            EntryKind::HardLink => return Ok(None),
        };
        let id = self.add(content)?;
        let is_file = entry.kind == EntryKind::File;
        self.set_attributes(id, entry)?;
        self.insert(directory, name, id)?;
        Ok(is_file.then_some(id))
    }

    fn white_out(&mut self, directory: NodeId, name: &[u8]) -> Result<(), Error> {
        match self.child(directory, name) {
            Some(id) if self.node(id).is_directory() => self.set_opaque(id),
            // A file hides what is below by itself.
            Some(_) => {}
            None => {
                let id = self.add(Content::CharDevice(0, 0))?;
                self.insert(directory, name, id)?;
            }
        }
        Ok(())
    }

    fn link_target(&self, entry: &Entry) -> Result<NodeId, Error> {
        let missing = || Error::HardLink { path: lossy(&entry.path), target: lossy(&entry.link) };
        let names = path::names(&entry.link).map_err(|reason| path_error(&entry.link, reason))?;
        let (last, parents) = names.split_last().ok_or_else(missing)?;
        let mut links = 0;
        let directory = self.walk(NodeId::ROOT, parents, &mut links).ok_or_else(missing)?;
        let id = self.child(directory, last).ok_or_else(missing)?;
        let node = self.node(id);
        if node.is_directory() || node.is_whiteout() { Err(missing()) } else { Ok(id) }
    }

    /// Follows existing directories and links only.
    fn walk(&self, start: NodeId, names: &[&[u8]], links: &mut usize) -> Option<NodeId> {
        names.iter().try_fold(start, |at, name| {
            let id = if **name == *b".." { self.parent(at) } else { self.child(at, name)? };
            match &self.node(id).content {
                Content::Directory { .. } => Some(id),
                Content::Symlink(target) => {
                    *links += 1;
                    let start = if target.starts_with(b"/") { NodeId::ROOT } else { at };
                    (*links <= MOST_LINKS).then(|| self.walk(start, &link_names(target), links)).flatten()
                }
                _ => None,
            }
        })
    }

    /// Resolves the names of parents, making those that are missing.
    fn make_parents(&mut self, names: &[&[u8]], raw: &[u8]) -> Result<NodeId, Error> {
        let mut pending: Vec<Box<[u8]>> = names.iter().rev().map(|&name| name.into()).collect();
        let (mut at, mut links) = (NodeId::ROOT, 0);
        while let Some(name) = pending.pop() {
            if *name == *b".." {
                at = self.parent(at);
                continue;
            }
            let Some(id) = self.child(at, &name) else {
                at = self.make_directory(at, &name, false)?;
                continue;
            };
            match &self.node(id).content {
                Content::Directory { .. } => at = id,
                Content::CharDevice(0, 0) => at = self.make_directory(at, &name, true)?,
                Content::Symlink(target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(invalid(raw, "goes through too many symbolic links"));
                    }
                    if target.starts_with(b"/") {
                        at = NodeId::ROOT;
                    }
                    pending.extend(link_names(target).iter().rev().map(|&name| Box::from(name)));
                }
                _ => return Err(invalid(raw, "has a parent that is no directory")),
            }
        }
        Ok(at)
    }

    fn make_directory(&mut self, parent: NodeId, name: &[u8], opaque: bool) -> Result<NodeId, Error> {
        let id = self.add(Content::Directory { children: Children::new(), parent, opaque })?;
        self.insert(parent, name, id)?;
        Ok(id)
    }

    fn add(&mut self, content: Content) -> Result<NodeId, Error> {
        let heap = match &content {
            Content::File { extents, .. } => size_of_val(&**extents),
            Content::Symlink(target) => target.len(),
            _ => 0,
        };
        self.account(size_of::<Node>() + heap)?;
        let id = NodeId(u32::try_from(self.nodes.len()).map_err(|_| Error::TooManyFiles)?);
        self.nodes.push(Node { content, ..Node::directory(NodeId::ROOT) });
        Ok(id)
    }

    fn insert(&mut self, directory: NodeId, name: &[u8], id: NodeId) -> Result<(), Error> {
        // A B-tree's entry: key, value, its share of the node, the name's allocation.
        self.account(64 + name.len())?;
        if let Content::Directory { children, .. } = &mut self.nodes[directory.index()].content {
            children.insert(name.into(), id);
        }
        Ok(())
    }

    fn set_attributes(&mut self, id: NodeId, entry: Entry) -> Result<(), Error> {
        let mut xattrs = entry.xattrs;
        let node = &self.nodes[id.index()];
        xattrs.retain(|attribute| xattr::is_kept(&attribute.name, &node.content));
        xattr::check(&xattrs).map_err(|reason| invalid(&entry.path, reason))?;
        self.account(
            xattrs.iter().map(|xattr| size_of::<Xattr>() + xattr.name.len() + xattr.value.len()).sum(),
        )?;
        let node = &mut self.nodes[id.index()];
        node.mode = (entry.mode & 0o7777) as u16;
        (node.uid, node.gid, node.mtime, node.xattrs) = (entry.uid, entry.gid, entry.mtime, xattrs);
        Ok(())
    }

    fn account(&mut self, bytes: usize) -> Result<(), Error> {
        self.memory += bytes;
        if self.memory > MEMORY { Err(Error::TooManyFiles) } else { Ok(()) }
    }

    fn set_opaque(&mut self, id: NodeId) {
        if let Content::Directory { opaque, .. } = &mut self.nodes[id.index()].content {
            *opaque = true;
        }
    }

    fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.node(directory).content {
            Content::Directory { children, .. } => children.get(name).copied(),
            _ => None,
        }
    }

    fn parent(&self, id: NodeId) -> NodeId {
        match self.node(id).content {
            Content::Directory { parent, .. } => parent,
            _ => NodeId::ROOT,
        }
    }
}

impl Node {
    fn directory(parent: NodeId) -> Self {
        Self {
            content: Content::Directory { children: Children::new(), parent, opaque: false },
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            xattrs: Vec::new(),
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.content, Content::Directory { .. })
    }

    /// Whether it hides a name of the layers below.
    pub fn is_whiteout(&self) -> bool {
        matches!(self.content, Content::CharDevice(0, 0))
    }

    /// `S_IFMT` and permission bits.
    pub fn st_mode(&self) -> u16 {
        let file_type = match self.content {
            Content::Directory { .. } => 0o040_000,
            Content::File { .. } => 0o100_000,
            Content::Symlink(_) => 0o120_000,
            Content::CharDevice(..) => 0o020_000,
            Content::BlockDevice(..) => 0o060_000,
            Content::Fifo => 0o010_000,
        };
        // A symbolic link's own bits mean nothing; Linux shows them all.
        let permissions = if matches!(self.content, Content::Symlink(_)) { 0o777 } else { self.mode };
        file_type | permissions
    }
}

fn symlink_target(entry: &Entry) -> Result<Box<[u8]>, Error> {
    if entry.link.is_empty() || entry.link.len() > path::PATH_MAX || entry.link.contains(&0) {
        return Err(invalid(&entry.path, "is a symbolic link with no usable target"));
    }
    Ok(entry.link.as_slice().into())
}

fn link_names(target: &[u8]) -> Vec<&[u8]> {
    target.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned()
}

fn invalid(path: &[u8], reason: &'static str) -> Error {
    Error::Entry { path: lossy(path), reason }
}

fn path_error(path: &[u8], reason: PathError) -> Error {
    Error::Path { path: lossy(path), source: reason }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
