//! The two kernels and their modules.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::debian::{Archive, SUITE};
use super::{initrd, remove};
use crate::error::{Error, succeed};

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "ld-linux-x86-64.so.2";

/// User-mode Linux, from a suite that has `seccomp=on` (Linux 6.16). It wants a C library as new as itself: the guest's.
pub(super) fn user_mode_linux(root: &Path, building: &Path, finished: &Path) -> Result<(), Error> {
    let unpacked = fetch("sid", building, |_| Ok("user-mode-linux".to_owned()))?;
    let release = only_entry(&unpacked.join("usr/lib/uml/modules"))?;
    install_modules(&unpacked.join("usr/lib/uml/modules").join(&release), root, &release)?;

    let lib = building.join("lib");
    std::fs::create_dir(&lib).map_err(Error::io("make", &lib))?;
    copy(&root.join("usr/lib64").join(LOADER), &lib.join(LOADER))?;
    copy(&root.join(LIBRARIES).join("libc.so.6"), &lib.join("libc.so.6"))?;
    let kernel = building.join("kernel");
    copy(&unpacked.join("usr/bin/linux.uml"), &kernel)?;
    let lib = finished.join("lib");
    let mut patch = Command::new("patchelf");
    patch.arg("--set-interpreter").arg(lib.join(LOADER)).arg("--set-rpath").arg(&lib).arg(&kernel);
    succeed(&mut patch)?;
    remove(&unpacked)
}

/// Debian's own kernel of the guest's release, with an initial root that reaches the disk.
pub(super) fn debian(root: &Path, building: &Path) -> Result<(), Error> {
    let unpacked = fetch(SUITE, building, |archive| archive.dependency("linux-image-amd64", "linux-image-"))?;
    let modules = unpacked.join("usr/lib/modules");
    let release = only_entry(&modules)?;
    install_modules(&modules.join(&release), root, &release)?;
    copy(&unpacked.join("boot").join(format!("vmlinuz-{release}")), &building.join("kernel"))?;
    initrd::make(root, &release, &building.join("initrd"))?;
    remove(&unpacked)
}

/// Unpacks one package of `suite`; the directory.
fn fetch(
    suite: &str,
    building: &Path,
    name: impl FnOnce(&Archive) -> Result<String, Error>,
) -> Result<PathBuf, Error> {
    let (apt, unpacked) = (building.join("apt"), building.join("package"));
    let archive = Archive::open(&apt, suite)?;
    archive.unpack(&name(&archive)?, &unpacked)?;
    remove(&apt)?;
    Ok(unpacked)
}

fn install_modules(from: &Path, root: &Path, release: &str) -> Result<(), Error> {
    let to = root.join("usr/lib/modules");
    std::fs::create_dir_all(&to).map_err(Error::io("make", &to))?;
    succeed(Command::new("cp").arg("-a").arg(from).arg(&to))?;
    succeed(Command::new("chroot").arg(root).args(["depmod", "-a", release])).map(drop)
}

fn only_entry(directory: &Path) -> Result<String, Error> {
    let mut entries = std::fs::read_dir(directory).map_err(Error::io("read", directory))?;
    let entry = entries.next().and_then(Result::ok);
    let entry = entry.ok_or_else(|| Error::Missing(format!("{} is empty", directory.display())))?;
    Ok(entry.file_name().to_string_lossy().into_owned())
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::copy(from, to).map(drop).map_err(Error::io("copy", from))
}
