//! Which hierarchies the host mounts where, and which groups the caller is in.
//!
//! Like systemd and runc: a cgroup2 file system at `/sys/fs/cgroup` makes the host version 2, else it is version 1, with
//! cgroup2 at `/sys/fs/cgroup/unified` (hybrid) as one more hierarchy that the container joins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Error;
use crate::proc_self::ProcSelf;
use crate::small_file;

const MOUNT_POINT: &str = "/sys/fs/cgroup";
const HYBRID: &str = "/sys/fs/cgroup/unified";
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Which group that mount shows.
    pub root: String,
    /// The caller's group.
    pub own: String,
}

/// The host's cgroups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostCgroups {
    /// `/sys/fs/cgroup` is cgroup2.
    pub unified: bool,
    /// By controller, as runc names them in `cgroup_paths`: `cpu`, `name=systemd`, the empty string for cgroup2.
    pub hierarchies: BTreeMap<String, Hierarchy>,
    /// The controllers of cgroup2.
    pub controllers: Vec<String>,
    /// systemd is the host's init (sd_booted(3)).
    pub systemd: bool,
    /// The group that the user's manager makes its units below, where it is asked for.
    pub user_manager: PathBuf,
}

impl HostCgroups {
    /// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn gather() -> Result<Self, Error> {
        Self::of(&ProcSelf::read())
    }

    /// [`Self::gather`] with what is already read.
    ///
    /// # Errors
    /// What could not be read.
    pub fn of(own: &ProcSelf) -> Result<Self, Error> {
        let unread = |path: &'static str| move |e: &std::io::Error| Error::io("read", path, e);
        let mountinfo = own.mountinfo.as_ref().map_err(unread("/proc/self/mountinfo"))?;
        let groups = own.cgroup.as_ref().map_err(unread("/proc/self/cgroup"))?;
        let mut host = Self::parse(is_cgroup2(Path::new(MOUNT_POINT)), mountinfo, groups);
        if let Some(hierarchy) = host.hierarchies.get("") {
            let text = small_file::read_text(hierarchy.mountpoint.join("cgroup.controllers"));
            host.controllers = text.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        }
        host.systemd = Path::new("/run/systemd/system").is_dir();
        Ok(host)
    }

    /// Asks the user's manager where its units are. Needed for plans of an unprivileged caller's scope.
    ///
    /// # Errors
    /// There is no such manager.
    pub fn find_user_manager(&mut self) -> Result<(), Error> {
        self.user_manager = super::systemd::user_control_group()?;
        Ok(())
    }

    /// The pure part of [`Self::gather`].
    #[must_use]
    pub fn parse(unified: bool, mountinfo: &str, own: &str) -> Self {
        let own = own_groups(own);
        let own_of = |controller: &str| own.get(controller).cloned().unwrap_or_else(|| "/".to_owned());
        let mut hierarchies = BTreeMap::new();
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            let names: Vec<&str> = match mount.fstype {
                "cgroup2" if mount.is_v2_place(unified) => vec![""],
                "cgroup" if !unified => {
                    mount.options.split(',').filter(|option| own.contains_key(*option)).collect()
                }
                _ => Vec::new(),
            };
            for name in names {
                hierarchies.entry(name.to_owned()).or_insert_with(|| Hierarchy {
                    mountpoint: PathBuf::from(mount.target),
                    root: mount.root.to_owned(),
                    own: own_of(name),
                });
            }
        }
        Self { unified, hierarchies, ..Self::default() }
    }
}

struct Mount<'a> {
    root: &'a str,
    target: &'a str,
    fstype: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let mut right = right.split(' ');
        Some(Self {
            root: left.next()?,
            target: left.next()?,
            fstype: right.next()?,
            options: right.nth(1).unwrap_or_default(),
        })
    }

    fn is_v2_place(&self, unified: bool) -> bool {
        self.target == if unified { MOUNT_POINT } else { HYBRID }
    }
}

/// Controller to group from `/proc/self/cgroup`; the empty controller is cgroup2.
fn own_groups(text: &str) -> BTreeMap<String, String> {
    let mut own = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        for controller in controllers.split(',') {
            own.insert(controller.to_owned(), path.to_owned());
        }
    }
    own
}

/// The group of process `pid` in each hierarchy.
pub(super) fn groups_of(pid: i32) -> BTreeMap<String, String> {
    own_groups(&small_file::read_text(format!("/proc/{pid}/cgroup")).unwrap_or_default())
}

#[allow(clippy::cast_sign_loss)]
fn is_cgroup2(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type as u64 == CGROUP2_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_HOST: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 /x /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn hybrid_has_all_hierarchies() {
        let host = HostCgroups::parse(false, HYBRID_HOST, "9:name=systemd:/x/a\n2:cpu,cpuacct:/b:c\n0::/d\n");
        let names: Vec<&str> = host.hierarchies.keys().map(String::as_str).collect();
        assert_eq!(names, ["", "cpu", "cpuacct", "name=systemd"]);
        assert_eq!(host.hierarchies["cpu"].own, "/b:c");
        assert_eq!(host.hierarchies["name=systemd"].root, "/x");
        assert_eq!(host.hierarchies[""].mountpoint, Path::new("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn unified_has_one() {
        let text = "30 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let host = HostCgroups::parse(true, &format!("{HYBRID_HOST}{text}"), "0::/user.slice/a.scope\n");
        assert_eq!(host.hierarchies.len(), 1);
        assert_eq!(host.hierarchies[""].own, "/user.slice/a.scope");
    }
}
