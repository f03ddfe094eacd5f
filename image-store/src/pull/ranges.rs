//! One blob over several connections: ranges in a bounded window, handed on in order.
//!
//! Only for large blobs whose first connection was slow, as many registries limit each connection: a fast one is never
//! split, and costs no memory. Each range is held whole until its turn comes, so that a window takes at most the number
//! of connections times [`RANGE`]. Every range is asked at the registry's own address, because presigned ones expire.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt as _};
use futures_util::{FutureExt as _, stream};

use super::fetch::Fetch;
use crate::manifest::Descriptor;
use crate::registry::{self, Registry};

/// What one request asks for.
const RANGE: u64 = 2 << 20;
/// Less than this is left to the one connection.
pub(super) const FROM: u64 = 8 << 20;

/// One range that came.
pub(super) enum Part {
    /// Its bytes in order.
    Chunks(VecDeque<Bytes>),
    /// The server sent something else than the range: it knows none.
    NotAsked,
}

/// The ranges of what is left of a blob.
pub(super) struct Window<'a> {
    parts: BoxStream<'a, Result<Part, registry::Error>>,
}

impl<'a> Window<'a> {
    /// From the fetch's position to the blob's end.
    pub(super) fn new(fetch: &Fetch<'a>) -> Self {
        let (registry, blob, endpoint) = (fetch.registry, fetch.blob, fetch.endpoint);
        let starts = stream::iter((fetch.position..blob.size).step_by(RANGE as usize));
        let ranges = starts.map(move |start| range(registry, blob, endpoint, start));
        Self { parts: ranges.buffered(registry.http().config().parallel_ranges).boxed() }
    }

    /// The next range in order.
    pub(super) async fn next(&mut self) -> Option<Result<Part, registry::Error>> {
        self.parts.next().await
    }
}

fn range<'a>(
    registry: &'a Registry,
    blob: &'a Descriptor,
    endpoint: usize,
    start: u64,
) -> BoxFuture<'a, Result<Part, registry::Error>> {
    async move {
        let end = blob.size.min(start + RANGE);
        let mut stream = registry.blob_range(endpoint, &blob.digest, start, Some(end)).await?;
        if stream.offset != start {
            return Ok(Part::NotAsked);
        }
        let mut missing = end - start;
        let mut chunks = VecDeque::new();
        while missing > 0 {
            let Some(chunk) = registry.http().chunk(&mut stream.response, &stream.url).await? else {
                return Err(registry::Error::Size { url: stream.url, expected: end, actual: end - missing });
            };
            // What comes behind the range belongs to the next one, which asks for it itself.
            let wanted = chunk.slice(..usize::try_from(missing).unwrap_or(usize::MAX).min(chunk.len()));
            missing -= wanted.len() as u64;
            chunks.push_back(wanted);
        }
        Ok(Part::Chunks(chunks))
    }
    .boxed()
}
