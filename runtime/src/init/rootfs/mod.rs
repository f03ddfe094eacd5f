//! Walks the root filesystem's plan in the child: mounts, `/dev`, the change of root, masked and read-only paths.
//!
//! ```text
//! parent: plan.open_sources() ─▶ handles ─▶ child: prepare ▶ (hooks) ▶ pivot ▶ [bind_console] ▶ (sysctls) ▶ finish
//!                                                    ╰─ask─▶ parent: plan.open_source() in the child's mount namespace
//! ```
//! Every path in the container is resolved by handle below the root, and mounts stay handles until the end: nothing
//! that an image or another process does to names in between changes what is mounted where.

mod bind;
mod cgroup;
mod copy_up;
mod dev;
mod filesystem;
mod path;
mod procfs;
mod restrict;
mod root;
mod tree;

use super::StepError;
use crate::plan::RootfsPlan;
use crate::plan::mounts::MountKind;
use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tree::Tree;

/// A bind source that this process did not open.
struct Opened<'a> {
    /// By the parent before the clone.
    here: Option<OwnedFd>,
    /// By the parent now.
    ask: &'a mut dyn FnMut() -> Result<Option<OwnedFd>, StepError>,
}

/// What the parent opened for the child, and what the steps hand on to each other.
#[derive(Debug, Default)]
pub struct RootfsHandles {
    /// One a mount of the plan; only where the child could not open the source itself.
    sources: Vec<Option<OwnedFd>>,
    /// A detached mount that becomes the root filesystem.
    root: Option<OwnedFd>,
    /// The tree, from `prepare` on.
    tree: Option<Tree>,
    /// Mounts that become read-only at the end, with their destination.
    late: Vec<(OwnedFd, std::path::PathBuf)>,
}

impl RootfsHandles {
    /// The descriptors that must survive the child's first close_range.
    pub fn as_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sources.iter().flatten().chain(&self.root).map(AsFd::as_fd)
    }

    /// Takes a detached mount as the root filesystem: it is attached at the plan's root, an existing directory, in the
    /// container's mount namespace only, so that nothing on the host keeps it busy.
    pub fn set_root(&mut self, mount: OwnedFd) {
        self.root = Some(mount);
    }

    fn tree(&mut self) -> Result<&mut Tree, StepError> {
        self.tree.as_mut().ok_or_else(|| StepError::why("root filesystem", "", "used before it was prepared"))
    }
}

/// Asks the parent for the source of mount number N, see [`RootfsPlan::open_source`]; `None` where it can't open it either.
pub type AskForSource<'a> = dyn FnMut(usize) -> Result<Option<OwnedFd>, StepError> + 'a;

impl RootfsPlan {
    /// Opens, in the parent before clone, the sources that the child may not map.
    ///
    /// # Errors
    /// A source of an idmapped mount that does not exist or can't be cloned or mapped.
    pub fn open_sources(&self) -> Result<RootfsHandles, StepError> {
        let mut handles = RootfsHandles::default();
        for (index, mount) in self.mounts.iter().enumerate() {
            let mapped_here = mount.idmap.is_some() && !self.asks_for_sources();
            handles.sources.push(mapped_here.then(|| self.open_source(index)).transpose()?);
        }
        Ok(handles)
    }

    /// Whether the child asks its parent for what it can't open or map itself. What is cloned in the host's mount namespace
    /// has no locked flags: a container with CAP_SYS_ADMIN in its user namespace would clear the host's read-only and
    /// nosuid. So the parent opens it in the container's mount namespace, which an unprivileged parent can't enter.
    #[must_use]
    pub fn asks_for_sources(&self) -> bool {
        self.user_namespace && !self.rootless
    }

    /// The mapping of mount `index` makes it useless without it.
    #[must_use]
    pub fn must_have_source(&self, index: usize) -> bool {
        self.mounts.get(index).is_some_and(|mount| mount.idmap.is_some())
    }

    /// Opens the source of mount `index` in the current mount namespace: a detached clone, mapped where the plan says so.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn open_source(&self, index: usize) -> Result<OwnedFd, StepError> {
        let mount = self.mounts.get(index).filter(|mount| mount.kind == MountKind::Bind);
        let mount =
            mount.ok_or_else(|| StepError::why("open bind source", index, "there is no such bind"))?;
        match &mount.idmap {
            Some(idmap) => bind::open_idmapped(mount, idmap),
            None => tree::clone_path(&mount.source, mount.options.flags.contains(MountFlags::REC))
                .map_err(|errno| StepError::os("open bind source", mount.source.display(), errno)),
        }
    }
}

/// Sets the propagation, makes the mounts and `/dev`, in the container's namespaces, before the root changes.
///
/// # Errors
/// The first mount or node that the kernel or our own checks refuse.
pub fn prepare(
    plan: &RootfsPlan,
    handles: &mut RootfsHandles,
    ask: &mut AskForSource<'_>,
) -> Result<(), StepError> {
    let tree = root::prepare_root(plan, handles.root.take())?;
    for (index, mount) in plan.mounts.iter().enumerate() {
        let opened = handles.sources.get_mut(index).and_then(Option::take);
        let asks = plan.asks_for_sources();
        let mut ask = || if asks { ask(index) } else { Ok(None) };
        let opened = Opened { here: opened, ask: &mut ask };
        let fd = filesystem::mount_one(&tree, plan, mount, opened).map_err(|error| {
            error.inside(format_args!(
                "error mounting {:?} to rootfs at {:?}",
                mount.source, mount.destination
            ))
        })?;
        if mount.readonly_late() && mount.options.flags.contains(MountFlags::RDONLY) {
            handles.late.push((fd, mount.destination.clone()));
        }
    }
    if plan.devices.enabled {
        dev::make_devices(&tree, &plan.devices)?;
    }
    handles.tree = Some(tree);
    Ok(())
}

/// Makes the root filesystem the working directory, which createContainer hooks find themselves in (runc).
///
/// # Errors
/// The kernel's.
pub fn enter(handles: &mut RootfsHandles) -> Result<(), StepError> {
    let root = handles.tree()?.root.fd();
    rustix::process::fchdir(root).map_err(|e| StepError::os("chdir to root filesystem", "", e))
}

/// Makes the root filesystem the root: pivot_root, or move and chroot.
///
/// # Errors
/// The kernel's refusal.
pub fn pivot(plan: &RootfsPlan, handles: &mut RootfsHandles) -> Result<(), StepError> {
    let tree = handles.tree()?;
    root::change_root(plan, tree)?;
    if plan.devices.enabled {
        dev::reopen_null(tree)?;
    }
    if let Some(cwd) = plan.cwd.as_ref().filter(|cwd| cwd.as_os_str() != "/") {
        tree.root
            .make_directory(cwd)
            .map_err(|e| StepError::os("make working directory", cwd.display(), e))?;
    }
    Ok(())
}

/// Binds the terminal's slave end `pts` onto `/dev/console`, after `pivot`.
///
/// # Errors
/// `pts` is not on a real devpts, or the bind is refused.
pub fn bind_console(
    _plan: &RootfsPlan,
    handles: &mut RootfsHandles,
    pts: BorrowedFd<'_>,
) -> Result<(), StepError> {
    dev::bind_console(handles.tree()?, pts)
}

/// Makes late read-only mounts, the read-only root, read-only and masked paths; sysctls are written before.
///
/// # Errors
/// The kernel's refusal, or a `/dev/null` that is not the null device.
pub fn finish(plan: &RootfsPlan, handles: &mut RootfsHandles) -> Result<(), StepError> {
    if !plan.mount_namespace {
        return Ok(());
    }
    let late = std::mem::take(&mut handles.late);
    let tree = handles.tree()?;
    for (mount, destination) in &late {
        set_readonly_when_idle(tree, mount.as_fd())
            .map_err(|e| StepError::os("remount read-only", destination.display(), e))?;
    }
    if plan.readonly {
        tree.set_readonly(tree.root.fd()).map_err(|e| StepError::os("remount read-only", "/", e))?;
    }
    restrict::make_readonly(tree, &plan.readonly_paths)?;
    restrict::mask(tree, &plan.masked_paths, plan.mount_label.as_deref())?;
    handles.tree = None;
    Ok(())
}

/// Makes a mount read-only; what a hook left behind may still have a file of it open for writing, which is waited for.
fn set_readonly_when_idle(tree: &Tree, mount: BorrowedFd<'_>) -> Result<(), Errno> {
    const ROUNDS: usize = 50;
    let round = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    for _ in 0..ROUNDS {
        match tree.set_readonly(mount) {
            Err(Errno::BUSY) => drop(rustix::event::poll(&mut [], Some(&round))),
            answer => return answer,
        }
    }
    tree.set_readonly(mount)
}
