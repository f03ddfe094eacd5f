//! The root filesystem's plan: everything that happens to mounts between clone and exec, as data.

use super::devices::{DevicesPlan, plan_devices};
use super::mount_options::root_propagation;
use super::mounts::{Context, IdMapSource, MountKind, MountPlan, clean, plan_mount, ranges};
use super::{HostFacts, Problem, V1Hierarchy};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::mount::MountPropagationFlags;
use std::path::{Path, PathBuf};

/// Everything that is done to the container's file system tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootfsPlan {
    /// The root filesystem on the host, absolute.
    pub root: PathBuf,
    /// The root is made read-only at the end.
    pub readonly: bool,
    /// `linux.rootfsPropagation`, if given.
    pub propagation: Option<MountPropagationFlags>,
    /// The container has a mount namespace of its own (new or joined); else it is only chrooted.
    pub mount_namespace: bool,
    /// The container has a user namespace: binds may need a source opened by the parent, nodes are bound.
    pub user_namespace: bool,
    /// The container has a cgroup namespace: cgroups are mounted, not bound.
    pub cgroup_namespace: bool,
    /// The host's hierarchies of cgroup v1; `None` where `/sys/fs/cgroup` is a cgroup2 mount.
    pub cgroup_v1: Option<Vec<V1Hierarchy>>,
    /// Runs without privilege over the initial user namespace.
    pub rootless: bool,
    /// The mounts, in the specification's order.
    pub mounts: Vec<MountPlan>,
    /// `/dev`.
    pub devices: DevicesPlan,
    /// Paths that are covered.
    pub masked_paths: Vec<PathBuf>,
    /// Paths that are made read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// SELinux context of the mounts.
    pub mount_label: Option<String>,
    /// The working directory of the process, made where missing.
    pub cwd: Option<PathBuf>,
    /// The container's group below `/sys/fs/cgroup` on version 2, for where only a bind is allowed. Set by the caller.
    pub cgroup2_path: Option<PathBuf>,
    /// `--no-pivot`: move and chroot instead of pivot_root. Set by the caller.
    pub no_pivot: bool,
}

/// Plans the root filesystem of `spec`.
///
/// # Errors
/// Everything that is wrong with mounts, devices, propagation and paths, at once.
pub fn plan_rootfs(spec: &Spec, bundle: &Path, facts: &HostFacts) -> Result<RootfsPlan, Vec<Problem>> {
    let mut problems = Vec::new();
    let linux = spec.linux().as_ref();
    let root = spec.root().as_ref();
    if root.is_none() {
        problems.push(Problem::new("root", "root must be specified"));
    }
    let root_path = root.map(|r| clean(&bundle.join(r.path()))).unwrap_or_default();
    let user_namespace = has_namespace(spec, LinuxNamespaceType::User);
    let context = Context { bundle, root: &root_path, facts, container_idmap: container_idmap(spec) };
    let mounts: Vec<MountPlan> = spec
        .mounts()
        .iter()
        .flatten()
        .enumerate()
        .map(|(i, mount)| plan_mount(i, mount, &context, &mut problems))
        .collect();
    let dev_is_bound = mounts.iter().any(|m| m.kind == MountKind::Bind && m.destination == Path::new("/dev"));
    let devices = plan_devices(spec, facts, !dev_is_bound, user_namespace, &mut problems);
    let plan = RootfsPlan {
        readonly: root.and_then(|r| r.readonly()).unwrap_or(false),
        root: root_path,
        propagation: propagation(spec, &mut problems),
        mount_namespace: has_namespace(spec, LinuxNamespaceType::Mount),
        user_namespace,
        cgroup_namespace: has_namespace(spec, LinuxNamespaceType::Cgroup),
        cgroup_v1: (!facts.cgroup_unified).then(|| facts.cgroup_v1.clone()),
        rootless: facts.is_rootless(),
        mounts,
        devices,
        masked_paths: paths(linux.and_then(|l| l.masked_paths().as_deref())),
        readonly_paths: paths(linux.and_then(|l| l.readonly_paths().as_deref())),
        mount_label: linux.and_then(|l| l.mount_label().clone()).filter(|l| !l.is_empty()),
        cwd: spec.process().as_ref().map(|p| clean(p.cwd())),
        cgroup2_path: None,
        no_pivot: false,
    };
    check_restrictions(&plan, &mut problems);
    if problems.is_empty() { Ok(plan) } else { Err(problems) }
}

fn has_namespace(spec: &Spec, wanted: LinuxNamespaceType) -> bool {
    spec.linux()
        .as_ref()
        .and_then(|l| l.namespaces().as_deref())
        .unwrap_or(&[])
        .iter()
        .any(|n| n.typ() == wanted)
}

/// The mapping that a mount takes which says `idmap` but brings none: the container's own.
fn container_idmap(spec: &Spec) -> Option<IdMapSource> {
    let linux = spec.linux().as_ref()?;
    let user = linux.namespaces().iter().flatten().find(|n| n.typ() == LinuxNamespaceType::User)?;
    if let Some(path) = user.path().as_ref().filter(|p| !p.as_os_str().is_empty()) {
        return Some(IdMapSource::Namespace(path.clone()));
    }
    Some(IdMapSource::Mappings(ranges(linux.uid_mappings()), ranges(linux.gid_mappings())))
}

fn propagation(spec: &Spec, problems: &mut Vec<Problem>) -> Option<MountPropagationFlags> {
    let word = spec.linux().as_ref()?.rootfs_propagation().as_deref()?;
    if word.is_empty() {
        return None;
    }
    let flags = root_propagation(word);
    if flags.is_none() {
        let message = format!("rootfsPropagation={word} is not supported");
        problems.push(Problem::new("linux.rootfsPropagation", message));
    }
    flags
}

/// Without a mount namespace these would change the host.
fn check_restrictions(plan: &RootfsPlan, problems: &mut Vec<Problem>) {
    if plan.mount_namespace {
        return;
    }
    if !plan.masked_paths.is_empty() || !plan.readonly_paths.is_empty() {
        let message = "unable to restrict sys entries without a private MNT namespace";
        problems.push(Problem::new("linux.namespaces", message));
    }
    if plan.readonly || !plan.mounts.is_empty() {
        let message = "root.readonly and mounts need a private MNT namespace";
        problems.push(Problem::new("linux.namespaces", message));
    }
}

fn paths(list: Option<&[String]>) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = Vec::new();
    for path in list.unwrap_or(&[]).iter().map(|p| clean(Path::new(p))) {
        if !out.contains(&path) {
            out.push(path);
        }
    }
    out
}

#[cfg(test)]
#[path = "rootfs_tests.rs"]
mod tests;
