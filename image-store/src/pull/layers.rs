//! All layers of an image: which are missing, a few at a time, each fetched by one only.
//!
//! When one fails the others are stopped and waited for: nothing of a pull that has failed still writes.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::{mpsc, watch};

use super::fetch::Fetch;
use super::ingest::Ingest;
use super::resolve::Resolved;
use super::{Error, Inner, blocking, unpack};
use crate::Digest;
use crate::error::{ErrorKind, Kind as _};
use crate::manifest::Descriptor;
use crate::progress::{Event, Progress};
use crate::registry::Registry;
use crate::store::{ImageRecord, LayerRecord};

/// Pieces on their way from the network to the disk; the HTTP client makes them up to some 100 KiB long.
const CHANNEL: usize = 32;
/// How often content that turns out bad is fetched anew.
const CONTENT_ATTEMPTS: usize = 2;

/// Brings all layers of the image into the store.
pub(super) async fn fetch_all(
    inner: &Arc<Inner>,
    registry: &Arc<Registry>,
    resolved: &Resolved,
    image: &ImageRecord,
    progress: &Progress,
) -> Result<(), Error> {
    let layers = image.layers.iter().map(|layer| (layer.blob, layer.size)).collect();
    progress.emit(&Event::Resolved { digest: resolved.digest, layers });
    // The same layer may occur twice (an empty one often does).
    let mut seen = HashSet::new();
    let wanted = image.layers.iter().filter(|layer| seen.insert(layer.diff_id)).cloned();
    let (stop, stopped) = watch::channel(false);
    let fetches: Vec<_> =
        wanted.map(|layer| named(inner, registry, layer, progress, stopped.clone())).collect();
    let parallel = inner.http.config().parallel_layers.max(1);
    let mut running = stream::iter(fetches).buffer_unordered(parallel);
    let mut outcome = Ok(());
    while let Some(result) = running.next().await {
        if outcome.is_ok() && result.is_err() {
            outcome = result;
            let _ = stop.send(true);
        }
    }
    outcome
}

/// Tells that another layer has failed.
type Stopped = watch::Receiver<bool>;

/// Ends with `work`, or with an error when another layer has failed; `work` is dropped then.
async fn unless_stopped<T>(
    mut stopped: Stopped,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        Ok(_) = stopped.wait_for(|stopped| *stopped) => Err(Error::Interrupted),
        result = work => result,
    }
}

fn named<'a>(
    inner: &'a Arc<Inner>,
    registry: &'a Arc<Registry>,
    layer: LayerRecord,
    progress: &'a Progress,
    stopped: Stopped,
) -> BoxFuture<'a, Result<(), Error>> {
    async move {
        let in_layer = |source| Error::InLayer { blob: layer.blob, source: Box::new(source) };
        fetch_layer(inner, registry, &layer, progress, stopped).await.map_err(in_layer)
    }
    .boxed()
}

async fn fetch_layer(
    inner: &Arc<Inner>,
    registry: &Arc<Registry>,
    layer: &LayerRecord,
    progress: &Progress,
    stopped: Stopped,
) -> Result<(), Error> {
    let turn = async { Ok(inner.layer_locks.lock(layer.diff_id).await) };
    let _turn = unless_stopped(stopped.clone(), turn).await?;
    if inner.has(layer) {
        progress.emit(&Event::LayerExists { layer: layer.blob });
        return Ok(());
    }
    for attempt in 1.. {
        let acquire = Ingest::acquire(&inner.store, &layer.blob, layer.size);
        let ingest = unless_stopped(stopped.clone(), acquire).await?;
        // Another process may have been the one that we waited for.
        if inner.has(layer) {
            drop(ingest);
            progress.emit(&Event::LayerExists { layer: layer.blob });
            return Ok(());
        }
        match fetch_once(inner, registry, layer, ingest, progress, stopped.clone()).await {
            Err(error) if error.is_bad_content() && attempt < CONTENT_ATTEMPTS => {
                tracing::warn!(blob = %layer.blob, error = %crate::error::chain(&error), "bad content, fetching it anew");
            }
            Err(error) => return Err(error),
            Ok(()) => break,
        }
    }
    progress.emit(&Event::LayerDone { layer: layer.blob });
    Ok(())
}

async fn fetch_once(
    inner: &Arc<Inner>,
    registry: &Arc<Registry>,
    layer: &LayerRecord,
    mut ingest: Ingest,
    progress: &Progress,
    stopped: Stopped,
) -> Result<(), Error> {
    let (sender, receiver) = mpsc::channel(CHANNEL);
    let blob = Descriptor { media_type: layer.media_type.clone(), digest: layer.blob, size: layer.size };
    let fetch = Fetch::new(registry, &blob, progress, sender, ingest.length);
    let (store, layer, told) = (inner.store.clone(), layer.clone(), progress.clone());
    // Dropping this future, or stopping it, drops the sender: the thread sees the channel end without `Piece::End` and gives up.
    let disk = blocking(move || {
        let unpacked = unpack::unpack(&store, &layer, &mut ingest, receiver, &told);
        match unpacked {
            Ok(_) => ingest.finish(),
            Err(error) => {
                // On a full disk what was kept is in the way of whatever comes next.
                if error.is_bad_content() || error.kind() == ErrorKind::Exhausted {
                    ingest.forget();
                }
                Err(error)
            }
        }
    });
    let (fetched, unpacked) = tokio::join!(unless_stopped(stopped, fetch.run()), disk);
    match (fetched, unpacked?) {
        // The disk's side only knows that the network's gave up.
        (Err(error), Err(Error::Interrupted)) => Err(error),
        (_, unpacked) => unpacked,
    }
}

impl Inner {
    /// Those layers of the image that are not in the store yet.
    pub(super) fn missing(&self, image: &ImageRecord) -> Vec<Digest> {
        image.layers.iter().filter(|layer| !self.has(layer)).map(|layer| layer.diff_id).collect()
    }

    // A damaged record of a layer counts as none: the layer is written anew.
    fn has(&self, layer: &LayerRecord) -> bool {
        self.store.layers().open(&layer.layer()).is_ok()
    }
}
