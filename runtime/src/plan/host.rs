//! The facts of the host that a plan depends on, gathered once by the parent before it plans.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::proc_self::ProcSelf;
use crate::small_file;

/// A mounted cgroup v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V1Hierarchy {
    /// Its controllers, `["cpu", "cpuacct"]`, or `["name=systemd"]`.
    pub controllers: Vec<String>,
    /// Where the host mounts it.
    pub mountpoint: PathBuf,
    /// Which directory of the hierarchy that mount shows (4th field of mountinfo).
    pub root: PathBuf,
}

/// What the host is and can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// The caller's effective uid.
    pub euid: u32,
    /// The caller's effective gid.
    pub egid: u32,
    /// The caller itself runs in a user namespace that does not map all ids.
    pub in_user_ns: bool,
    /// Kernel release, `(6, 18)`.
    pub kernel: (u32, u32),
    /// `/sys/fs/cgroup` is a cgroup2 mount.
    pub cgroup_unified: bool,
    /// Mounted v1 hierarchies; empty on a unified host.
    pub cgroup_v1: Vec<V1Hierarchy>,
    /// Our own groups: controller list as in `/proc/self/cgroup` (empty key: v2) to path.
    pub own_cgroups: BTreeMap<String, String>,
    /// AppArmor is enabled.
    pub apparmor: bool,
    /// SELinux is enabled.
    pub selinux: bool,
}

impl HostFacts {
    /// A plain root host on cgroup v2, for tests.
    #[must_use]
    pub fn example() -> Self {
        Self {
            euid: 0,
            egid: 0,
            in_user_ns: false,
            kernel: (6, 18),
            cgroup_unified: true,
            cgroup_v1: Vec::new(),
            own_cgroups: BTreeMap::from([(String::new(), "/".to_owned())]),
            apparmor: false,
            selinux: false,
        }
    }

    /// Reads the facts from `/proc` and `/sys`; what can't be read counts as absent.
    #[must_use]
    pub fn gather() -> Self {
        Self::of(&ProcSelf::read())
    }

    /// [`Self::gather`] with what is already read.
    #[must_use]
    pub fn of(own: &ProcSelf) -> Self {
        let uname = rustix::system::uname();
        let apparmor =
            small_file::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|b| b.starts_with(b"Y"));
        let (unified, v1) = parse_cgroup_mounts(own.mounts());
        Self {
            euid: rustix::process::geteuid().as_raw(),
            egid: rustix::process::getegid().as_raw(),
            in_user_ns: !maps_everything(&own.uid_map),
            kernel: parse_release(uname.release().to_str().unwrap_or_default()),
            cgroup_unified: unified,
            cgroup_v1: v1,
            own_cgroups: parse_own_cgroups(own.groups()),
            apparmor,
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }

    /// The caller lacks privilege over the initial user namespace.
    #[must_use]
    pub fn is_rootless(&self) -> bool {
        self.euid != 0 || self.in_user_ns
    }

    /// The kernel is at least this release.
    #[must_use]
    pub fn kernel_at_least(&self, major: u32, minor: u32) -> bool {
        self.kernel >= (major, minor)
    }
}

fn maps_everything(uid_map: &str) -> bool {
    uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn parse_release(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn parse_own_cgroups(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            Some((controllers.to_owned(), path.to_owned()))
        })
        .collect()
}

fn parse_cgroup_mounts(mountinfo: &str) -> (bool, Vec<V1Hierarchy>) {
    let mut unified = false;
    let mut v1: Vec<V1Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut left = left.split(' ').skip(3);
        let (Some(root), Some(target)) = (left.next(), left.next()) else { continue };
        let mut right = right.split(' ');
        let (fstype, options) = (right.next().unwrap_or_default(), right.nth(1).unwrap_or_default());
        if fstype == "cgroup2" && target == "/sys/fs/cgroup" {
            unified = true;
        }
        if fstype == "cgroup" && !v1.iter().any(|h| h.mountpoint == Path::new(target)) {
            let controllers = options.split(',').filter(|o| is_controller(o)).map(str::to_owned).collect();
            v1.push(V1Hierarchy {
                controllers,
                mountpoint: PathBuf::from(target),
                root: PathBuf::from(root),
            });
        }
    }
    (unified, v1)
}

fn is_controller(option: &str) -> bool {
    let flag = matches!(
        option,
        "rw" | "ro" | "xattr" | "noprefix" | "clone_children" | "cpuset_v2_mode" | "none" | "all"
    );
    !flag && !option.starts_with("release_agent=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_takes_the_leading_numbers() {
        assert_eq!(parse_release("6.18.1-generic"), (6, 18));
        assert_eq!(parse_release("5.4.0-0.bpo.2"), (5, 4));
    }

    #[test]
    fn v1_hierarchies_are_found_by_their_super_options() {
        let text = "30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n\
                    31 24 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n\
                    32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let (unified, v1) = parse_cgroup_mounts(text);
        assert!(!unified);
        assert_eq!(v1[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(v1[1].controllers, ["name=systemd"]);
        assert_eq!(v1[1].mountpoint, Path::new("/sys/fs/cgroup/systemd"));
    }

    #[test]
    fn the_initial_user_namespace_maps_everything() {
        assert!(maps_everything("         0          0 4294967295\n"));
        assert!(!maps_everything("         0       1000          1\n"));
    }
}
