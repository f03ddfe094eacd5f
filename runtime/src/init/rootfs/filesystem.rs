//! One mount of the plan: which way its kind goes, then what all kinds have in common.

use super::Opened;
use super::bind::{check_target, mount_bind};
use super::cgroup::mount_cgroup;
use super::copy_up::copy_directory;
use super::path::{Found, file_type, open_nofollow};
use super::tree::{Filesystem, Refusal, Target, Tree, attach};
use crate::init::StepError;
use crate::plan::RootfsPlan;
use crate::plan::mount_options::MS_REMOUNT;
use crate::plan::mounts::{MountKind, MountPlan};
use crate::sys::mount::{SetAttributes, mount_setattr};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Makes `mount`; `opened` is what the parent opened for it. Returns the mount's handle.
pub(super) fn mount_one(
    tree: &Tree,
    plan: &RootfsPlan,
    mount: &MountPlan,
    opened: Opened<'_>,
) -> Result<OwnedFd, StepError> {
    let fd = match &mount.kind {
        MountKind::Bind => mount_bind(tree, mount, opened, plan.propagation)?,
        // Both do the propagation of all that they mount.
        MountKind::Cgroup => return mount_cgroup(tree, plan, mount),
        MountKind::Proc | MountKind::Sysfs => mount_pseudo(tree, plan, mount)?,
        MountKind::Tmpfs => mount_tmpfs(tree, plan, mount)?,
        MountKind::Mqueue => mount_other(tree, mount, None)?,
        MountKind::Other(_) => mount_other(tree, mount, plan.mount_label.as_deref())?,
    };
    let object = mount.destination.display();
    for flags in &mount.options.propagation {
        tree.propagate(fd.as_fd(), *flags).map_err(|e| StepError::os("change propagation of", &object, e))?;
    }
    if let Some(attributes) = mount.options.tree {
        let (set, clear) = (attributes.set.bits(), attributes.clear.bits());
        let change = SetAttributes { set, clear, recursive: true, ..SetAttributes::default() };
        mount_setattr(fd.as_fd(), &change)
            .map_err(|e| StepError::os("set recursive attributes of", &object, e))?;
    }
    if mount.kind == MountKind::Mqueue {
        label(tree, &fd, plan).map_err(|e| StepError::os("set label of", &object, e))?;
    }
    Ok(fd)
}

fn describe<'a>(mount: &'a MountPlan, label: Option<&'a str>) -> Filesystem<'a> {
    let mut flags = mount.options.flags;
    if mount.readonly_late() {
        flags -= MountFlags::RDONLY;
    }
    let data = mount.options.data.clone();
    Filesystem { fstype: mount.fstype(), source: mount.source.as_os_str(), flags, data, label }
}

fn object(mount: &MountPlan) -> String {
    format!("{} on {}", mount.fstype(), mount.destination.display())
}

fn no_mountpoint(mount: &MountPlan) -> impl Fn(Errno) -> StepError + '_ {
    |errno| StepError::os("create mountpoint for", object(mount), errno)
}

/// procfs and sysfs: only on an ordinary directory of that very name, never through a link.
fn mount_pseudo(tree: &Tree, plan: &RootfsPlan, mount: &MountPlan) -> Result<OwnedFd, StepError> {
    let target = ordinary_directory(tree, mount)?;
    // A fresh procfs is what may be on /proc.
    if !(mount.kind == MountKind::Proc && target.path == Path::new("/proc")) {
        check_target(&target, None)?;
    }
    let refusal = match tree.mount(&describe(mount, None), &target) {
        Ok(fd) => return Ok(fd),
        Err(refusal) => refusal,
    };
    // A user namespace that does not own the network namespace may not mount sysfs: the host's is bound instead.
    let unprivileged = plan.user_namespace || plan.rootless;
    if mount.kind == MountKind::Sysfs && refusal.errno == Errno::PERM && unprivileged {
        return bind_sysfs(tree, mount, &target)
            .map_err(|e| StepError::os("bind mount /sys for", object(mount), e));
    }
    let error = refusal.at("mount", object(mount));
    Err(if error.as_errno() == Some(Errno::PERM) && unprivileged {
        error.hint("a user namespace needs namespaces of its own (pid for proc, network for sysfs)")
    } else {
        error
    })
}

fn ordinary_directory(tree: &Tree, mount: &MountPlan) -> Result<Target, StepError> {
    let refused = no_mountpoint(mount);
    if let Ok(Found { fd, path: Some(path) }) = tree.root.find(&mount.destination)
        && file_type(&fd).map_err(&refused)? == FileType::Directory
    {
        return Ok(Target { fd, path });
    }
    let (parent, name) = tree.root.make_parent(&mount.destination).map_err(&refused)?;
    match rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        // Also where the filesystem is read-only but the directory is there.
        Err(errno) if open_nofollow(&parent, &name).is_err() => return Err(refused(errno)),
        Err(_) => {}
    }
    let fd = open_nofollow(&parent, &name).map_err(&refused)?;
    if file_type(&fd).map_err(&refused)? != FileType::Directory {
        let cause = format!("filesystem {:?} must be mounted on ordinary directory", mount.fstype());
        return Err(StepError::why("mount", object(mount), cause));
    }
    tree.target(fd).map_err(refused)
}

fn bind_sysfs(tree: &Tree, mount: &MountPlan, target: &Target) -> Result<OwnedFd, Errno> {
    let source = rustix::fs::open("/sys", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let fd = tree.bind(source.as_fd(), true, target)?;
    let flags = mount.options.flags | super::tree::current_flags(fd.as_fd())?;
    tree.set_flags(fd.as_fd(), flags)?;
    Ok(fd)
}

fn mount_tmpfs(tree: &Tree, plan: &RootfsPlan, mount: &MountPlan) -> Result<OwnedFd, StepError> {
    let refused = no_mountpoint(mount);
    let mut fs = describe(mount, plan.mount_label.as_deref());
    let named = fs.data.iter().flat_map(|data| data.split(',')).any(|option| option.starts_with("mode="));
    let covered = if named { None } else { tree.root.open(&mount.destination).ok() };
    // The mode of what is covered, unless the options name another one.
    if let Some(existing) = &covered {
        let mode = rustix::fs::fstat(existing).map_err(&refused)?.st_mode & 0o7777;
        fs.data.insert(0, format!("mode={mode:04o}"));
    }
    let target = tree.directory_target(&mount.destination).map_err(&refused)?;
    check_target(&target, None)?;
    if !mount.options.copy_up {
        return tree.mount(&fs, &target).map_err(|r| r.at("mount", object(mount)));
    }
    copy_up(tree, &fs, &target).map_err(|r| match r {
        CopyUp::Mount(refusal) => refusal.at("mount", object(mount)),
        CopyUp::Copy(mut error) => {
            error.object = format!("{}{}", mount.destination.display(), error.object);
            error
        }
    })
}

enum CopyUp {
    Mount(Refusal),
    Copy(StepError),
}

fn copy_up(tree: &Tree, fs: &Filesystem<'_>, target: &Target) -> Result<OwnedFd, CopyUp> {
    if let Some(mount) = tree.detached(fs).map_err(CopyUp::Mount)? {
        copy_directory(target.fd.as_fd(), mount.as_fd()).map_err(CopyUp::Copy)?;
        attach(&mount, &target.fd).map_err(|e| CopyUp::Mount(e.into()))?;
        return Ok(mount);
    }
    // The target's handle is still the covered directory.
    let mount = tree.mount(fs, target).map_err(CopyUp::Mount)?;
    copy_directory(target.fd.as_fd(), mount.as_fd()).map_err(CopyUp::Copy)?;
    Ok(mount)
}

fn mount_other(tree: &Tree, mount: &MountPlan, label: Option<&str>) -> Result<OwnedFd, StepError> {
    let target = tree.directory_target(&mount.destination).map_err(no_mountpoint(mount))?;
    if !mount.options.flags.contains(MS_REMOUNT) {
        check_target(&target, None)?;
    }
    tree.mount(&describe(mount, label), &target).map_err(|r| r.at("mount", object(mount)))
}

/// mqueue takes no `context` option: its root gets the label.
fn label(tree: &Tree, fd: &OwnedFd, plan: &RootfsPlan) -> Result<(), Errno> {
    let Some(label) = plan.mount_label.as_deref() else { return Ok(()) };
    let flags = rustix::fs::XattrFlags::empty();
    tree.procfs
        .with_path(fd.as_fd(), |path| rustix::fs::setxattr(path, "security.selinux", label.as_bytes(), flags))
}
