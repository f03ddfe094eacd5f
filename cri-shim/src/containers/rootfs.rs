//! A container's root file system: the image's layers below what it writes, attached at `bundle/rootfs`; and what has to be
//! read from the image's tree: users, content of anonymous volumes. That tree is hostile: every path in it is resolved
//! within it, by handle, and reads are bounded.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use coracle_image_store::mount::OverlayOptions;
use coracle_image_store::store::Image;
use coracle_image_store::{Store, bundle, mount};
use coracle_runtime::sys::mount::{SetAttributes, mount_setattr};
use k8s_cri::v1::LinuxContainerSecurityContext;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::error::Error;
use crate::oci::{self, Passwd, User};

/// Of passwd and group.
const MAX_FILE: u64 = 1 << 20;

/// Makes a directory for root only, with its parents.
pub(super) fn make_directory(path: &Path, mode: u32) -> Result<(), Error> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(Error::path("create directory", path))
}

/// A pod's user namespace, and the host's ids of its root.
pub(super) struct UserNamespace {
    pub(super) path: PathBuf,
    pub(super) root: (u32, u32),
}

/// Mounts the image with a writable layer in `directory` and attaches it at `rootfs`. With a user namespace the layers show
/// with its ids.
pub(super) fn attach(
    store: &Store,
    image: &Image,
    directory: &Path,
    rootfs: &Path,
    user: Option<&UserNamespace>,
) -> Result<(), Error> {
    let (upper, work) = (directory.join("upper"), directory.join("work"));
    make_directory(&upper, 0o755)?;
    make_directory(&work, 0o700)?;
    // The root directory of the container takes its mode from the writable layer, whatever the umask was.
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&upper, mode).map_err(Error::path("chmod", &upper))?;
    let Some(user) = user else {
        let mounted = bundle::mount_writable(store, &image.record, &upper, &work, true)?;
        return Ok(mounted.attach(rootfs)?);
    };
    std::os::unix::fs::chown(&upper, Some(user.root.0), Some(user.root.1))
        .map_err(Error::path("chown", &upper))?;
    let namespace = File::open(&user.path).map_err(Error::path("open", &user.path))?;
    let idmap = |mount: BorrowedFd<'_>| map_ids(mount, namespace.as_fd());
    let options = OverlayOptions { volatile: true, idmap: Some(&idmap), ..OverlayOptions::default() };
    Ok(bundle::mount_writable_with(store, &image.record, &upper, &work, &options)?.attach(rootfs)?)
}

/// MOUNT_ATTR_IDMAP of mount_setattr(2), Linux 5.12.
fn map_ids(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> std::io::Result<()> {
    const MOUNT_ATTR_IDMAP: u32 = 0x0010_0000;
    let change =
        SetAttributes { set: MOUNT_ATTR_IDMAP, user_namespace: Some(user_namespace), ..Default::default() };
    mount_setattr(mount, &change).map_err(std::io::Error::from)
}

/// Mounts an image read-only at a directory.
pub(super) fn attach_read_only(store: &Store, image: &Image, target: &Path) -> Result<(), Error> {
    make_directory(target, 0o700)?;
    Ok(bundle::mount_read_only(store, &image.record)?.attach(target)?)
}

/// Detaches whatever is mounted at a directory or below it; that nothing is, is fine.
pub(super) fn detach_all(directory: &Path) -> Result<(), Error> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(Error::path("read", "/proc/self/mountinfo"))?;
    let mut points: Vec<PathBuf> =
        super::volumes::mount_points(&table).filter(|point| point.starts_with(directory)).collect();
    points.sort();
    for point in points.iter().rev() {
        mount::detach(point)?;
    }
    Ok(())
}

/// Who the container's process is, by the image's passwd and group files.
pub(super) fn resolve_user(
    rootfs: &Path,
    security: &LinuxContainerSecurityContext,
    image_user: &str,
) -> Result<User, Error> {
    let root = open_root(rootfs)?;
    let (passwd, group) = (read(&root, "etc/passwd"), read(&root, "etc/group"));
    Ok(oci::resolve_user(security, image_user, Passwd { passwd: &passwd, group: &group })?)
}

/// Copies what the image has at `path` to a new directory: the beginning of an anonymous volume.
pub(super) fn copy_volume(rootfs: &Path, path: &str, target: &Path) -> Result<(), Error> {
    make_directory(target, 0o755)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // An image may declare a volume that it has no directory for: it begins empty.
    let Ok(source) = open_in(&open_root(rootfs)?, path.trim_start_matches('/'), flags) else { return Ok(()) };
    let source = PathBuf::from(format!("/proc/self/fd/{}/.", source.as_raw_fd()));
    Ok(bundle::copy_tree(&source, target)?)
}

fn open_root(rootfs: &Path) -> Result<File, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(rootfs, flags, Mode::empty());
    Ok(opened.map_err(|errno| Error::path("open", rootfs)(errno.into()))?.into())
}

fn open_in(root: &File, path: &str, flags: OFlags) -> rustix::io::Result<File> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = if path.is_empty() { "." } else { path };
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve).map(File::from)
}

/// A file that is missing, not a file or not readable is an empty one: numbers need none.
fn read(root: &File, name: &str) -> String {
    let Ok(file) = open_in(root, name, OFlags::RDONLY | OFlags::NONBLOCK) else { return String::new() };
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return String::new();
    }
    let mut content = Vec::new();
    let _ = file.take(MAX_FILE).read_to_end(&mut content);
    String::from_utf8_lossy(&content).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_links_stay_in_the_image() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", etc.join("passwd")).unwrap();
        std::fs::write(etc.join("hostname"), "web:x:7:8::/:/bin/sh\n").unwrap();
        let user = resolve_user(root.path(), &LinuxContainerSecurityContext::default(), "web").unwrap();
        assert_eq!((user.uid, user.gid), (7, 8));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            etc.join("group"),
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let no_group = resolve_user(root.path(), &LinuxContainerSecurityContext::default(), "web:logs");
        assert!(no_group.is_err(), "a fifo is not waited for");
    }

    #[test]
    fn a_volume_begins_with_the_images_content() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("data/deep")).unwrap();
        std::fs::write(root.path().join("data/deep/file"), "x").unwrap();
        let target = root.path().join("volumes/0");
        copy_volume(root.path(), "/data", &target).unwrap();
        assert_eq!(std::fs::read_to_string(target.join("deep/file")).unwrap(), "x");
        let absent = root.path().join("volumes/1");
        copy_volume(root.path(), "/none", &absent).unwrap();
        assert!(absent.is_dir());
    }
}
