//! Pulling an image: resolve the name, fetch what is missing, record last.
//!
//! ```text
//! resolve    manifest by tag or digest, with the caller's own credentials (an index: choose, fetch the manifest)
//! lease      blobs and layers, before looking which are there: a sweep leaves them alone
//! config     checked against the manifest
//! layers     in parallel, each: socket → digest → decompress → diff-id → layer store   (`fetch`, `unpack`)
//! record     image, then its names
//! ```
//!
//! Equal pulls join; different pulls that need the same layer wait for one another, in this process and between
//! processes (`ingest`), and find it there. A pull that is dropped or killed leaves partial downloads, which the next
//! one goes on with, and nothing under a name.

mod error;
mod fetch;
mod ingest;
mod join;
mod layers;
mod ranges;
mod resolve;
mod unpack;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;

pub use error::Error;
pub(crate) use resolve::image_record;
pub(crate) use unpack::copy as unpack_into;

use crate::manifest::Platform;
use crate::progress::Progress;
use crate::registry::transport::Transport;
use crate::registry::{self, Registry};
use crate::store::record::{self, ImageRecord, RefRecord};
use crate::{Credentials, Digest, Reference, Store};

/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Credentials for the registry; without, the configuration files are asked (docker's and containers'), then anonymous.
    pub credentials: Option<Credentials>,
    /// Another platform than this machine's.
    pub platform: Option<Platform>,
    /// Who listens.
    pub progress: Progress,
    /// Pulls with different values never join: runtime handler, policy namespace.
    pub namespace: String,
}

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image's id: the digest of its configuration.
    pub id: Digest,
    /// What the name resolved to: the digest of the index, or of the manifest.
    pub digest: Digest,
    /// `registry/repository@digest`.
    pub repo_digest: String,
}

/// Pulls images into one store; knows the pulls under way, so that equal ones join. Make one a process. Clones share.
#[derive(Clone)]
pub struct Puller {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    http: Arc<Transport>,
    joins: Mutex<HashMap<join::Key, join::Running>>,
    layer_locks: ingest::Locks,
}

impl Puller {
    /// A puller into this store, with the configuration of registries from the usual files.
    pub fn new(store: Store) -> Result<Self, Error> {
        Self::with_config(store, registry::Config::from_env())
    }

    /// A puller with this configuration.
    pub fn with_config(store: Store, config: registry::Config) -> Result<Self, Error> {
        let http = Arc::new(Transport::new(config)?);
        let inner = Inner { store, http, joins: Mutex::default(), layer_locks: ingest::Locks::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The store that it pulls into.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Pulls. Equal calls (name, credentials, platform, namespace) join; dropping the last one's future stops the pull,
    /// and what a reader finds then is whole or not there.
    pub async fn pull(&self, reference: &Reference, options: &PullOptions) -> Result<Pulled, Arc<Error>> {
        let key = join::Key::new(reference, options);
        let running = self.join_or_start(&key, reference, options);
        let result = running.await;
        self.forget_finished();
        result
    }

    fn join_or_start(&self, key: &join::Key, reference: &Reference, options: &PullOptions) -> join::Shared {
        let mut joins = join::lock(&self.inner.joins);
        if let Some(shared) = joins.get(key).and_then(|running| running.join(&options.progress)) {
            return shared;
        }
        // A sink list of its own: those who join are added to it, and the caller's is not changed.
        let progress = Progress::default();
        progress.join(&options.progress);
        let options = PullOptions { progress: progress.clone(), ..options.clone() };
        let (inner, reference) = (Arc::clone(&self.inner), reference.clone());
        let shared = async move { inner.pull(&reference, &options).await.map_err(Arc::new) }.boxed().shared();
        if let Some(running) = join::Running::new(&shared, progress) {
            joins.insert(key.clone(), running);
        }
        shared
    }

    fn forget_finished(&self) {
        join::lock(&self.inner.joins).retain(|_, running| running.is_running());
    }
}

impl Inner {
    async fn pull(self: Arc<Self>, reference: &Reference, options: &PullOptions) -> Result<Pulled, Error> {
        let registry =
            Arc::new(Registry::new(Arc::clone(&self.http), reference, options.credentials.clone())?);
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let resolved = resolve::resolve(&registry, reference, &platform, &options.progress).await?;
        let image = resolved.record()?;
        let store = self.store.clone();
        let (blobs, diff_ids) =
            (resolved.blobs(), image.layers.iter().map(|l| l.diff_id).collect::<Vec<_>>());
        let lease = blocking(move || store.lease(&blobs, &diff_ids)).await??;
        let fetched = self.missing(&image);
        let all = layers::fetch_all(&self, &registry, &resolved, &image, &options.progress).await;
        let (store, reference) = (self.store.clone(), reference.clone());
        let pulled = blocking(move || {
            let pulled = all.and_then(|()| record_image(&store, &reference, &resolved, &image));
            drop(lease);
            pulled.inspect_err(|error| store.after_failure(error, &fetched, &resolved.blobs()))
        });
        pulled.await?
    }
}

fn record_image(
    store: &Store,
    reference: &Reference,
    resolved: &resolve::Resolved,
    image: &ImageRecord,
) -> Result<Pulled, Error> {
    for document in &resolved.documents {
        store.put_blob(document)?;
    }
    crate::fault::point("pull.record")?;
    let repo_digest = reference.with_digest(&resolved.digest);
    let name = |name: String| RefRecord {
        version: record::VERSION,
        name,
        image: image.id,
        digest: resolved.digest,
        blobs: resolved.blobs(),
        updated: record::now(),
    };
    let mut names = vec![name(repo_digest.clone())];
    // By digest the tag is only a remark, as everywhere: it need not point there.
    if reference.digest().is_none() {
        names.extend(reference.tagged().map(name));
    }
    store.add_image(image, &names)?;
    Ok(Pulled { id: image.id, digest: resolved.digest, repo_digest })
}

/// Runs what may wait for the disk where it may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Interrupted)
}

impl std::fmt::Debug for Puller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Puller").field("store", &self.inner.store).finish_non_exhaustive()
    }
}
