//! The root itself: propagation of what is there, the rootfs as a mount point of its own, and the change to it.

use super::path::InRoot;
use super::procfs::Procfs;
use super::tree::{Tree, attach, clone_tree};
use crate::init::StepError;
use crate::plan::RootfsPlan;
use crate::sys::mount::MountApi;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

type Propagation = MountPropagationFlags;

/// Makes the rootfs a mount point in a tree that sends nothing back to the host, from `detached` if there is one;
/// returns it.
pub(super) fn prepare_root(plan: &RootfsPlan, detached: Option<OwnedFd>) -> Result<Tree, StepError> {
    let api = MountApi::probe();
    let procfs = Procfs::open()?;
    let refused = |errno| StepError::os("open root filesystem", plan.root.display(), errno);
    let plain = open_directory(&plan.root).map_err(refused)?;
    let root_path = procfs.path_of(&plain).map_err(refused)?;
    if !plan.mount_namespace {
        return Ok(Tree { root: InRoot::new(plain), root_path, procfs, api });
    }
    let flags = plan.propagation.unwrap_or(Propagation::DOWNSTREAM | Propagation::REC);
    rustix::mount::mount_change("/", flags).map_err(|e| StepError::os("change propagation of", "/", e))?;
    // Done, where that was for all mounts.
    if !(flags.contains(Propagation::REC) && flags.intersects(Propagation::DOWNSTREAM | Propagation::PRIVATE))
    {
        unshare_parent(&root_path)?;
    }
    let mounted = match detached {
        Some(mount) => attach(&mount, &plain).map(|()| mount),
        None => bind_itself(&root_path, &plain, api),
    };
    let refused = |errno| StepError::os("mount root filesystem", plan.root.display(), errno);
    let tree = Tree { root: InRoot::new(mounted.map_err(refused)?), root_path, procfs, api };
    if flags.contains(Propagation::DOWNSTREAM) {
        // Or it would be a slave, too, and what the host mounts below it would arrive (private in runc since 1.2).
        tree.propagate(tree.root.fd(), Propagation::PRIVATE).map_err(refused)?;
    }
    Ok(tree)
}

/// The mount that holds the rootfs must not be shared: pivot_root refuses that, and the bind of the rootfs onto
/// itself would reach the host.
fn unshare_parent(root: &Path) -> Result<(), StepError> {
    let mut path = root;
    loop {
        match rustix::mount::mount_change(path, Propagation::PRIVATE) {
            Ok(()) => return Ok(()),
            // Not a mount point: it belongs to the mount of a directory above.
            Err(Errno::INVAL) if path != Path::new("/") => path = path.parent().unwrap_or(Path::new("/")),
            Err(errno) => return Err(StepError::os("change propagation of", path.display(), errno)),
        }
    }
}

fn bind_itself(root: &Path, handle: &OwnedFd, api: MountApi) -> Result<OwnedFd, Errno> {
    if api.open_tree {
        let clone = clone_tree(handle.as_fd(), true)?;
        attach(&clone, handle)?;
        return Ok(clone);
    }
    rustix::mount::mount_bind_recursive(root, root)?;
    open_directory(root)
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Changes the root of the process to the tree.
pub(super) fn change_root(plan: &RootfsPlan, tree: &mut Tree) -> Result<(), StepError> {
    rustix::process::fchdir(tree.root.fd()).map_err(|e| StepError::os("chdir", plan.root.display(), e))?;
    if !plan.mount_namespace {
        chroot_here()?;
    } else if plan.no_pivot {
        move_root(&tree.root_path)?;
    } else {
        pivot_root()?;
    }
    tree.root_path = PathBuf::from("/");
    apply_root_propagation(plan)
}

/// `pivot_root(".", ".")` stacks the old root on the new one; then it is detached from there.
fn pivot_root() -> Result<(), StepError> {
    let refused = |step: &'static str| move |errno| StepError::os(step, "", errno);
    let old_root = open_directory(Path::new("/")).map_err(refused("open old root"))?;
    rustix::process::pivot_root(".", ".").map_err(refused("pivot_root"))?;
    rustix::process::fchdir(&old_root).map_err(refused("chdir to old root"))?;
    // Slave, not private: our unmount must not reach the host, but the host's unmounts must still reach us meanwhile.
    rustix::mount::mount_change(".", Propagation::DOWNSTREAM | Propagation::REC)
        .map_err(refused("change propagation of old root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(refused("unmount old root"))?;
    rustix::process::chdir("/").map_err(refused("chdir to new root"))
}

/// `--no-pivot`, for a root on an initramfs. Whole mounts of procfs and sysfs of the host are removed or covered
/// first: they would stay in the mount namespace and let the container mount fresh ones without masks.
fn move_root(root: &Path) -> Result<(), StepError> {
    let path = "/proc/self/mountinfo";
    let mountinfo = std::fs::read_to_string(path).map_err(|e| StepError::io("read", path, &e))?;
    for mountpoint in whole_pseudo_mounts(&mountinfo, root) {
        hide(&mountpoint).map_err(|e| StepError::os("hide", mountpoint.display(), e))?;
    }
    rustix::mount::mount_move(root, "/")
        .map_err(|e| StepError::os("move root filesystem", root.display(), e))?;
    chroot_here()
}

fn hide(mountpoint: &Path) -> Result<(), Errno> {
    match rustix::mount::mount_change(mountpoint, Propagation::DOWNSTREAM | Propagation::REC) {
        // Gone with a directory above it.
        Err(Errno::NOENT) => return Ok(()),
        answer => answer?,
    }
    match rustix::mount::unmount(mountpoint, UnmountFlags::DETACH) {
        Err(Errno::INVAL | Errno::PERM) => {
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("tmpfs", mountpoint, "tmpfs", flags, None)
        }
        answer => answer,
    }
}

/// Mount points of whole procfs and sysfs outside the rootfs.
fn whole_pseudo_mounts(mountinfo: &str, root: &Path) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let fields: Vec<&str> = left.split(' ').collect();
            let fstype = right.split(' ').next()?;
            let mountpoint = PathBuf::from(*fields.get(4)?);
            let whole = *fields.get(3)? == "/" && matches!(fstype, "proc" | "sysfs");
            (whole && !mountpoint.starts_with(root)).then_some(mountpoint)
        })
        .collect()
}

fn chroot_here() -> Result<(), StepError> {
    rustix::process::chroot(".").map_err(|e| StepError::os("chroot", "", e))?;
    rustix::process::chdir("/").map_err(|e| StepError::os("chdir to new root", "", e))
}

/// Shared and unbindable are applied to the new root only now, else they would have reached the host.
fn apply_root_propagation(plan: &RootfsPlan) -> Result<(), StepError> {
    let Some(flags) =
        plan.propagation.filter(|f| !f.intersects(Propagation::PRIVATE | Propagation::DOWNSTREAM))
    else {
        return Ok(());
    };
    if !plan.mount_namespace {
        return Ok(());
    }
    rustix::mount::mount_change("/", flags).map_err(|e| StepError::os("change propagation of", "/", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_proc_and_sysfs_outside_the_root_are_hidden() {
        let text = "20 1 0:1 / /proc rw - proc proc rw\n\
                    21 1 0:2 / /sys rw shared:3 - sysfs sysfs rw\n\
                    22 20 0:1 /sys /proc/sys ro - proc proc rw\n\
                    23 1 0:3 / /tmp rw - tmpfs tmpfs rw\n\
                    24 1 0:1 / /c/root/proc rw - proc proc rw\n";
        assert_eq!(
            whole_pseudo_mounts(text, Path::new("/c/root")),
            [PathBuf::from("/proc"), PathBuf::from("/sys")]
        );
    }
}
