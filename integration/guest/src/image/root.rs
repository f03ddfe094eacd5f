//! What the guest's file system has beyond its packages: the service that serves the host, and nothing that boots in vain.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::error::Error;

pub(super) const BOOT: &str = include_str!("../../files/boot");
pub(super) const SERVICE: &str = include_str!("../../files/coracle-guest.service");
pub(super) const TARGET: &str = include_str!("../../files/coracle-guest.target");

const UNITS: &str = "etc/systemd/system";

/// Path, mode, content.
const FILES: &[(&str, u32, &str)] = &[
    ("usr/lib/coracle-guest/boot", 0o755, BOOT),
    ("etc/systemd/system/coracle-guest.service", 0o644, SERVICE),
    ("etc/systemd/system/coracle-guest.target", 0o644, TARGET),
    ("etc/fstab", 0o644, ""),
    ("etc/hostname", 0o644, "guest\n"),
    // A machine with an id has booted before: nothing is set up for the first time.
    ("etc/machine-id", 0o444, "c07ac1e0c07ac1e0c07ac1e0c07ac1e0\n"),
    ("etc/systemd/journald.conf.d/guest.conf", 0o644, "[Journal]\nStorage=volatile\n"),
    // No user has a password or needs one.
    ("etc/subuid", 0o644, "guest:100000:65536\n"),
    ("etc/subgid", 0o644, "guest:100000:65536\n"),
];

/// Units that basic.target and the like pull in, that take time, and that nothing here uses.
const MASKED: &[&str] = &[
    "apparmor.service",
    "e2scrub_reap.service",
    "kmod-static-nodes.service",
    "ldconfig.service",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-network-generator.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-timesyncd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd.service",
    "systemd-update-done.service",
    "systemd-update-utmp.service",
];

/// An unprivileged user, as distributions make them.
const USER: &str = "guest:x:1000:1000::/home/guest:/bin/bash\n";

pub(super) fn configure(root: &Path) -> Result<(), Error> {
    for (path, mode, content) in FILES {
        write(&root.join(path), *mode, content)?;
    }
    for unit in MASKED {
        let path = root.join(UNITS).join(unit);
        symlink("/dev/null", &path).map_err(Error::io("link", &path))?;
    }
    append(&root.join("etc/passwd"), USER)?;
    append(&root.join("etc/group"), "guest:x:1000:\n")?;
    append(&root.join("etc/shadow"), "guest:*:20000:0:99999:7:::\n")?;
    let home = root.join("home/guest");
    std::fs::create_dir_all(&home).map_err(Error::io("make", &home))?;
    std::os::unix::fs::chown(&home, Some(1000), Some(1000)).map_err(Error::io("chown", &home))
}

fn write(path: &Path, mode: u32, content: &str) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(Error::io("make", parent))?;
    }
    let _ = std::fs::remove_file(path);
    std::fs::write(path, content).map_err(Error::io("write", path))?;
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).map_err(Error::io("chmod", path))
}

fn append(path: &Path, line: &str) -> Result<(), Error> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    std::fs::write(path, format!("{text}{line}")).map_err(Error::io("write", path))
}
