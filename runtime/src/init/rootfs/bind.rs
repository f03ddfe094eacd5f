//! Bind mounts: where the source comes from, which flags the result has, whether its ids are mapped.

use super::Opened;
use super::procfs::is_procfs;
use super::tree::{Target, Tree, attach, clone_path, current_flags};
use crate::init::StepError;
use crate::plan::mount_options::MS_REMOUNT;
use crate::plan::mounts::{IdMap, IdMapSource, IdRange, MountPlan, ProcRule, proc_rule};
use crate::sys::mount::{SetAttributes, mount_setattr};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountFlags, MountPropagationFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// All flags about access times.
pub(super) const ATIME_FLAGS: MountFlags = MountFlags::NOATIME
    .union(MountFlags::RELATIME)
    .union(MountFlags::STRICTATIME)
    .union(MountFlags::NODIRATIME);

/// Flags that the kernel locks on mounts inherited from another user namespace (`MNT_LOCK_*`).
const LOCKABLE: MountFlags = MountFlags::RDONLY
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC)
    .union(MountFlags::NOSUID)
    .union(ATIME_FLAGS);

/// The source of a bind.
enum Source {
    /// A detached tree, to be attached.
    Detached(OwnedFd),
    /// A plain handle, for mount(2).
    Handle(OwnedFd),
}

impl Source {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Detached(fd) | Self::Handle(fd) => fd.as_fd(),
        }
    }
}

/// Makes the bind mount; `opened` is what the parent opened for it. Returns the mount.
pub(super) fn mount_bind(
    tree: &Tree,
    plan: &MountPlan,
    opened: Opened<'_>,
    root_propagation: Option<MountPropagationFlags>,
) -> Result<OwnedFd, StepError> {
    let object = format!("{} on {}", plan.source.display(), plan.destination.display());
    let refused = |errno| StepError::os("bind mount", &object, errno);
    let source = open_source(tree, plan, opened, root_propagation)?;
    let target = tree
        .bind_target(&plan.destination, source.fd())
        .map_err(|errno| StepError::os("create mountpoint for", plan.destination.display(), errno))?;
    check_target(&target, Some(source.fd()))?;
    let recursive = plan.options.flags.contains(MountFlags::REC);
    let mount = match source {
        Source::Detached(mount) => {
            // A flag that is set before the mount is attached can't be missing for a moment.
            if tree.api.setattr {
                apply_flags(tree, plan, mount.as_fd(), &object)?;
            }
            attach(&mount, &target.fd).map_err(refused)?;
            mount
        }
        Source::Handle(from) => tree.bind(from.as_fd(), recursive, &target).map_err(refused)?,
    };
    if !(tree.api.setattr && tree.api.open_tree) {
        apply_flags(tree, plan, mount.as_fd(), &object)?;
    }
    Ok(mount)
}

/// Refuses mounts on the root, and on `/proc` and below it what is no procfs (CVE-2019-16884, CVE-2025-52881).
pub(super) fn check_target(target: &Target, source: Option<BorrowedFd<'_>>) -> Result<(), StepError> {
    let path = target.path.display();
    if target.path.as_os_str() == "/" {
        return Err(StepError::why("mount on", path, "mountpoint is on the top of rootfs"));
    }
    match proc_rule(&target.path) {
        ProcRule::Allowed => Ok(()),
        ProcRule::OnlyProcfs if source.is_some_and(is_procfs) => Ok(()),
        ProcRule::OnlyProcfs => {
            Err(StepError::why("mount on", path, "cannot be mounted because it is not of type proc"))
        }
        ProcRule::Refused => {
            Err(StepError::why("mount on", path, "cannot be mounted because it is inside /proc"))
        }
    }
}

/// Opens the source in the container's mount namespace, where it has the right propagation and locked flags. What can't
/// be reached from the user namespace, or is idmapped, the parent opens, in the same mount namespace if it can enter it.
fn open_source(
    tree: &Tree,
    plan: &MountPlan,
    opened: Opened<'_>,
    root_propagation: Option<MountPropagationFlags>,
) -> Result<Source, StepError> {
    let own = || {
        if tree.api.open_tree && !plan.options.flags.contains(MS_REMOUNT) {
            clone_path(&plan.source, plan.options.flags.contains(MountFlags::REC)).map(Source::Detached)
        } else {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            rustix::fs::open(&plan.source, flags, Mode::empty()).map(Source::Handle)
        }
    };
    let refused = |errno| StepError::os("open bind source", plan.source.display(), errno);
    if let Some(fd) = opened.here {
        return adopt(tree, fd, root_propagation).map_err(refused);
    }
    let mut asked = |errno| match (opened.ask)()? {
        Some(fd) => Ok(Source::Detached(fd)),
        // What is wrong is said by our own attempt.
        None => Err(refused(errno)),
    };
    if plan.idmap.is_some() { asked(Errno::OPNOTSUPP) } else { own().or_else(asked) }
}

/// Makes a tree that was cloned in the host's mount namespace look as if it had been cloned in the container's: its
/// mounts get the host's events, and send none back.
fn adopt(tree: &Tree, fd: OwnedFd, root_propagation: Option<MountPropagationFlags>) -> Result<Source, Errno> {
    tree.propagate(fd.as_fd(), MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    if let Some(flags) = root_propagation.filter(|f| !f.contains(MountPropagationFlags::DOWNSTREAM)) {
        tree.propagate(fd.as_fd(), flags | MountPropagationFlags::REC)?;
    }
    Ok(Source::Detached(fd))
}

/// Applies the flags of the options to the new mount; like runc, nothing where none was named.
fn apply_flags(tree: &Tree, plan: &MountPlan, mount: BorrowedFd<'_>, object: &str) -> Result<(), StepError> {
    let named = plan.options.flags - (MountFlags::BIND | MountFlags::REC | MS_REMOUNT);
    if named.is_empty() && plan.options.cleared.is_empty() {
        return Ok(());
    }
    let Err(errno) = tree.set_flags(mount, named) else { return Ok(()) };
    // The source may have locked flags: they stay, unless that is not what was asked for.
    let refused = |what: &str| StepError::os("set flags of bind mount", object, errno).because(what);
    let current = current_flags(mount).map_err(|_| refused("statfs of the mount"))?;
    if (current & plan.options.cleared).intersects(LOCKABLE) {
        return Err(refused("cannot clear locked flags"));
    }
    if named.intersects(ATIME_FLAGS) && named & ATIME_FLAGS != current & ATIME_FLAGS {
        return Err(refused("cannot change locked atime flags"));
    }
    tree.set_flags(mount, named | (current & LOCKABLE)).map_err(|_| refused("locked flags re-applied"))
}

/// Opens the source of an idmapped mount, in the parent: a detached clone with the mapping.
pub(super) fn open_idmapped(plan: &MountPlan, idmap: &IdMap) -> Result<OwnedFd, StepError> {
    let object = plan.source.display();
    let namespace = match &idmap.source {
        IdMapSource::Namespace(path) => {
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| StepError::os("open user namespace", path.display(), e))?
        }
        IdMapSource::Mappings(uids, gids) => {
            crate::sys::user_namespace::create(&map_text(uids), &map_text(gids))
                .map_err(|e| StepError::io("make user namespace for id-mapping of", &object, &e))?
        }
    };
    let mount = clone_path(&plan.source, plan.options.flags.contains(MountFlags::REC))
        .map_err(|e| StepError::os("open bind source", &object, e))?;
    let change = SetAttributes {
        set: MountAttrFlags::MOUNT_ATTR_IDMAP.bits(),
        user_namespace: Some(namespace.as_fd()),
        recursive: idmap.recursive,
        ..SetAttributes::default()
    };
    mount_setattr(mount.as_fd(), &change).map_err(|errno| {
        let error = StepError::os("set MOUNT_ATTR_IDMAP on", &object, errno);
        if errno == Errno::INVAL {
            return error.hint("maybe the filesystem used doesn't support idmap mounts on this kernel?");
        }
        error
    })?;
    Ok(mount)
}

fn map_text(ranges: &[IdRange]) -> String {
    ranges.iter().map(|r| format!("{} {} {}\n", r.container, r.host, r.size)).collect()
}
