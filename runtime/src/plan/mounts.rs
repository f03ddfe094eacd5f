//! One planned mount: where, what kind, with which options, and whether its ids are mapped.
//!
//! Everything that can be refused without asking the kernel is refused here, in runc's words.

use super::mount_options::MountOptions;
use super::{HostFacts, Problem};
use oci_spec::runtime::{LinuxIdMapping, Mount};
use rustix::mount::MountFlags;
use std::path::{Component, Path, PathBuf};

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A file or directory of the host.
    Bind,
    /// procfs: only on a real directory.
    Proc,
    /// sysfs: only on a real directory.
    Sysfs,
    /// POSIX message queues.
    Mqueue,
    /// tmpfs: takes over the mode of what it covers.
    Tmpfs,
    /// The container's cgroups, version 1 or 2.
    Cgroup,
    /// Any other filesystem of this name.
    Other(String),
}

/// Where the id mapping of a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdMapSource {
    /// These mappings, for which a user namespace is made: (uid, gid).
    Mappings(Vec<IdRange>, Vec<IdRange>),
    /// The existing user namespace at this path.
    Namespace(PathBuf),
}

/// A line of uid_map or gid_map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id on the mount.
    pub container: u32,
    /// First id on the disk.
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// The id mapping of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    /// Also of the mounts below.
    pub recursive: bool,
    /// Which mapping.
    pub source: IdMapSource,
}

/// One mount, ready to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPlan {
    /// Path in the container, absolute and lexically clean.
    pub destination: PathBuf,
    /// For a bind the absolute host path, else the name that mountinfo shows.
    pub source: PathBuf,
    /// What is mounted.
    pub kind: MountKind,
    /// The options.
    pub options: MountOptions,
    /// The id mapping, for binds only.
    pub idmap: Option<IdMap>,
}

/// What planning a mount must know of the container beside the mount itself.
pub(super) struct Context<'a> {
    pub(super) bundle: &'a Path,
    pub(super) root: &'a Path,
    pub(super) facts: &'a HostFacts,
    pub(super) container_idmap: Option<IdMapSource>,
}

impl MountPlan {
    /// Tells whether the mount is made read-write first and read-only at the end: tmpfs, and `/dev`, which gets nodes.
    #[must_use]
    pub fn readonly_late(&self) -> bool {
        self.kind == MountKind::Tmpfs || self.destination == Path::new("/dev")
    }

    /// The filesystem's name for the kernel.
    #[must_use]
    pub fn fstype(&self) -> &str {
        match &self.kind {
            MountKind::Bind => "bind",
            MountKind::Proc => "proc",
            MountKind::Sysfs => "sysfs",
            MountKind::Mqueue => "mqueue",
            MountKind::Tmpfs => "tmpfs",
            MountKind::Cgroup => "cgroup",
            MountKind::Other(name) => name,
        }
    }
}

/// Plans `mounts[index]`.
pub(super) fn plan_mount(
    index: usize,
    mount: &Mount,
    context: &Context<'_>,
    problems: &mut Vec<Problem>,
) -> MountPlan {
    let mut refuse = |message: &str| problems.push(Problem::new(format!("mounts[{index}]"), message));
    let options = MountOptions::parse(mount.options().as_deref().unwrap_or(&[]));
    let fstype = mount.typ().as_deref().unwrap_or("");
    // Some callers write only the type.
    let bind = options.is_bind() || fstype == "bind";
    let kind = if bind { MountKind::Bind } else { kind(fstype) };
    let mut source = mount.source().clone().unwrap_or_default();
    if bind {
        if source.as_os_str().is_empty() {
            refuse("bind mount without a source");
        }
        source = context.bundle.join(source);
        if !options.data.is_empty() {
            refuse("bind mounts cannot have any filesystem-specific options applied");
        }
    }
    let destination = destination(mount.destination(), context.root);
    if destination == Path::new("/") {
        refuse("mountpoint is on the top of rootfs");
    }
    if [&source, &destination].iter().any(|p| has_nul(p)) || fstype.contains('\0') {
        refuse("mount field contains null byte");
    }
    let idmap = idmap(mount, &options, context, bind, &mut refuse);
    let mut options = options;
    if bind {
        options.flags |= MountFlags::BIND;
    }
    MountPlan { destination, source, kind, options, idmap }
}

fn kind(fstype: &str) -> MountKind {
    match fstype {
        "proc" => MountKind::Proc,
        "sysfs" => MountKind::Sysfs,
        "mqueue" => MountKind::Mqueue,
        "tmpfs" => MountKind::Tmpfs,
        "cgroup" => MountKind::Cgroup,
        other => MountKind::Other(other.to_owned()),
    }
}

fn idmap(
    mount: &Mount,
    options: &MountOptions,
    context: &Context<'_>,
    bind: bool,
    refuse: &mut dyn FnMut(&str),
) -> Option<IdMap> {
    let (uids, gids) = (ranges(mount.uid_mappings()), ranges(mount.gid_mappings()));
    if options.idmap.is_none() && uids.is_empty() && gids.is_empty() {
        return None;
    }
    let recursive = options.idmap.unwrap_or(false);
    if !bind {
        refuse("id-mapped mounts are only supported for bind-mounts");
    }
    if context.facts.is_rootless() {
        refuse("id-mapped mounts are not supported for rootless containers");
    }
    if uids.is_empty()
        && gids.is_empty()
        && let Some(source) = context.container_idmap.clone()
    {
        return Some(IdMap { recursive, source });
    }
    if uids.is_empty() || gids.is_empty() {
        refuse("id-mapped mounts must have both uid and gid mappings specified");
    }
    Some(IdMap { recursive, source: IdMapSource::Mappings(uids, gids) })
}

/// Mappings of the specification as lines of uid_map.
pub(super) fn ranges(mappings: &Option<Vec<LinuxIdMapping>>) -> Vec<IdRange> {
    let mappings = mappings.as_deref().unwrap_or(&[]);
    mappings
        .iter()
        .map(|m| IdRange { container: m.container_id(), host: m.host_id(), size: m.size() })
        .collect()
}

/// The destination as a clean absolute path of the container. A relative one counts from `/`; one that repeats the
/// root's own path has it stripped, as runc does for old callers.
fn destination(path: &Path, root: &Path) -> PathBuf {
    let clean = clean(path);
    match clean.strip_prefix(root) {
        Ok(rest) if root != Path::new("/") && !rest.as_os_str().is_empty() => Path::new("/").join(rest),
        _ => clean,
    }
}

/// Makes a path absolute and removes `.`, `..` and doubled slashes lexically.
#[must_use]
pub fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// Files below `/proc` that may be mounted over: lxcfs and CRIU do.
const MOUNTABLE_PROC_FILES: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// What a mount on the resolved path `resolved` (in the container) has to satisfy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcRule {
    /// Nothing: it is outside `/proc`, or one of the files that may be covered.
    Allowed,
    /// It is `/proc` itself: only a fresh procfs or a bind of one.
    OnlyProcfs,
    /// It is inside `/proc`.
    Refused,
}

/// Decides about a mount on the path `resolved` of the container.
#[must_use]
pub fn proc_rule(resolved: &Path) -> ProcRule {
    if resolved == Path::new("/proc") {
        ProcRule::OnlyProcfs
    } else if !resolved.starts_with("/proc") || MOUNTABLE_PROC_FILES.iter().any(|f| resolved == Path::new(f))
    {
        ProcRule::Allowed
    } else {
        ProcRule::Refused
    }
}

fn has_nul(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().contains(&0)
}

#[cfg(test)]
#[path = "mounts_tests.rs"]
mod tests;
