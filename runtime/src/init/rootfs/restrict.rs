//! The last touch after the change of root: read-only paths and covered paths.

use super::dev::open_null;
use super::path::file_type;
use super::tree::{Filesystem, Target, Tree, attach, clone_tree};
use crate::init::StepError;
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Makes each path read-only by a bind onto itself; missing ones are skipped.
pub(super) fn make_readonly(tree: &Tree, paths: &[PathBuf]) -> Result<(), StepError> {
    for path in paths {
        let refused = |errno| StepError::os("make read-only", path.display(), errno);
        let Some(target) = existing(tree, path).map_err(refused)? else { continue };
        if !(tree.api.open_tree && tree.api.setattr) {
            let mount = tree.bind(target.fd.as_fd(), true, &target).map_err(refused)?;
            tree.set_readonly(mount.as_fd()).map_err(refused)?;
            continue;
        }
        // Read-only before it can be seen.
        let mount = clone_tree(target.fd.as_fd(), true).map_err(refused)?;
        tree.set_readonly(mount.as_fd()).map_err(refused)?;
        attach(&mount, &target.fd).map_err(refused)?;
    }
    Ok(())
}

/// Covers each path: a directory by an empty read-only tmpfs that all of them share, anything else by the null device.
pub(super) fn mask(tree: &Tree, paths: &[PathBuf], label: Option<&str>) -> Result<(), StepError> {
    let mut null = None;
    let mut shared: Option<OwnedFd> = None;
    for path in paths {
        let refused = |errno| StepError::os("mask", path.display(), errno);
        let Some(target) = existing(tree, path).map_err(refused)? else { continue };
        if file_type(&target.fd).map_err(refused)? == FileType::Directory {
            match &shared {
                Some(first) => tree.bind(first.as_fd(), false, &target).map(drop).map_err(refused)?,
                None => shared = Some(mask_directory(tree, &target, label)?),
            }
            continue;
        }
        let source: &OwnedFd = match &null {
            Some(fd) => fd,
            None => null.insert(open_null(tree)?),
        };
        tree.bind(source.as_fd(), false, &target).map(drop).map_err(refused)?;
    }
    Ok(())
}

/// Covers a directory by an empty read-only tmpfs.
pub(super) fn mask_directory(
    tree: &Tree,
    target: &Target,
    label: Option<&str>,
) -> Result<OwnedFd, StepError> {
    let mount = |inodes: &str| {
        let fs = Filesystem {
            fstype: "tmpfs",
            source: OsStr::new("tmpfs"),
            flags: MountFlags::RDONLY,
            data: vec!["nr_blocks=1".to_owned(), format!("nr_inodes={inodes}")],
            label,
        };
        tree.mount(&fs, target)
    };
    // Ubuntu's 5.4 refuses fewer than two inodes.
    mount("1").or_else(|_| mount("2")).map_err(|r| r.at("mask", target.path.display()))
}

/// The target at `path`, links followed in the container; `None` where nothing is there.
fn existing(tree: &Tree, path: &Path) -> Result<Option<Target>, Errno> {
    match tree.root.find(path) {
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
        Ok(found) => tree.target(found).map(Some),
    }
}
