//! What exec, attach and port forwarding see of a client, whichever protocol it speaks.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{spdy, websocket};

/// The client is gone, or has reset the stream.
#[derive(Debug, thiserror::Error)]
#[error("the client is gone")]
pub(super) struct Gone;

/// What a client sends on one of its streams.
#[derive(Debug)]
pub(super) struct Input {
    chunks: mpsc::Receiver<Bytes>,
    credit: Option<spdy::Credit>,
}

impl Input {
    pub(super) const fn new(chunks: mpsc::Receiver<Bytes>, credit: Option<spdy::Credit>) -> Self {
        Self { chunks, credit }
    }

    /// The next bytes; `None` when the client has closed the stream or is gone.
    pub(super) async fn read(&mut self) -> Option<Bytes> {
        let bytes = self.chunks.recv().await?;
        if let Some(credit) = &mut self.credit {
            credit.consumed(bytes.len()).await;
        }
        Some(bytes)
    }
}

/// What a client receives on one of its streams.
#[derive(Debug)]
pub(super) enum Output {
    Spdy(spdy::Output),
    WebSocket(websocket::Output),
}

impl Output {
    pub(super) async fn write(&self, bytes: Bytes) -> Result<(), Gone> {
        match self {
            Self::Spdy(output) => output.write(bytes).await,
            Self::WebSocket(output) => output.write(bytes).await,
        }
    }

    /// Ends the stream. Those of a WebSocket end with the connection.
    pub(super) async fn close(&mut self) {
        if let Self::Spdy(output) = self {
            output.close().await;
        }
    }
}

/// The connection below the streams.
#[derive(Debug)]
pub(super) enum Transport {
    Spdy(spdy::Connection),
    WebSocket(websocket::Connection),
}

impl Transport {
    /// Resolves when the client is gone.
    pub(super) fn gone(&self) -> CancellationToken {
        match self {
            Self::Spdy(connection) => connection.gone(),
            Self::WebSocket(connection) => connection.gone(),
        }
    }

    /// Sends what is queued and closes in an orderly way.
    pub(super) async fn finish(self) {
        match self {
            Self::Spdy(connection) => connection.finish().await,
            Self::WebSocket(connection) => connection.finish().await,
        }
    }
}
