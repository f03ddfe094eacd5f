//! Everything that a program could tell about a tree.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    device: u64,
    size: u64,
    contents: String,
    target: Option<PathBuf>,
    xattrs: BTreeMap<String, String>,
    links: u64,
    /// The first of the names of the same inode.
    same_as: PathBuf,
}

pub type Tree = BTreeMap<PathBuf, Node>;

/// Reads a tree.
pub fn read(root: &Path) -> Tree {
    let (mut tree, mut first_names) = (Tree::new(), BTreeMap::new());
    let mut pending = vec![PathBuf::new()];
    while let Some(name) = pending.pop() {
        let path = if name.as_os_str().is_empty() { root.to_owned() } else { root.join(&name) };
        let metadata =
            fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if metadata.is_dir() {
            let mut names: Vec<_> =
                fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            pending.extend(names.into_iter().rev().map(|child| name.join(child)));
        }
        let inode = (metadata.dev(), metadata.ino());
        let same_as = first_names.entry(inode).or_insert_with(|| name.clone()).clone();
        tree.insert(name.clone(), node(&path, &metadata, same_as));
    }
    tree
}

fn node(path: &Path, metadata: &fs::Metadata, same_as: PathBuf) -> Node {
    let is_device = metadata.mode() & 0o170_000 == 0o020_000 || metadata.mode() & 0o170_000 == 0o060_000;
    let contents = if metadata.is_file() {
        Sha256::digest(fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
    } else {
        String::new()
    };
    Node {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        device: if is_device { metadata.rdev() } else { 0 },
        size: if metadata.is_dir() { 0 } else { metadata.len() },
        contents,
        target: metadata.is_symlink().then(|| fs::read_link(path).unwrap()),
        xattrs: xattrs(path),
        links: if metadata.is_dir() { 0 } else { metadata.nlink() },
        same_as,
    }
}

fn xattrs(path: &Path) -> BTreeMap<String, String> {
    let mut list = vec![0_u8; 65_536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let names = list[..length].split(|&byte| byte == 0);
    let names = names.filter(|name| !name.is_empty() && !name.starts_with(b"trusted.overlay."));
    names
        .map(|name| {
            let mut value = vec![0_u8; 65_536];
            let length =
                rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value[..]).unwrap();
            value.truncate(length);
            (String::from_utf8_lossy(name).into_owned(), value.escape_ascii().to_string())
        })
        .collect()
}

/// Makes trees equal that differ in the root's modification time: GNU tar leaves the directory alone that it extracts into.
pub fn forget_root_time(tree: &mut Tree) {
    tree.get_mut(Path::new("")).unwrap().mtime = (0, 0);
}

/// Makes trees equal that differ in link counts: an overlay counts names that a layer above hides. Which names are one
/// inode is still compared.
pub fn forget_links(tree: &mut Tree) {
    tree.values_mut().for_each(|node| node.links = 0);
}

/// Panics with what differs, a few lines of it.
pub fn assert_equal(seen: &Tree, expected: &Tree, what: &str) {
    let mut differences = Vec::new();
    for path in seen.keys().chain(expected.keys().filter(|path| !seen.contains_key(*path))) {
        let (one, other) = (seen.get(path), expected.get(path));
        if one != other {
            differences.push(format!("{}:{}", path.display(), difference(one, other)));
        }
    }
    let shown = differences.iter().take(8).cloned().collect::<Vec<_>>().join("\n");
    assert!(differences.is_empty(), "{what}: {} differences\n{shown}", differences.len());
}

/// The lines of the two descriptions that are not the same.
fn difference(seen: Option<&Node>, expected: Option<&Node>) -> String {
    let (seen, expected) = (format!("{seen:#?}"), format!("{expected:#?}"));
    let only = |one: &str, other: &str, mark: &str| {
        let lines: Vec<_> = one.lines().filter(|line| !other.contains(line)).take(6).collect();
        lines.iter().map(|line| format!("\n  {mark} {line}")).collect::<String>()
    };
    only(&seen, &expected, "seen    ") + &only(&expected, &seen, "expected")
}
