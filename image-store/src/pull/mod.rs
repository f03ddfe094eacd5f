//! Pulling an image: resolve the name, fetch what is missing, record last.

use std::sync::Arc;

use crate::error::{ErrorKind, Kind};
use crate::manifest::Platform;
use crate::progress::Progress;
use crate::{Credentials, Digest, Reference, Store, store};

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

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Not built yet.
    #[error("pulling is not supported by this build")]
    Unsupported,
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Unsupported => ErrorKind::Unsupported,
        }
    }
}

/// Pulls images into one store; knows the pulls under way, so that equal ones join. Make one a process. Clones share.
#[derive(Clone, Debug)]
pub struct Puller {
    store: Store,
}

impl Puller {
    /// A puller into this store, with the configuration of registries from the usual files.
    pub fn new(store: Store) -> Result<Self, Error> {
        Ok(Self { store })
    }

    /// The store that it pulls into.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Pulls. Equal calls (name, credentials, platform, namespace) join; dropping the last one's future stops the pull,
    /// and what a reader finds then is whole or not there.
    pub async fn pull(&self, _reference: &Reference, _options: &PullOptions) -> Result<Pulled, Arc<Error>> {
        Err(Arc::new(Error::Unsupported))
    }
}
