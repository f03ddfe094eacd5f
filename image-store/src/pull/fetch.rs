//! The network's half of a layer: a blob's bytes in order, whatever happens to the connection.
//!
//! A connection that breaks or stalls is replaced by one that begins at the first byte still missing; a server that
//! knows no ranges has its first bytes passed over. Pieces go through a bounded channel, so that the network waits for
//! the disk; waiting for it counts as progress. A large blob whose one connection proves slow goes on by several
//! (`ranges`).

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Error, ranges};
use crate::manifest::Descriptor;
use crate::progress::{Event, Progress};
use crate::registry::retry::Retry;
use crate::registry::{self, Registry};

/// What goes through the channel.
#[derive(Debug)]
pub(super) enum Piece {
    /// The next bytes of the blob.
    Data(Bytes),
    /// The blob is complete. Without this, the end of the channel means that the pull was dropped.
    End,
}

/// One blob being fetched.
pub(super) struct Fetch<'a> {
    pub(super) registry: &'a Registry,
    pub(super) blob: &'a Descriptor,
    progress: &'a Progress,
    pieces: mpsc::Sender<Piece>,
    /// Bytes handed on so far.
    pub(super) position: u64,
    /// The endpoint to ask.
    pub(super) endpoint: usize,
    /// How long the network was waited for.
    waited: Duration,
    /// The server was seen to send ranges that nobody asked for.
    pub(super) without_ranges: bool,
}

/// How a connection ended that did not break.
enum Ended {
    /// With the blob, or because nobody listens any more.
    Done,
    /// It is slow: several shall go on.
    Slow,
}

impl<'a> Fetch<'a> {
    /// What is left of a blob from `position` on.
    pub(super) const fn new(
        registry: &'a Registry,
        blob: &'a Descriptor,
        progress: &'a Progress,
        pieces: mpsc::Sender<Piece>,
        position: u64,
    ) -> Self {
        let (waited, without_ranges) = (Duration::ZERO, false);
        Self { registry, blob, progress, pieces, position, endpoint: 0, waited, without_ranges }
    }

    /// Fetches to the end. That the other side went away is no error here: it has its own to tell.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        let origin = self.registry.endpoint_count().saturating_sub(1);
        let mut retry = Retry::new(self.registry.http().config().attempts);
        while self.position < self.blob.size {
            let before = self.position;
            let attempt = if self.is_slow() { self.by_ranges().await } else { self.once().await };
            let error = match attempt {
                Ok(Ended::Done) => break,
                Ok(Ended::Slow) => continue,
                Err(error) => error,
            };
            let progress = self.position > before;
            if progress {
                retry.progress();
            }
            // A mirror that gives nothing is passed over at once, one that breaks off is asked for the rest.
            let delay = if self.endpoint < origin && !progress { None } else { retry.delay(&error) };
            let Some(delay) = delay else {
                if self.endpoint == origin {
                    return Err(error.into());
                }
                tracing::info!(error = %crate::error::chain(&error), "mirror passed over");
                (self.endpoint, self.without_ranges) = (self.endpoint + 1, false);
                retry = Retry::new(self.registry.http().config().attempts);
                continue;
            };
            tell_retry(self.progress, &self.blob.digest.to_string(), &error, delay);
            tokio::time::sleep(delay).await;
        }
        let _ = self.pieces.send(Piece::End).await;
        Ok(())
    }

    /// Whether several connections shall fetch what is left.
    fn is_slow(&self) -> bool {
        let config = self.registry.http().config();
        config.parallel_ranges > 1
            && !self.without_ranges
            && self.waited >= config.ranges_after
            && self.blob.size - self.position >= ranges::FROM
    }

    async fn by_ranges(&mut self) -> Result<Ended, registry::Error> {
        let mut window = ranges::Window::new(self);
        while let Some(chunks) = window.next().await {
            match chunks? {
                ranges::Part::Chunks(chunks) => {
                    for chunk in chunks {
                        if !self.hand_on(chunk).await {
                            return Ok(Ended::Done);
                        }
                    }
                }
                ranges::Part::NotAsked => {
                    self.without_ranges = true;
                    return Ok(Ended::Slow);
                }
            }
        }
        Ok(Ended::Done)
    }

    /// Hands bytes on; whether somebody still wants more.
    async fn hand_on(&mut self, chunk: Bytes) -> bool {
        // More than the blob's size ends up at the other side, which refuses it.
        self.position += chunk.len() as u64;
        if self.pieces.send(Piece::Data(chunk)).await.is_err() {
            return false;
        }
        self.progress.emit(&Event::Fetched { layer: self.blob.digest, bytes: self.position });
        self.position <= self.blob.size
    }

    async fn once(&mut self) -> Result<Ended, registry::Error> {
        let mut stream = self.registry.blob(self.endpoint, &self.blob.digest, self.position).await?;
        let mut skip = self.position - stream.offset;
        loop {
            let asked = Instant::now();
            let chunk = self.registry.http().chunk(&mut stream.response, &stream.url).await?;
            self.waited += asked.elapsed();
            let Some(chunk) = chunk else { break };
            let passed = skip.min(chunk.len() as u64);
            skip -= passed;
            let chunk = chunk.slice(passed as usize..);
            if chunk.is_empty() {
                continue;
            }
            if !self.hand_on(chunk).await {
                return Ok(Ended::Done);
            }
            if self.is_slow() {
                return Ok(Ended::Slow);
            }
        }
        if self.position < self.blob.size {
            return Err(registry::Error::Size {
                url: stream.url,
                expected: self.blob.size,
                actual: self.position,
            });
        }
        Ok(Ended::Done)
    }
}

/// Tells that something is tried again.
pub(super) fn tell_retry(progress: &Progress, what: &str, error: &registry::Error, delay: Duration) {
    let reason = crate::error::chain(error);
    tracing::debug!(what, reason, ?delay, "trying again");
    let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    progress.emit(&Event::Retry { what: what.to_owned(), reason, delay_ms });
}
