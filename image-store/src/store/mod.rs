//! The store on disk: blobs, image records, leases, and the locks between processes that share it.
//!
//! ```text
//! <root>/lock                       flock: shared by whoever adds or reads, exclusive by who sweeps or repairs
//! <root>/blobs/sha256/<hex>         manifests, indexes, configurations
//! <root>/layers/                    see `crate::layer`
//! <root>/images/<hex of id>.json    one record an image; the id is the digest of its configuration
//! <root>/images/refs/<name>.json    one record a name, `/` and the like percent-encoded
//! <root>/ingest/<hex>/{lock,data}   a layer's blob being fetched: compressed bytes up to where it stopped
//! <root>/leases/<id>.json           what must not be swept though no record names it yet
//! ```
//!
//! Every file is written to `.<name>.<n>.tmp`, synced, renamed, and its directory synced. A crash leaves at most
//! temporary files, a lease of a dead process, or blobs and layers that nothing names: [`Store::gc`] takes them.

pub mod blobs;
pub mod error;
pub mod file;
pub mod fsck;
pub mod gc;
pub mod images;
pub mod lease;
pub mod record;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::Error;
pub use fsck::{Finding, FsckOptions, FsckReport};
pub use gc::{GcOptions, GcReport};
pub use images::{Image, Removed};
pub use lease::Lease;
pub use record::{ImageRecord, LayerRecord, RefRecord};

use crate::layer::{self, Choice, LayerStore};

/// The directory that is used when nobody names another.
pub const DEFAULT_ROOT: &str = "/var/lib/coracle";

/// An open store. Clones are cheap and share all state.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    layers: Box<dyn LayerStore>,
}

/// How a process holds the store: many that add and read, or one that sweeps.
#[derive(Debug)]
pub struct Guard {
    _lock: File,
}

impl Store {
    /// Opens the store below `root` and makes its directories where they are missing.
    pub fn open(root: &Path, choice: Choice) -> Result<Self, Error> {
        for directory in ["", "blobs/sha256", "images/refs", "ingest", "leases", "layers"] {
            let path = root.join(directory);
            file::create_dirs(&path).map_err(Error::io("create directory", &path))?;
        }
        let root = root.canonicalize().map_err(Error::io("resolve", root))?;
        let layers = layer::open_store(&root, choice)?;
        Ok(Self { inner: Arc::new(Inner { root, layers }) })
    }

    /// The directory of the store, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The layers of the store.
    #[must_use]
    pub fn layers(&self) -> &dyn LayerStore {
        self.inner.layers.as_ref()
    }

    /// Holds the store against sweeping. Waits while somebody sweeps; blocking.
    pub fn share(&self) -> Result<Guard, Error> {
        self.lock(rustix::fs::FlockOperation::LockShared)
    }

    /// Holds the store alone. Waits for everyone who shares it; blocking.
    pub fn exclusive(&self) -> Result<Guard, Error> {
        self.lock(rustix::fs::FlockOperation::LockExclusive)
    }

    fn lock(&self, how: rustix::fs::FlockOperation) -> Result<Guard, Error> {
        let path = self.path("lock");
        let lock = file::open_lock(&path).map_err(Error::io("open", &path))?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&lock, how))
            .map_err(|errno| Error::io("lock", &path)(errno.into()))?;
        Ok(Guard { _lock: lock })
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.inner.root.join(below)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("root", &self.inner.root).finish_non_exhaustive()
    }
}
