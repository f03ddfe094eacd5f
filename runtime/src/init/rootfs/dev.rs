//! `/dev`: device nodes, the links into `/proc` and `pts`, and the console.

use super::path::{file_type, is_char_device, open_nofollow};
use super::procfs::has_magic;
use super::tree::{Target, Tree};
use crate::init::StepError;
use crate::plan::devices::{DeviceNode, DevicesPlan, NodeType};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
/// `UNIX98_PTY_SLAVE_MAJOR` and its eight numbers, `linux/major.h`.
const PTY_SLAVE_MAJORS: std::ops::RangeInclusive<u32> = 136..=143;

/// Makes the nodes and links of the plan.
pub(super) fn make_devices(tree: &Tree, plan: &DevicesPlan) -> Result<(), StepError> {
    // So that modes need no second call.
    let mut places = Places { tree, last: None };
    let umask = rustix::process::umask(Mode::empty());
    let made = plan.nodes.iter().try_for_each(|node| make_node(&mut places, node, plan.bind));
    rustix::process::umask(umask);
    made?;
    for (path, target) in &plan.links {
        if path == Path::new("/dev/core") && !Path::new("/proc/kcore").exists() {
            continue;
        }
        let replace = path == Path::new("/dev/ptmx");
        make_link(&mut places, path, target, replace)
            .map_err(|e| StepError::os("make link", path.display(), e))?;
    }
    Ok(())
}

/// Directories of nodes and links, nearly all of them `/dev`: looked up once as long as it stays the same.
struct Places<'a> {
    tree: &'a Tree,
    last: Option<(PathBuf, OwnedFd)>,
}

impl Places<'_> {
    fn directory(&mut self, path: &Path) -> Result<&OwnedFd, Errno> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let (_, directory) = match self.last.take().filter(|(last, _)| last == parent) {
            Some(same) => self.last.insert(same),
            None => self.last.insert((parent.to_owned(), self.tree.root.make_directory(parent)?.fd)),
        };
        Ok(directory)
    }
}

fn make_node(places: &mut Places<'_>, node: &DeviceNode, bind: bool) -> Result<(), StepError> {
    let refused = |errno| StepError::os("make device", node.path.display(), errno);
    let name = node.path.file_name().ok_or(Errno::INVAL).map_err(refused)?;
    let tree = places.tree;
    let directory = places.directory(&node.path).map_err(refused)?;
    if bind {
        return bind_node(tree, node, directory, name);
    }
    match mknod(tree, node, directory, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::PERM) => bind_node(tree, node, directory, name),
        Err(errno) => Err(refused(errno)),
    }
}

fn kernel_type(node: &DeviceNode) -> FileType {
    match node.node_type {
        NodeType::Char => FileType::CharacterDevice,
        NodeType::Block => FileType::BlockDevice,
        NodeType::Fifo => FileType::Fifo,
    }
}

fn mknod(tree: &Tree, node: &DeviceNode, directory: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(node.mode);
    let number = rustix::fs::makedev(node.number.0, node.number.1);
    rustix::fs::mknodat(directory, name, kernel_type(node), mode, number)?;
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let as_planned = stat.st_mode & 0o7777 == node.mode && (stat.st_uid, stat.st_gid) == (node.uid, node.gid);
    if as_planned && is_node(node, &stat) {
        return Ok(());
    }
    let made = open_nofollow(directory, name)?;
    if !is_node(node, &rustix::fs::fstat(&made)?) {
        return Err(Errno::STALE);
    }
    // A default ACL took something away.
    if rustix::fs::fstat(&made)?.st_mode & 0o7777 != node.mode {
        tree.procfs.with_path(made.as_fd(), |path| rustix::fs::chmod(path, mode))?;
    }
    let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
    rustix::fs::chownat(&made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}

fn is_node(node: &DeviceNode, stat: &Stat) -> bool {
    let same_number =
        node.node_type == NodeType::Fifo || stat.st_rdev == rustix::fs::makedev(node.number.0, node.number.1);
    FileType::from_raw_mode(stat.st_mode) == kernel_type(node) && same_number
}

/// Binds the host's node: a user namespace may not make any.
fn bind_node(tree: &Tree, node: &DeviceNode, directory: &OwnedFd, name: &OsStr) -> Result<(), StepError> {
    let refused = |errno| StepError::os("bind device", node.path.display(), errno);
    let source =
        rustix::fs::open(&node.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(refused)?;
    if !is_node(node, &rustix::fs::fstat(&source).map_err(refused)?) {
        let (major, minor) = node.number;
        let cause = format!("the host's node is not device {major}:{minor}");
        return Err(StepError::why("bind device", node.path.display(), cause));
    }
    let target = file_target(tree, directory, name).map_err(refused)?;
    tree.bind(source.as_fd(), false, &target).map(drop).map_err(refused)
}

/// A file in `directory` to bind onto: what is there unless it is a link, else an empty one.
fn file_target(tree: &Tree, directory: &OwnedFd, name: &OsStr) -> Result<Target, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o666)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let fd = open_nofollow(directory, name)?;
    if file_type(&fd)? == FileType::Symlink {
        return Err(Errno::LOOP);
    }
    tree.target(fd)
}

fn make_link(places: &mut Places<'_>, path: &Path, target: &Path, replace: bool) -> Result<(), Errno> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let directory = places.directory(path)?;
    if replace {
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    match rustix::fs::symlinkat(target, directory, name) {
        Err(Errno::EXIST) if !replace => Ok(()),
        answer => answer,
    }
}

/// Binds the terminal onto `/dev/console`, after making sure that it is one (CVE-2025-52565).
pub(super) fn bind_console(tree: &Tree, pts: BorrowedFd<'_>) -> Result<(), StepError> {
    let path = Path::new("/dev/console");
    let refused = |errno| StepError::os("bind console", path.display(), errno);
    let stat = rustix::fs::fstat(pts).map_err(refused)?;
    let terminal = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && PTY_SLAVE_MAJORS.contains(&rustix::fs::major(stat.st_rdev))
        && has_magic(pts, DEVPTS_SUPER_MAGIC);
    if !terminal {
        return Err(StepError::why("bind console", path.display(), "the slave end is not on a devpts"));
    }
    let (directory, name) = tree.root.make_parent(path).map_err(refused)?;
    let target = file_target(tree, &directory, &name).map_err(refused)?;
    tree.bind(pts, false, &target).map(drop).map_err(refused)
}

/// The container's `/dev/null` by handle, verified to be the null device (CVE-2025-31133).
pub(super) fn open_null(tree: &Tree) -> Result<OwnedFd, StepError> {
    let path = Path::new("/dev/null");
    let refused = |errno| StepError::os("open", path.display(), errno);
    let null = tree.root.open(path).map_err(refused)?;
    if is_char_device(&null, 1, 3).map_err(refused)? {
        return Ok(null);
    }
    Err(StepError::why("open", path.display(), "container's /dev/null is invalid"))
}

/// Standard streams that are the host's `/dev/null` become the container's, which the device rules allow.
pub(super) fn reopen_null(tree: &Tree) -> Result<(), StepError> {
    let refused = |errno| StepError::os("reopen", "/dev/null", errno);
    let handle = open_null(tree)?;
    let is_null = |stream: BorrowedFd<'_>| is_char_device(stream, 1, 3).unwrap_or(false);
    let nulls = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()].map(is_null);
    if nulls == [false; 3] {
        return Ok(());
    }
    let null = tree.procfs.reopen(handle.as_fd(), OFlags::RDWR).map_err(refused)?;
    if nulls[0] {
        rustix::stdio::dup2_stdin(&null).map_err(refused)?;
    }
    if nulls[1] {
        rustix::stdio::dup2_stdout(&null).map_err(refused)?;
    }
    if nulls[2] {
        rustix::stdio::dup2_stderr(&null).map_err(refused)?;
    }
    Ok(())
}
