//! The tree back end: the layer's files themselves, for kernels and file systems that can't mount an index.
//!
//! File data is written as it comes, each file under its node's number in a flat directory; when the stream has ended and
//! the model is whole, directories are made and the files are renamed to their places. So no path of the archive is ever
//! resolved on the file system while the archive can still change it, and every path walked is one of the model's, below
//! the tree's root, with symbolic links refused.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat,
    fchmod, fchown, fsetxattr, futimens, linkat, lsetxattr, makedev, mkdirat, mknodat, openat2, renameat,
    symlinkat, utimensat,
};
use rustix::io::Errno;

use super::model::{Content, LayerTree, Node, NodeId};
use super::staging::Staging;
use super::store::{Layers, impl_layer_store};
use super::writer::Sink;
use super::{BackEnd, DiffId, Error, LayerWriter, tree_digest};

pub(super) const TREE: &str = "tree";
const FILES: &str = "files";

/// Stores new layers unpacked.
#[derive(Debug)]
pub struct TreeLayers(Layers);

impl TreeLayers {
    /// Opens the store at `<root>/layers`.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Layers::open(root).map(Self)
    }

    /// The same layers, written by this back end.
    pub(super) const fn of(layers: Layers) -> Self {
        Self(layers)
    }

    pub(super) fn new_writer(&self, diff_id: DiffId) -> Result<LayerWriter, Error> {
        let staging = Staging::create(self.0.path(), &diff_id)?;
        let sink = Unpacker::create(staging.path())?;
        Ok(LayerWriter::new(self.0.clone(), diff_id, BackEnd::Tree, staging, Box::new(sink)))
    }
}

impl_layer_store!(TreeLayers);

#[derive(Debug)]
struct Unpacker {
    files: PathBuf,
    tree: PathBuf,
    current: Option<Unpacked>,
}

/// A file being written, and how far it is.
#[derive(Debug)]
struct Unpacked {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Unpacker {
    fn create(directory: &Path) -> Result<Self, Error> {
        let (files, tree) = (directory.join(FILES), directory.join(TREE));
        for path in [&files, &tree] {
            fs::create_dir(path).map_err(Error::io("make the directory", path))?;
        }
        Ok(Self { files, tree, current: None })
    }
}

impl Sink for Unpacker {
    fn tar(&mut self, _bytes: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn begin_file(&mut self, file: NodeId) -> Result<(), Error> {
        let path = self.files.join(file.index().to_string());
        let file = File::create_new(&path).map_err(Error::io("create", &path))?;
        self.current = Some(Unpacked { path, file, length: 0 });
        Ok(())
    }

    fn data(&mut self, file_offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let Some(current) = &mut self.current else { return Ok(()) };
        current.length = file_offset + bytes.len() as u64;
        current.file.write_all_at(bytes, file_offset).map_err(Error::io("write", &current.path))
    }

    fn end_file(&mut self, node: &Node) -> Result<(), Error> {
        let Some(Unpacked { path, file, length }) = self.current.take() else { return Ok(()) };
        // Only for a hole at the end: ext4 makes even a truncation to the same length a transaction.
        if let Content::File { size, .. } = node.content
            && size != length
        {
            file.set_len(size).map_err(Error::io("set the length of", &path))?;
        }
        set_attributes(file.as_fd(), node).map_err(Error::io("set attributes of", &path))
    }

    fn finish(self: Box<Self>, tree: &LayerTree, _tar_size: u64) -> Result<(u64, DiffId), Error> {
        let files = open_directory(CWD, &self.files).map_err(Error::io("open", &self.files))?;
        let root = open_directory(CWD, &self.tree).map_err(Error::io("open", &self.tree))?;
        let builder = Builder { tree, root, files, path: &self.tree, first_names: HashMap::new(), inodes: 1 };
        let inodes = builder.build()?;
        // What later entries replaced is left in there.
        fs::remove_dir_all(&self.files).map_err(Error::io("remove", &self.files))?;
        crate::fault::point("layer.sync")?;
        // One call for thousands of files.
        let directory = File::open(&self.tree).map_err(Error::io("open", &self.tree))?;
        rustix::fs::syncfs(&directory).map_err(Error::io("sync the file system of", &self.tree))?;
        Ok((inodes, tree_digest::digest(&self.tree)?))
    }
}

/// Puts the model's names and everything but file data on disk.
struct Builder<'a> {
    tree: &'a LayerTree,
    root: OwnedFd,
    files: OwnedFd,
    path: &'a Path,
    /// Where an inode got its first name; later ones are linked to it.
    first_names: HashMap<NodeId, PathBuf>,
    inodes: u64,
}

impl Builder<'_> {
    fn build(mut self) -> Result<u64, Error> {
        let mut directories = vec![(NodeId::ROOT, PathBuf::new())];
        let mut at = 0;
        while let Some((node, path)) = directories.get(at).cloned() {
            at += 1;
            self.fill(node, &path, &mut directories)?;
        }
        // Deepest first, when nothing in them changes any more: a directory may be closed to its owner.
        for (node, path) in directories.iter().rev() {
            self.open(path)
                .and_then(|fd| self.close_directory(fd.as_fd(), *node))
                .map_err(Error::io("set attributes of", self.path.join(path)))?;
        }
        Ok(self.inodes)
    }

    fn open(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        open_directory(self.root.as_fd(), if path.as_os_str().is_empty() { Path::new(".") } else { path })
    }

    fn close_directory(&self, fd: BorrowedFd<'_>, node: NodeId) -> rustix::io::Result<()> {
        for (name, value) in self.tree.overlay_xattrs(node) {
            fsetxattr(fd, name, value, XattrFlags::empty()).or_else(|errno| {
                // Without rights on trusted attributes the overlay is mounted with `userxattr`, too.
                let user = [b"user.", name.strip_prefix(b"trusted.").unwrap_or(name)].concat();
                if errno == Errno::PERM {
                    fsetxattr(fd, &*user, value, XattrFlags::empty())
                } else {
                    Err(errno)
                }
            })?;
        }
        set_attributes(fd, self.tree.node(node))
    }

    fn fill(&mut self, node: NodeId, path: &Path, found: &mut Vec<(NodeId, PathBuf)>) -> Result<(), Error> {
        let tree = self.tree;
        let Content::Directory { children, .. } = &tree.node(node).content else { return Ok(()) };
        let directory = self.open(path).map_err(Error::io("open", self.path.join(path)))?;
        for (name, &child) in children {
            let name = OsStr::from_bytes(name);
            let child_path = path.join(name);
            self.make(&directory, name, child, &child_path)
                .map_err(Error::io("make", self.path.join(&child_path)))?;
            if tree.node(child).is_directory() {
                found.push((child, child_path));
            }
        }
        Ok(())
    }

    fn make(&mut self, directory: &OwnedFd, name: &OsStr, id: NodeId, path: &Path) -> rustix::io::Result<()> {
        if let Some(first) = self.first_names.get(&id) {
            return linkat(&self.root, first, directory, name, AtFlags::empty());
        }
        let node = self.tree.node(id);
        self.inodes += 1;
        let device = |major: u32, minor: u32| makedev(major, minor);
        match &node.content {
            // Attributes come last, when all directories are filled.
            Content::Directory { .. } => return mkdirat(directory, name, Mode::RWXU),
            Content::File { .. } => renameat(&self.files, id.index().to_string(), directory, name)?,
            Content::Symlink(target) => symlinkat(&**target, directory, name)?,
            Content::CharDevice(major, minor) => {
                mknodat(directory, name, FileType::CharacterDevice, Mode::RUSR, device(*major, *minor))?;
            }
            Content::BlockDevice(major, minor) => {
                mknodat(directory, name, FileType::BlockDevice, Mode::RUSR, device(*major, *minor))?;
            }
            Content::Fifo => mknodat(directory, name, FileType::Fifo, Mode::RUSR, 0)?,
        }
        self.first_names.insert(id, path.to_owned());
        if matches!(node.content, Content::File { .. }) {
            Ok(())
        } else {
            set_attributes_at(directory, name, node)
        }
    }
}

fn open_directory(at: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = if path.is_absolute() {
        ResolveFlags::NO_MAGICLINKS
    } else {
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS
    };
    openat2(at, path, flags, Mode::empty(), resolve)
}

// The order matters: chown clears set-id bits and capabilities, and everything touches the times.
fn set_attributes(fd: BorrowedFd<'_>, node: &Node) -> rustix::io::Result<()> {
    fchown(fd, Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)))?;
    for xattr in &node.xattrs {
        fsetxattr(fd, &*xattr.name, &xattr.value, XattrFlags::empty())?;
    }
    fchmod(fd, Mode::from_raw_mode(node.mode.into()))?;
    futimens(fd, &timestamps(node))
}

fn set_attributes_at(directory: &OwnedFd, name: &OsStr, node: &Node) -> rustix::io::Result<()> {
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    chownat(directory, name, Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)), nofollow)?;
    // There is no setxattrat before 6.13; the descriptor's link in procfs is as safe, its last name is not followed.
    let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    for xattr in &node.xattrs {
        lsetxattr(&path, &*xattr.name, &xattr.value, XattrFlags::empty())?;
    }
    if !matches!(node.content, Content::Symlink(_)) {
        rustix::fs::chmodat(directory, name, Mode::from_raw_mode(node.mode.into()), AtFlags::empty())?;
    }
    utimensat(directory, name, &timestamps(node), nofollow)
}

fn timestamps(node: &Node) -> Timestamps {
    let time = Timespec { tv_sec: node.mtime.seconds, tv_nsec: node.mtime.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
