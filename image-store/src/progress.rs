//! What a pull tells while it runs: events for a progress bar, a log or a CRI status, never needed for correctness.

use std::sync::{Arc, Mutex, PoisonError};

use crate::Digest;

/// One step of a pull. Byte counts are totals up to now, not differences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The name was resolved; these layers make the image.
    Resolved {
        /// The digest that the name stands for.
        digest: Digest,
        /// Each layer's blob digest and compressed size in bytes.
        layers: Vec<(Digest, u64)>,
    },
    /// The layer is in the store already.
    LayerExists {
        /// The layer's blob.
        layer: Digest,
    },
    /// Bytes of the compressed blob that arrived.
    Fetched {
        /// The layer's blob.
        layer: Digest,
        /// Compressed bytes up to now.
        bytes: u64,
    },
    /// Bytes of the tar that went into the layer store.
    Unpacked {
        /// The layer's blob.
        layer: Digest,
        /// Uncompressed bytes up to now.
        bytes: u64,
    },
    /// The layer is verified and in the store.
    LayerDone {
        /// The layer's blob.
        layer: Digest,
    },
    /// Something went wrong that may pass; the next attempt comes after `delay_ms`.
    Retry {
        /// What is fetched.
        what: String,
        /// Why the attempt failed.
        reason: String,
        /// Milliseconds until the next attempt.
        delay_ms: u64,
    },
}

type Sink = Arc<dyn Fn(&Event) + Send + Sync>;

/// Where events go: to nobody, or to each sink that was added. Clones share the sinks.
#[derive(Clone, Default)]
pub struct Progress {
    sinks: Arc<Mutex<Vec<Sink>>>,
}

impl Progress {
    /// Sends events to `sink`, which must not block.
    pub fn to(sink: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self { sinks: Arc::new(Mutex::new(vec![Arc::new(sink)])) }
    }

    /// Adds the sinks of `other`: a second caller joined the same pull.
    pub fn join(&self, other: &Self) {
        if Arc::ptr_eq(&self.sinks, &other.sinks) {
            return;
        }
        let theirs = other.sinks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner).extend(theirs);
    }

    /// Tells everyone.
    pub fn emit(&self, event: &Event) {
        let sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for sink in sinks {
            sink(event);
        }
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}
