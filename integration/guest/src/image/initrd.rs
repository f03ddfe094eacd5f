//! QEMU's initial root: busybox and the few modules between the kernel and its disk. Debian's own costs ten seconds more
//! without acceleration.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::error::{Error, succeed};

/// The first program.
pub(super) const INIT: &str = "\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
while read module; do /bin/busybox insmod /modules/$module; done < /modules/order
until [ -b /dev/vda ]; do /bin/busybox usleep 10000; done
/bin/busybox mount -t ext4 -o noatime /dev/vda /disk
/bin/busybox mount --move /dev /disk/dev
exec /bin/busybox switch_root /disk /usr/lib/systemd/systemd
";

const MODULES: &[&str] = &["virtio_pci", "virtio_blk", "ext4"];

/// Writes the archive for the kernel `release`, whose modules are in `root`.
pub(super) fn make(root: &Path, release: &str, to: &Path) -> Result<(), Error> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "disk", "modules"] {
        archive.add(directory, 0o040_755, b"");
    }
    let read = |path: &Path| std::fs::read(path).map_err(Error::io("read", path));
    archive.add("bin/busybox", 0o100_755, &read(&root.join("usr/bin/busybox"))?);
    archive.add("init", 0o100_755, INIT.as_bytes());
    let mut order = String::new();
    for module in with_dependencies(root, release)? {
        let file = root.join(module.trim_start_matches('/'));
        let name = Path::new(&module).file_stem().map(|name| name.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| Error::Missing(format!("{module} has no name")))?;
        archive.add(&format!("modules/{name}"), 0o100_644, &decompressed(&file)?);
        order.push_str(&format!("{name}\n"));
    }
    archive.add("modules/order", 0o100_644, order.as_bytes());
    let mut file = std::fs::File::create(to).map_err(Error::io("create", to))?;
    file.write_all(&archive.finish()).map_err(Error::io("write", to))
}

/// Paths of the modules in the order in which they must be loaded, each once.
fn with_dependencies(root: &Path, release: &str) -> Result<Vec<String>, Error> {
    let mut seen = BTreeSet::new();
    let mut order = Vec::new();
    for module in MODULES {
        let mut modprobe = Command::new("chroot");
        modprobe.arg(root).args(["modprobe", "--set-version", release, "--show-depends", module]);
        for line in succeed(&mut modprobe)?.lines() {
            let path = line.strip_prefix("insmod ").map(|path| path.trim().to_owned());
            order.extend(path.filter(|path| seen.insert(path.clone())));
        }
    }
    Ok(order)
}

/// busybox loads plain modules only; Debian's are `.ko.xz`.
fn decompressed(file: &Path) -> Result<Vec<u8>, Error> {
    let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(file).output();
    let output = output.map_err(|source| Error::Spawn { program: "xz".to_owned(), source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::Program { program: format!("xz {}", file.display()), status: output.status, output: said })
}

/// A cpio archive in the kernel's form (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let header = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        header.iter().for_each(|field| self.bytes.extend_from_slice(format!("{field:08x}").as_bytes()));
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, b"");
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_aligned_and_ends() {
        let mut archive = Archive::default();
        archive.add("a", 0o100_644, b"12345");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[..14], b"07070100000001");
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }
}
