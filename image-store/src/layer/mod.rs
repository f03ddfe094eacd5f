//! Layers on disk: committed whole or not at all, mounted without being unpacked where the kernel can.
//!
//! ```text
//! <root>/layers/<hex of the diff-id>/layer.json   which back end, sizes, digest of the index
//!                                   /layer.tar    EROFS back end: the uncompressed tar, padded to 512 bytes
//!                                   /index.erofs  EROFS back end: names and metadata, extents point into layer.tar
//!                                   /tree/        tree back end: the files themselves
//! <root>/layers/.staging/<hex>.<n>/               a layer being written, locked by its writer
//! <root>/layers/.trash/<hex>.<n>/                 a removed layer whose files are being unlinked
//! ```
//!
//! A directory below `layers/` is renamed into place when all in it is synced, so what has a diff-id for its name is
//! whole. A crash leaves at most a directory in `.staging` or `.trash`; [`LayerStore::sweep`] removes those whose
//! writer is gone (the lock on the directory tells).

mod backing;
mod choice;
mod diff_id;
mod erofs_layers;
mod error;
pub(crate) mod model;
mod path;
mod record;
mod staging;
mod store;
mod tree_digest;
mod tree_layers;
mod writer;
pub(crate) mod xattr;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

pub use backing::{Backing, SWITCH as BACKING_SWITCH};
pub use choice::{open_store, why_not_erofs};
pub use diff_id::DiffId;
pub use erofs_layers::ErofsLayers;
pub(crate) use erofs_layers::TAR;
pub use error::Error;
pub use path::PathError;
pub use tree_layers::TreeLayers;
pub use writer::LayerWriter;

/// Which of the two back ends wrote a layer; recorded with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackEnd {
    /// `layer.tar` and `index.erofs`, mounted by the kernel as they are.
    Erofs,
    /// Unpacked files.
    Tree,
}

/// A store of uncompressed layers by diff-id.
pub trait LayerStore: Send + Sync {
    /// Begins to write a layer; several writers of the same diff-id do not disturb each other, the first to finish wins.
    fn begin(&self, diff_id: DiffId) -> Result<LayerWriter, Error>;
    /// Looks a committed layer up; `Error::NotFound` when there is none.
    fn open(&self, diff_id: &DiffId) -> Result<CommittedLayer, Error>;
    /// All committed layers, in no order. Unreadable records are listed as errors of [`LayerStore::open`].
    fn list(&self) -> Result<Vec<DiffId>, Error>;
    /// Mounts a layer for use as a lower of overlays, attached nowhere. While the result of an earlier call lives, that mount
    /// is shared. Whiteouts show in it as they are stored; a mount of a tree is not read-only by itself.
    fn mount(&self, diff_id: &DiffId) -> Result<Arc<LayerMount>, Error>;
    /// Reads the whole layer and compares it with its digests.
    fn verify(&self, diff_id: &DiffId) -> Result<(), Error>;
    /// Removes a layer; existing mounts of it go on. Needs no free space.
    fn remove(&self, diff_id: &DiffId) -> Result<(), Error>;
    /// Blocks and inodes that committed, staged and removed-but-not-gone layers take.
    fn usage(&self) -> Result<Usage, Error>;
    /// Removes what writers and removals that were killed left behind; returns how many directories.
    fn sweep(&self) -> Result<usize, Error>;
}

/// A layer that is whole on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedLayer {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Which back end holds it.
    pub back_end: BackEnd,
    /// Its directory.
    pub path: PathBuf,
    /// Length of the uncompressed tar in bytes.
    pub tar_size: u64,
    /// Bytes that it takes on disk.
    pub disk_bytes: u64,
    /// Number of inodes of the layer's tree.
    pub inodes: u64,
    /// Its root is opaque: no layer below it shows. An overlay does not heed that mark on a root, see [`visible`].
    pub is_opaque: bool,
}

/// The layers of an image that show, given from the lowest up: those above the last opaque one, and it.
#[must_use]
pub fn visible(layers: &[CommittedLayer]) -> &[CommittedLayer] {
    let lowest = layers.iter().rposition(|layer| layer.is_opaque).unwrap_or(0);
    &layers[lowest..]
}

/// Mounts what shows of an image whose layers are given from the lowest up. The mounts come uppermost first, as
/// [`crate::mount::overlay`] takes them.
///
/// A repeated layer (empty ones often are) is mounted once, at its uppermost place: overlay refuses the same lower twice,
/// and everything of the lower one, whiteouts included, is hidden by the upper one.
pub fn mount_image(store: &dyn LayerStore, diff_ids: &[DiffId]) -> Result<Vec<Arc<LayerMount>>, Error> {
    let layers = diff_ids.iter().map(|diff_id| store.open(diff_id)).collect::<Result<Vec<_>, _>>()?;
    let mut mounts: Vec<Arc<LayerMount>> = Vec::new();
    for layer in visible(&layers).iter().rev() {
        if mounts.iter().all(|mount| mount.diff_id != layer.diff_id) {
            mounts.push(store.mount(&layer.diff_id)?);
        }
    }
    Ok(mounts)
}

/// A detached mount of one layer. Dropping the last clone of the descriptor unmounts it where it is attached
/// nowhere.
#[derive(Debug)]
pub struct LayerMount {
    /// Which layer.
    pub diff_id: DiffId,
    pub(crate) fd: OwnedFd,
}

impl AsFd for LayerMount {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What a store takes on its file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in allocated blocks.
    pub bytes: u64,
    /// Files, directories and other inodes.
    pub inodes: u64,
}

/// Which back end new layers get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// EROFS where the kernel release and the file system of the root allow it, else the tree.
    #[default]
    Automatic,
    /// Only this one; an error where it can't work.
    Only(BackEnd),
}
