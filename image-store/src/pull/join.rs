//! Equal pulls under way are one pull.
//!
//! Equal means: the same name, platform and namespace *and the same credentials*: nobody gets an image through another's
//! access. The pull runs as long as one of those who wait for it does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{self, BoxFuture, WeakShared};

use super::{Error, PullOptions, Pulled};
use crate::{Progress, Reference};

pub(super) type Shared = future::Shared<BoxFuture<'static, Result<Pulled, Arc<Error>>>>;

/// What makes two pulls equal.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    reference: String,
    platform: Option<String>,
    namespace: String,
    credentials: Option<[u8; 32]>,
}

impl Key {
    pub(super) fn new(reference: &Reference, options: &PullOptions) -> Self {
        Self {
            reference: reference.to_string(),
            platform: options.platform.as_ref().map(ToString::to_string),
            namespace: options.namespace.clone(),
            credentials: options.credentials.as_ref().map(crate::Credentials::fingerprint),
        }
    }
}

/// A pull under way, which this entry does not keep alive.
pub(super) struct Running {
    future: WeakShared<BoxFuture<'static, Result<Pulled, Arc<Error>>>>,
    progress: Progress,
}

impl Running {
    pub(super) fn new(shared: &Shared, progress: Progress) -> Option<Self> {
        Some(Self { future: shared.downgrade()?, progress })
    }

    pub(super) fn join(&self, progress: &Progress) -> Option<Shared> {
        let shared = self.future.upgrade().filter(|shared| shared.peek().is_none())?;
        self.progress.join(progress);
        Some(shared)
    }

    pub(super) fn is_running(&self) -> bool {
        self.future.upgrade().is_some_and(|shared| shared.peek().is_none())
    }
}

pub(super) fn lock(joins: &Mutex<HashMap<Key, Running>>) -> MutexGuard<'_, HashMap<Key, Running>> {
    joins.lock().unwrap_or_else(PoisonError::into_inner)
}
