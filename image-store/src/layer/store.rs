//! What both back ends share: the directories, the records, mounts of either kind of layer, verification, usage.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::mount::MountAttrFlags;
use sha2::{Digest, Sha256};

use super::backing::Device;
use super::erofs_layers::{INDEX, TAR};
use super::record::Record;
use super::staging::{self, STAGING, Staging, TRASH};
use super::tree_layers::TREE;
use super::{BackEnd, Backing, CommittedLayer, DiffId, Error, LayerMount, Usage, tree_digest};
use crate::mount;

/// For so long after a pull its pages are taken to be in memory still.
const FRESH: Duration = Duration::from_secs(600);

/// The layers below one root, whichever back end wrote them.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    path: PathBuf,
    backing: Backing,
    mounts: Arc<Mutex<HashMap<DiffId, Weak<LayerMount>>>>,
}

impl Layers {
    pub fn open(root: &Path) -> Result<Self, Error> {
        let path = root.join("layers");
        for directory in [path.clone(), path.join(STAGING), path.join(TRASH)] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            made.map_err(Error::io("make the directory", &directory))?;
        }
        // A kernel that can mount no index has its say when it is asked to.
        let backing = Backing::of_this_kernel().unwrap_or(Backing::Loop);
        Ok(Self { path, backing, mounts: Arc::default() })
    }

    pub fn with_backing(self, backing: Backing) -> Self {
        Self { backing, ..self }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn commit(&self, staging: Staging, diff_id: &DiffId) -> Result<CommittedLayer, Error> {
        let target = self.path.join(diff_id.hex());
        if let Ok(layer) = self.committed(diff_id) {
            return Ok(layer);
        }
        // There may be a directory whose record is unreadable: it is replaced.
        staging::discard(&self.path, diff_id)?;
        staging.commit(&target)?;
        self.committed(diff_id)
    }

    pub fn committed(&self, diff_id: &DiffId) -> Result<CommittedLayer, Error> {
        let path = self.path.join(diff_id.hex());
        let record = Record::load(&path, diff_id)?;
        Ok(CommittedLayer {
            diff_id: *diff_id,
            back_end: record.back_end,
            path,
            tar_size: record.tar_size,
            disk_bytes: record.disk_bytes,
            inodes: record.inodes,
            is_opaque: record.is_opaque,
        })
    }

    pub fn list(&self) -> Result<Vec<DiffId>, Error> {
        let entries = fs::read_dir(&self.path).map_err(Error::io("list", &self.path))?;
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::io("list", &self.path))?.file_name();
            found.extend(name.to_str().and_then(DiffId::from_hex));
        }
        Ok(found)
    }

    pub fn mount(&self, diff_id: &DiffId) -> Result<Arc<LayerMount>, Error> {
        // Held while mounting: of two callers at once the second waits and shares the first one's mount.
        let mut mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mount) = mounts.get(diff_id).and_then(Weak::upgrade) {
            return Ok(mount);
        }
        let layer = self.committed(diff_id)?;
        let fd = match layer.back_end {
            BackEnd::Erofs => mount_erofs(&layer.path, self.backing)?,
            BackEnd::Tree => mount_tree(&layer.path)?,
        };
        let mount = Arc::new(LayerMount { diff_id: *diff_id, fd });
        mounts.retain(|_, mount| mount.strong_count() > 0);
        mounts.insert(*diff_id, Arc::downgrade(&mount));
        Ok(mount)
    }

    pub fn verify(&self, diff_id: &DiffId) -> Result<(), Error> {
        let path = self.path.join(diff_id.hex());
        let record = Record::load(&path, diff_id)?;
        let damaged = |what| Err(Error::Damaged { diff_id: *diff_id, what });
        match record.back_end {
            BackEnd::Erofs => {
                if file_digest(&path.join(INDEX), u64::MAX)?.hex() != record.digest {
                    return damaged("index.erofs has changed");
                }
                // What is behind the archive is padding of the store's own.
                if file_digest(&path.join(TAR), record.tar_size)? != *diff_id {
                    return damaged("layer.tar has another digest");
                }
            }
            BackEnd::Tree => {
                if tree_digest::digest(&path.join(TREE))?.hex() != record.digest {
                    return damaged("a file of the tree has changed");
                }
            }
        }
        Ok(())
    }

    pub fn remove(&self, diff_id: &DiffId) -> Result<(), Error> {
        if staging::discard(&self.path, diff_id)? {
            Ok(())
        } else {
            Err(Error::NotFound { diff_id: *diff_id })
        }
    }
}

/// The trait's methods that are the same for both back ends; each has its own `new_writer` and the store as field 0.
macro_rules! impl_layer_store {
    ($store:ty) => {
        impl $crate::layer::LayerStore for $store {
            fn begin(
                &self,
                diff_id: $crate::layer::DiffId,
            ) -> Result<$crate::layer::LayerWriter, $crate::layer::Error> {
                $crate::fault::point("layer.begin")?;
                self.new_writer(diff_id)
            }
            fn open(
                &self,
                diff_id: &$crate::layer::DiffId,
            ) -> Result<$crate::layer::CommittedLayer, $crate::layer::Error> {
                self.0.committed(diff_id)
            }
            fn list(&self) -> Result<Vec<$crate::layer::DiffId>, $crate::layer::Error> {
                self.0.list()
            }
            fn mount(
                &self,
                diff_id: &$crate::layer::DiffId,
            ) -> Result<std::sync::Arc<$crate::layer::LayerMount>, $crate::layer::Error> {
                self.0.mount(diff_id)
            }
            fn verify(&self, diff_id: &$crate::layer::DiffId) -> Result<(), $crate::layer::Error> {
                self.0.verify(diff_id)
            }
            fn remove(&self, diff_id: &$crate::layer::DiffId) -> Result<(), $crate::layer::Error> {
                self.0.remove(diff_id)
            }
            fn usage(&self) -> Result<$crate::layer::Usage, $crate::layer::Error> {
                $crate::layer::store::usage_below(self.0.path())
            }
            fn sweep(&self) -> Result<usize, $crate::layer::Error> {
                $crate::layer::staging::sweep(self.0.path())
            }
        }
    };
}
pub(super) use impl_layer_store;

/// Blocks and inodes of everything below a directory, itself included. What vanishes on the way is not counted.
pub(super) fn usage_below(path: &Path) -> Result<Usage, Error> {
    let mut usage = Usage::default();
    let mut pending = vec![path.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            metadata => metadata.map_err(Error::io("read", &path))?,
        };
        usage.bytes += metadata.blocks() * 512 / if metadata.is_dir() { 1 } else { metadata.nlink().max(1) };
        usage.inodes += 1;
        if metadata.is_dir() {
            let Ok(entries) = fs::read_dir(&path) else { continue };
            pending.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
        }
    }
    Ok(usage)
}

fn file_digest(path: &Path, length: u64) -> Result<DiffId, Error> {
    let mut file = fs::File::open(path).map_err(Error::io("open", path))?.take(length);
    let mut digest = Sha256::new();
    std::io::copy(&mut file, &mut DigestWriter(&mut digest)).map_err(Error::io("read", path))?;
    Ok(DiffId::from_bytes(digest.finalize().into()))
}

struct DigestWriter<'a>(&'a mut Sha256);

impl std::io::Write for DigestWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Mounts an index over its tar.
///
/// With direct reads the tar's own pages are not cached beside those of the mount, which halves the memory that a layer in
/// use takes; but the pages that a pull has just written are read at twice the speed (docs/decisions/0006). Kernels and
/// file systems that can't read so get a plain mount.
pub(super) fn mount_erofs(directory: &Path, backing: Backing) -> Result<OwnedFd, Error> {
    let tar = directory.join(TAR);
    if backing == Backing::Loop {
        let index = Device::attach(&directory.join(INDEX))?;
        let tar = Device::attach(&tar)?;
        return Ok(mount_erofs_with(index.path.as_ref(), tar.path.as_ref(), false)?);
    }
    let with = |direct| mount_erofs_with(&directory.join(INDEX), &tar, direct);
    match with(!is_fresh(&tar) && reads_blocks_directly(&tar)) {
        Err(mount::Error::Mount { source, .. }) if source.kind() == std::io::ErrorKind::InvalidInput => {
            Ok(with(false)?)
        }
        mounted => Ok(mounted?),
    }
}

fn is_fresh(tar: &Path) -> bool {
    let written = fs::metadata(tar).and_then(|metadata| metadata.modified());
    // A clock that was set back makes the age an error: then the tar counts as old.
    written.ok().and_then(|time| time.elapsed().ok()).is_some_and(|age| age < FRESH)
}

/// Whether direct reads may begin at every block of 512 bytes. On disks with sectors of 4096 (some by nature, encrypted ones
/// often) they may not, and EROFS would answer EIO.
fn reads_blocks_directly(tar: &Path) -> bool {
    let aligned = |align: u32| (1..=512).contains(&align);
    let status = rustix::fs::statx(CWD, tar, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::DIOALIGN);
    status.is_ok_and(|status| {
        // Linux before 6.1 and file systems that don't tell leave zeros.
        aligned(status.stx_dio_offset_align) && aligned(status.stx_dio_mem_align)
    })
}

fn mount_erofs_with(index: &Path, tar: &Path, direct: bool) -> Result<OwnedFd, mount::Error> {
    let context = mount::Context::open("erofs")?;
    // A block device that can only be read is refused to who might write.
    context.flag("ro")?;
    if direct {
        context.flag("directio")?;
    }
    context.string("source", index)?;
    context.string("device", tar)?;
    context.mount(MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV)
}

fn mount_tree(directory: &Path) -> Result<OwnedFd, Error> {
    let path = directory.join(TREE);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let tree = rustix::fs::openat(CWD, &path, flags, Mode::empty()).map_err(Error::io("open", &path))?;
    mount::clone_mount(tree.as_fd()).map_err(Error::io("clone the mount of", &path))
}
