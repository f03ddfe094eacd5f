//! The network's half of a layer: a blob's bytes in order, whatever happens to the connection.
//!
//! A connection that breaks or stalls is replaced by one that begins at the first byte still missing; a server that
//! knows no ranges has its first bytes passed over. Pieces go through a bounded channel, so that the network waits for
//! the disk; waiting for it counts as progress.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Error;
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
    pub(super) progress: &'a Progress,
    pub(super) pieces: mpsc::Sender<Piece>,
    /// Bytes handed on so far.
    pub(super) position: u64,
    /// The endpoint to ask.
    pub(super) endpoint: usize,
}

impl Fetch<'_> {
    /// Fetches to the end. That the other side went away is no error here: it has its own to tell.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        let origin = self.registry.endpoint_count().saturating_sub(1);
        let mut retry = Retry::new(self.registry.http().config().attempts);
        while self.position < self.blob.size {
            let before = self.position;
            let Err(error) = self.once().await else { break };
            if self.position > before {
                retry.progress();
            }
            if self.endpoint < origin && !error.may_pass() {
                self.endpoint = origin;
                continue;
            }
            let Some(delay) = retry.delay(&error) else {
                if self.endpoint < origin {
                    (self.endpoint, retry) = (origin, Retry::new(self.registry.http().config().attempts));
                    continue;
                }
                return Err(error.into());
            };
            tell_retry(self.progress, &self.blob.digest.to_string(), &error, delay);
            tokio::time::sleep(delay).await;
        }
        let _ = self.pieces.send(Piece::End).await;
        Ok(())
    }

    async fn once(&mut self) -> Result<(), registry::Error> {
        let mut stream = self.registry.blob(self.endpoint, &self.blob.digest, self.position).await?;
        let mut skip = self.position - stream.offset;
        while let Some(chunk) = self.registry.http().chunk(&mut stream.response, &stream.url).await? {
            let passed = skip.min(chunk.len() as u64);
            skip -= passed;
            let chunk = chunk.slice(passed as usize..);
            if chunk.is_empty() {
                continue;
            }
            // More than the blob's size ends up at the other side, which refuses it.
            self.position += chunk.len() as u64;
            if self.pieces.send(Piece::Data(chunk)).await.is_err() {
                return Ok(());
            }
            self.progress.emit(&Event::Fetched { layer: self.blob.digest, bytes: self.position });
            if self.position > self.blob.size {
                return Ok(());
            }
        }
        if self.position < self.blob.size {
            return Err(registry::Error::Size {
                url: stream.url,
                expected: self.blob.size,
                actual: self.position,
            });
        }
        Ok(())
    }
}

/// Tells that something is tried again.
pub(super) fn tell_retry(progress: &Progress, what: &str, error: &registry::Error, delay: Duration) {
    let reason = crate::error::chain(error);
    tracing::debug!(what, reason, ?delay, "trying again");
    let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    progress.emit(&Event::Retry { what: what.to_owned(), reason, delay_ms });
}
