//! The container's view of cgroups: version 2 as one mount, version 1 as a tmpfs with one mount a hierarchy.
//!
//! With a cgroup namespace the hierarchies are mounted and show the container's group as their root; without, the
//! container's own directories are bound. This runs after the process has joined its groups.

use super::bind::check_target;
use super::tree::{Filesystem, Refusal, Target, Tree, attach_at, clone_path};
use crate::init::StepError;
use crate::plan::mounts::MountPlan;
use crate::plan::{RootfsPlan, V1Hierarchy};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What every mount of cgroup v1 has.
const FLAGS: MountFlags = MountFlags::NOEXEC.union(MountFlags::NOSUID).union(MountFlags::NODEV);

/// Mounts cgroups as `mount` asks; returns the mount at its destination.
pub(super) fn mount_cgroup(tree: &Tree, plan: &RootfsPlan, mount: &MountPlan) -> Result<OwnedFd, StepError> {
    let target = tree
        .directory_target(&mount.destination)
        .map_err(|e| StepError::os("create mountpoint for", mount.destination.display(), e))?;
    check_target(&target, None)?;
    match &plan.cgroup_v1 {
        None => mount_v2(tree, plan, mount, &target),
        Some(hierarchies) => mount_v1(tree, plan, mount, &target, hierarchies),
    }
}

fn mount_v2(
    tree: &Tree,
    plan: &RootfsPlan,
    mount: &MountPlan,
    target: &Target,
) -> Result<OwnedFd, StepError> {
    let fs = Filesystem {
        fstype: "cgroup2",
        source: mount.source.as_os_str(),
        flags: mount.options.flags,
        data: mount.options.data.clone(),
        label: None,
    };
    let object = format!("cgroup2 on {}", mount.destination.display());
    let refusal = match tree.mount(&fs, target) {
        Ok(fd) => return Ok(fd),
        Err(refusal) => refusal,
    };
    // A user namespace without a cgroup namespace of its own may not mount cgroup2 (EPERM), nor may a second mount
    // change the options of the first (EBUSY): then the host's is bound.
    if !matches!(refusal.errno, Errno::PERM | Errno::BUSY) {
        return Err(refusal.at("mount", object));
    }
    let own = plan.cgroup2_path.as_deref().filter(|_| plan.cgroup_namespace);
    let source = own.unwrap_or(Path::new("/sys/fs/cgroup"));
    match bind(tree, source, mount.options.flags, target) {
        // Rootless outside the mount namespace of its cgroup: cover it, so that it is read-only at least.
        Err(Errno::NOENT) if plan.rootless => super::restrict::mask_directory(tree, target, None),
        Err(errno) => Err(StepError::os("bind mount", object, errno)),
        Ok(fd) => Ok(fd),
    }
}

fn mount_v1(
    tree: &Tree,
    plan: &RootfsPlan,
    mount: &MountPlan,
    target: &Target,
    hierarchies: &[V1Hierarchy],
) -> Result<OwnedFd, StepError> {
    let fs = Filesystem {
        fstype: "tmpfs",
        source: OsStr::new("tmpfs"),
        flags: FLAGS,
        data: vec!["mode=755".to_owned()],
        label: plan.mount_label.as_deref(),
    };
    let top = tree.mount(&fs, target).map_err(|r| r.at("mount tmpfs on", mount.destination.display()))?;
    for flags in &mount.options.propagation {
        propagate(tree, &top, *flags, mount)?;
    }
    let own = if plan.cgroup_namespace { Vec::new() } else { own_cgroups()? };
    for hierarchy in hierarchies {
        let name = hierarchy.mountpoint.file_name().unwrap_or(OsStr::new("cgroup"));
        let slot = Slot { top: &top, name, path: target.path.join(name) };
        slot.make().map_err(|e| StepError::os("create mountpoint for", slot.path.display(), e))?;
        if plan.cgroup_namespace {
            mount_hierarchy(tree, hierarchy, mount, &slot)?;
        } else {
            bind_hierarchy(tree, hierarchy, &own, mount, &slot)?;
        }
        link_controllers(&top, hierarchy, name)
            .map_err(|e| StepError::os("link controllers of", slot.path.display(), e))?;
    }
    // The tmpfs itself stays writable also with `ro`, as under runc: services make directories for their own mounts.
    Ok(top)
}

fn propagate(
    tree: &Tree,
    fd: &OwnedFd,
    flags: MountPropagationFlags,
    mount: &MountPlan,
) -> Result<(), StepError> {
    tree.propagate(fd.as_fd(), flags)
        .map_err(|e| StepError::os("change propagation of", mount.destination.display(), e))
}

/// The directory of a hierarchy on the tmpfs that we have just made: nobody else knows it, no path is resolved.
struct Slot<'a> {
    top: &'a OwnedFd,
    name: &'a OsStr,
    /// Its path in the container.
    path: PathBuf,
}

impl Slot<'_> {
    fn make(&self) -> Result<(), Errno> {
        rustix::fs::mkdirat(self.top, self.name, Mode::from_raw_mode(0o755))
    }

    fn attach(&self, mount: &OwnedFd) -> Result<(), Errno> {
        attach_at(mount, self.top, self.name)
    }

    /// As a target, for mount(2).
    fn target(&self) -> Result<Target, Errno> {
        Ok(Target { fd: super::path::open_nofollow(self.top, self.name)?, path: self.path.clone() })
    }
}

fn mount_hierarchy(
    tree: &Tree,
    hierarchy: &V1Hierarchy,
    mount: &MountPlan,
    slot: &Slot<'_>,
) -> Result<(), StepError> {
    // runc shows `systemd` as the source of that hierarchy and `cgroup` for all others.
    let named_systemd = hierarchy.controllers.iter().any(|c| c == "name=systemd");
    let fs = Filesystem {
        fstype: "cgroup",
        source: OsStr::new(if named_systemd { "systemd" } else { "cgroup" }),
        flags: FLAGS | (mount.options.flags & MountFlags::RDONLY),
        data: hierarchy.controllers.clone(),
        label: None,
    };
    let mounted = match tree.detached(&fs) {
        Ok(Some(mount)) => slot.attach(&mount).map_err(Refusal::from),
        Ok(None) => {
            slot.target().map_err(Refusal::from).and_then(|target| tree.mount(&fs, &target).map(drop))
        }
        Err(refusal) => Err(refusal),
    };
    mounted.map_err(|r| r.at("mount cgroup on", slot.path.display()))
}

fn bind_hierarchy(
    tree: &Tree,
    hierarchy: &V1Hierarchy,
    own: &[(Vec<String>, PathBuf)],
    mount: &MountPlan,
    slot: &Slot<'_>,
) -> Result<(), StepError> {
    let Some((_, group)) = own.iter().find(|(controllers, _)| same_set(controllers, &hierarchy.controllers))
    else {
        return Ok(());
    };
    // In a container the host's mount shows only a part of the hierarchy.
    let below = group.strip_prefix(&hierarchy.root).or_else(|_| group.strip_prefix("/")).unwrap_or(group);
    let source = hierarchy.mountpoint.join(below);
    let flags = mount.options.flags | MountFlags::REC;
    let bound = if tree.api.open_tree && tree.api.setattr {
        // With its flags before it can be seen.
        clone_path(&source, true).and_then(|fd| {
            flag_bind(tree, &fd, flags)?;
            slot.attach(&fd)?;
            Ok(fd)
        })
    } else {
        slot.target().and_then(|target| bind(tree, &source, flags, &target))
    };
    let fd = bound.map_err(|e| {
        StepError::os("bind mount", format!("{} on {}", source.display(), slot.path.display()), e)
    })?;
    for flags in &mount.options.propagation {
        propagate(tree, &fd, *flags, mount)?;
    }
    Ok(())
}

fn bind(tree: &Tree, source: &Path, flags: MountFlags, target: &Target) -> Result<OwnedFd, Errno> {
    let from = rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let fd = tree.bind(from.as_fd(), flags.contains(MountFlags::REC), target)?;
    flag_bind(tree, &fd, flags)?;
    Ok(fd)
}

/// What the mount has may be locked: then it is kept.
fn flag_bind(tree: &Tree, fd: &OwnedFd, flags: MountFlags) -> Result<(), Errno> {
    let named = flags - (MountFlags::BIND | MountFlags::REC);
    if !named.is_empty() && tree.set_flags(fd.as_fd(), named).is_err() {
        tree.set_flags(fd.as_fd(), named | super::tree::current_flags(fd.as_fd())?)?;
    }
    Ok(())
}

/// Controllers mounted together get a link each: `cpu` → `cpu,cpuacct`.
fn link_controllers(top: &OwnedFd, hierarchy: &V1Hierarchy, name: &OsStr) -> Result<(), Errno> {
    let Some(text) = name.to_str().filter(|n| n.contains(',')) else { return Ok(()) };
    debug_assert!(!hierarchy.controllers.is_empty());
    for controller in text.split(',') {
        match rustix::fs::symlinkat(name, top, controller) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn own_cgroups() -> Result<Vec<(Vec<String>, PathBuf)>, StepError> {
    let path = "/proc/self/cgroup";
    let text = crate::small_file::read_text(path).map_err(|e| StepError::io("read", path, &e))?;
    Ok(parse_cgroups(&text))
}

fn parse_cgroups(text: &str) -> Vec<(Vec<String>, PathBuf)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            Some((controllers.split(',').map(str::to_owned).collect(), PathBuf::from(path)))
        })
        .collect()
}

fn same_set(a: &[String], b: &[String]) -> bool {
    a.len() == b.len() && a.iter().all(|c| b.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_groups_are_found_by_controllers_in_any_order() {
        let own = parse_cgroups("4:cpuacct,cpu:/a:b\n1:name=systemd:/c\n0::/d\n");
        assert_eq!(own[0].1, Path::new("/a:b"));
        assert!(same_set(&own[0].0, &["cpu".to_owned(), "cpuacct".to_owned()]));
        assert!(!same_set(&own[1].0, &["cpu".to_owned()]));
    }
}
