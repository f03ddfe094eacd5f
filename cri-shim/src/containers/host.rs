//! What the host offers to containers: devices, security modules, control groups, what this process may hand on.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use k8s_cri::v1::LinuxContainerSecurityContext;
use k8s_cri::v1::security_profile::ProfileType;

use super::error::Error;
use crate::oci::HostDevice;

/// Directories and files of `/dev` that belong to the container itself.
const NOT_DEVICES: &[&str] = &["pts", "shm", "fd", "mqueue", "console", ".lxc", ".lxd-mounts", ".udev"];

const MAX_DEVICES: usize = 4096;

/// `/sys/fs/cgroup` is cgroup2.
pub(super) fn cgroup2() -> bool {
    const CGROUP2_SUPER_MAGIC: i128 = 0x6367_7270;
    rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|s| i128::from(s.f_type) == CGROUP2_SUPER_MAGIC)
}

/// The least oom_score_adj that this process may give, where it lacks the privilege for any (CAP_SYS_RESOURCE).
pub(super) fn oom_score_floor() -> Option<i64> {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    let bits = u64::from_str_radix(effective.trim(), 16).ok()?;
    if bits & (1 << CAP_SYS_RESOURCE) != 0 {
        return None;
    }
    std::fs::read_to_string("/proc/self/oom_score_adj").ok()?.trim().parse().ok()
}

/// Every capability that this process may hand on, by name.
pub(super) fn bounding_capabilities() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let text = status.lines().find_map(|l| l.strip_prefix("CapBnd:")).unwrap_or_default();
    let bits = u64::from_str_radix(text.trim(), 16).unwrap_or(u64::MAX);
    crate::oci::capability_names(bits)
}

/// A `Localhost` AppArmor profile needs a kernel that knows AppArmor.
pub(super) fn check_apparmor(security: &LinuxContainerSecurityContext) -> Result<(), Error> {
    let localhost = security.apparmor.as_ref().is_some_and(|p| p.profile_type() == ProfileType::Localhost);
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if localhost && !security.privileged && !enabled.is_ok_and(|t| t.trim() == "Y") {
        let profile = security.apparmor.clone().unwrap_or_default().localhost_ref;
        return Err(Error::Unsupported { what: format!("AppArmor, which profile {profile:?} needs") });
    }
    Ok(())
}

/// A device as the container will see it: a file, or every device below a directory.
pub(super) fn devices_at(path: &Path) -> Result<Vec<HostDevice>, Error> {
    let real = path.canonicalize().map_err(Error::path("device", path))?;
    let meta = real.metadata().map_err(Error::path("device", &real))?;
    if meta.is_dir() {
        let mut found = Vec::new();
        walk(&real, path, &mut found);
        return Ok(found);
    }
    device(path, &meta).map(|d| vec![d]).ok_or_else(|| Error::Invalid {
        field: "devices",
        why: format!("{} is no device of this host", path.display()),
    })
}

/// Everything that a privileged container gets.
pub(super) fn all_devices() -> Vec<HostDevice> {
    let mut found = Vec::new();
    walk(Path::new("/dev"), Path::new("/dev"), &mut found);
    found
}

fn walk(directory: &Path, shown: &Path, found: &mut Vec<HostDevice>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if NOT_DEVICES.iter().any(|n| name == *n) || found.len() >= MAX_DEVICES {
            continue;
        }
        let Ok(meta) = entry.metadata() else { continue };
        let shown = shown.join(&name);
        if meta.is_dir() {
            walk(&entry.path(), &shown, found);
        } else if let Some(device) = device(&shown, &meta) {
            found.push(device);
        }
    }
}

fn device(path: &Path, meta: &std::fs::Metadata) -> Option<HostDevice> {
    let kind = meta.file_type();
    let kind = if kind.is_char_device() {
        'c'
    } else if kind.is_block_device() {
        'b'
    } else {
        return None;
    };
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    Some((path.to_string_lossy().into_owned(), kind, major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_this_host() {
        let null = devices_at(Path::new("/dev/null")).unwrap();
        assert_eq!(null, [("/dev/null".to_owned(), 'c', 1, 3)]);
        assert!(devices_at(Path::new("/etc/passwd")).is_err());
        assert!(devices_at(Path::new("/dev/there-is-none")).is_err());
        let all = all_devices();
        assert!(all.iter().any(|d| d.0 == "/dev/null") && all.iter().all(|d| !d.0.starts_with("/dev/pts")));
    }
}
