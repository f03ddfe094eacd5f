//! Streams over a WebSocket: the first byte of each message names the channel.
//!
//! The base64 form sends text, with the channel as a digit. In `v5.channel.k8s.io` a client's message of 255 and a
//! channel closes that channel; a server closes all of them at once. As with SPDY one task reads and one writes, everything between them is bounded, and both end with the
//! connection.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;

use super::channels::{Gone, Input};

/// Largest message of a client.
const MAX_MESSAGE: usize = 4 << 20;
/// Messages that wait: to be written, and per channel to be read.
const QUEUE: usize = 16;
/// Between two pings.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long the client may take to close.
const FAREWELL: Duration = Duration::from_secs(5);
/// The channel on which v5 closes others.
const CLOSE: u8 = 255;
/// Bytes of a tunnel under way in each direction.
const TUNNEL: usize = 64 * 1024;

/// How bytes and channels become messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) base64: bool,
    /// The client can close channels one by one (v5).
    pub(super) half_close: bool,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    outbound: mpsc::Sender<Message>,
    gone: CancellationToken,
    form: Form,
    tasks: JoinSet<()>,
}

/// The sending side of a channel.
#[derive(Debug)]
pub(super) struct Output {
    channel: u8,
    form: Form,
    outbound: mpsc::Sender<Message>,
    gone: CancellationToken,
}

type Socket<S> = WebSocketStream<S>;

async fn socket<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> Socket<S> {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MAX_MESSAGE);
    config.max_frame_size = Some(MAX_MESSAGE);
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

impl Connection {
    /// Serves a connection whose upgrade is done; the client's messages on `readable` channels come out of the inputs.
    pub(super) async fn new<S>(io: S, form: Form, readable: &[u8]) -> (Self, BTreeMap<u8, Input>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sink, stream) = socket(io).await.split();
        let (outbound, messages) = mpsc::channel(QUEUE);
        let gone = CancellationToken::new();
        let mut senders = BTreeMap::new();
        let mut inputs = BTreeMap::new();
        for channel in readable {
            let (sender, chunks) = mpsc::channel(QUEUE);
            senders.insert(*channel, sender);
            inputs.insert(*channel, Input::new(chunks, None));
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(write_messages(sink, messages, gone.clone()));
        tasks.spawn(read_messages(stream, senders, form, gone.clone()));
        (Self { outbound, gone, form, tasks }, inputs)
    }

    pub(super) fn output(&self, channel: u8) -> Output {
        let (outbound, gone) = (self.outbound.clone(), self.gone.clone());
        Output { channel, form: self.form, outbound, gone }
    }

    /// Resolves when the connection is gone.
    pub(super) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Sends what is queued and a close message, then lets the client close.
    pub(super) async fn finish(mut self) {
        let farewell = async {
            // Without a code Go's clients call it an error.
            let normal = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
            let _ = self.outbound.send(Message::Close(Some(normal))).await;
            while self.tasks.join_next().await.is_some() {}
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

impl Output {
    /// Sends one message, also an empty one.
    pub(super) async fn write(&self, bytes: Bytes) -> Result<(), Gone> {
        self.send(encode(self.channel, &bytes, self.form.base64)).await
    }

    async fn send(&self, message: Message) -> Result<(), Gone> {
        tokio::select! {
            sent = self.outbound.send(message) => sent.map_err(|_| Gone),
            () = self.gone.cancelled() => Err(Gone),
        }
    }
}

fn encode(channel: u8, bytes: &[u8], base64: bool) -> Message {
    if base64 {
        return Message::text(format!("{}{}", char::from(b'0' + channel), STANDARD.encode(bytes)));
    }
    let mut message = BytesMut::with_capacity(1 + bytes.len());
    message.put_u8(channel);
    message.put_slice(bytes);
    Message::Binary(message.freeze())
}

/// Channel and bytes of a message; `None` where it is none of the protocol.
fn decode(message: Message, base64: bool) -> Option<(u8, Bytes)> {
    let bytes = match message {
        Message::Binary(bytes) => bytes,
        Message::Text(text) => text.into(),
        _ => return None,
    };
    let channel = *bytes.first()?;
    if !base64 {
        return Some((channel, bytes.slice(1..)));
    }
    Some((channel.checked_sub(b'0')?, STANDARD.decode(&bytes[1..]).ok()?.into()))
}

async fn read_messages<S>(
    mut from: SplitStream<Socket<S>>,
    mut inputs: BTreeMap<u8, mpsc::Sender<Bytes>>,
    form: Form,
    gone: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let next = tokio::select! {
            next = from.next() => next,
            () = gone.cancelled() => break,
        };
        let Some(Ok(message)) = next else { break };
        let Some((channel, bytes)) = decode(message, form.base64) else { continue };
        if channel == CLOSE && form.half_close {
            bytes.first().and_then(|closed| inputs.remove(closed));
            continue;
        }
        let Some(input) = inputs.get(&channel).filter(|_| !bytes.is_empty()) else { continue };
        tokio::select! {
            _ = input.send(bytes) => {} // of a channel that nobody reads any more: dropped
            () = gone.cancelled() => break,
        }
    }
    gone.cancel();
}

async fn write_messages<S>(
    mut to: SplitSink<Socket<S>, Message>,
    mut messages: mpsc::Receiver<Message>,
    gone: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut pings = tokio::time::interval(KEEP_ALIVE);
    pings.reset();
    loop {
        let message = tokio::select! {
            biased;
            message = messages.recv() => message,
            _ = pings.tick() => Some(Message::Ping(Bytes::new())),
            () = gone.cancelled() => None,
        };
        let Some(message) = message else { break };
        let last = matches!(message, Message::Close(_));
        let sent = tokio::select! {
            sent = to.send(message) => sent,
            () = gone.cancelled() => break,
        };
        if sent.is_err() {
            gone.cancel();
            break;
        }
        if last {
            break;
        }
    }
}

/// A byte stream inside the messages of a WebSocket (SPDY, tunnelled by port forwarding), and the task that carries it.
pub(super) async fn tunnel<S>(io: S) -> (DuplexStream, JoinSet<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(TUNNEL);
    let mut tasks = JoinSet::new();
    let socket = socket(io).await;
    tasks.spawn(carry(socket, theirs));
    (ours, tasks)
}

async fn carry<S: AsyncRead + AsyncWrite + Unpin>(socket: Socket<S>, inner: DuplexStream) {
    let (mut sink, mut stream) = socket.split();
    let (read, mut write) = tokio::io::split(inner);
    let up = async {
        while let Some(Ok(message)) = stream.next().await {
            let Message::Binary(bytes) = message else { continue };
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut chunks = tokio_util::io::ReaderStream::new(read);
        while let Some(Ok(bytes)) = chunks.next().await {
            if sink.send(Message::Binary(bytes)).await.is_err() {
                return;
            }
        }
        let _ = sink.send(Message::Close(None)).await;
    };
    // Either end is the end of both.
    tokio::select! { () = up => {}, () = down => {} }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_their_channel() {
        let binary = encode(1, b"out", false);
        assert_eq!(binary, Message::Binary(Bytes::from_static(b"\x01out")));
        assert_eq!(decode(binary, false), Some((1, Bytes::from_static(b"out"))));
        let text = encode(3, b"{}", true);
        assert_eq!(text, Message::text("3e30="));
        assert_eq!(decode(text, true), Some((3, Bytes::from_static(b"{}"))));
        assert_eq!(decode(Message::text("0!!"), true), None);
        assert_eq!(decode(Message::Binary(Bytes::new()), false), None);
    }
}
