//! The machine's disk and kernel, built once from Debian packages and kept in a cache.
//!
//! ```text
//! $CORACLE_GUEST_CACHE, else $XDG_CACHE_HOME/coracle-guest, else ~/.cache/coracle-guest
//!   uml-<key>/ qemu-<key>/     a finished image, never changed: disk.ext4, kernel, initrd (QEMU), lib/ (user-mode Linux)
//!   build-<key>/               one being built; renamed when it is complete, removed before the next attempt
//!   lock                       held while building
//!   runs/<pid>-<n>/             the control directory of a run
//! ```
//! The key is made of everything below this module: another list of packages is another image.

mod debian;
mod initrd;
mod kernel;
mod root;

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::FlockOperation;

use crate::Backend;
use crate::error::{Error, succeed};

/// A finished image.
#[derive(Debug, Clone)]
pub struct Image(PathBuf);

impl Image {
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.0.join("disk.ext4")
    }

    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.0.join("kernel")
    }

    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.0.join("initrd")
    }
}

/// Where images are kept.
#[must_use]
pub fn cache_directory() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("CORACLE_GUEST_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("coracle-guest")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/coracle-guest")))
        .unwrap_or_else(|| "/var/cache/coracle-guest".into())
}

/// The image for `backend`, built if it is not there.
///
/// # Errors
/// Not root, a program that is missing, a mirror that does not answer.
pub fn ensure(backend: Backend) -> Result<Image, Error> {
    let cache = cache_directory();
    std::fs::create_dir_all(&cache).map_err(Error::io("make", &cache))?;
    let key = key(backend);
    let finished = cache.join(format!("{}-{key}", backend.name()));
    if finished.is_dir() {
        return Ok(Image(finished));
    }
    let lock = cache.join("lock");
    let lock = File::create(&lock).map_err(Error::io("create", &lock))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)
        .map_err(|e| Error::io("lock", &cache)(e.into()))?;
    if finished.is_dir() {
        return Ok(Image(finished));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Missing("building the guest's disk needs root".to_owned()));
    }
    eprintln!("building the {} guest (once, about a minute)", backend.name());
    let building = cache.join(format!("build-{key}"));
    remove(&building)?;
    std::fs::create_dir(&building).map_err(Error::io("make", &building))?;
    let built = build(backend, &building, &finished);
    if built.is_err() {
        let _ = remove(&building);
    }
    built?;
    std::fs::rename(&building, &finished).map_err(Error::io("rename", &building))?;
    Ok(Image(finished))
}

/// `finished` is where the files will be found when they run.
fn build(backend: Backend, building: &Path, finished: &Path) -> Result<(), Error> {
    let root = building.join("root");
    debian::bootstrap(&root)?;
    match backend {
        Backend::Uml => kernel::user_mode_linux(&root, building, finished)?,
        Backend::Qemu => kernel::debian(&root, building)?,
    }
    root::configure(&root)?;
    make_disk(&root, &building.join("disk.ext4"))?;
    remove(&root)
}

/// A sparse ext4 with the tree in it. No journal: each run forgets its changes.
fn make_disk(root: &Path, disk: &Path) -> Result<(), Error> {
    let file = File::create(disk).map_err(Error::io("create", disk))?;
    file.set_len(8 << 30).map_err(Error::io("size", disk))?;
    let options = ["-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=1", "-d"];
    succeed(Command::new("mkfs.ext4").args(options).arg(root).arg(disk)).map(drop)
}

/// Removes a tree and follows no mount in it.
fn remove(tree: &Path) -> Result<(), Error> {
    succeed(Command::new("rm").args(["-rf", "--one-file-system", "--"]).arg(tree)).map(drop)
}

fn key(backend: Backend) -> String {
    let mut hasher = DefaultHasher::new();
    backend.name().hash(&mut hasher);
    for source in [
        include_str!("mod.rs"),
        include_str!("debian.rs"),
        include_str!("initrd.rs"),
        include_str!("kernel.rs"),
        include_str!("root.rs"),
        root::BOOT,
        root::SERVICE,
        root::TARGET,
        initrd::INIT,
    ] {
        source.hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}
