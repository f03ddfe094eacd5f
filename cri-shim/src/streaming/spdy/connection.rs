//! The server's end of a SPDY/3.1 connection: one task reads, one writes, streams are channels between them.
//!
//! Everything is bounded: a stream whose consumer is slow fills its channel, then the connection is not read any further.
//! The connection is gone when the peer closes it, when writing fails (a ping now and then finds a dead peer), or when its
//! owner drops it; both tasks end with it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::frame::{Encoder, Frame, INITIAL_WINDOW_SIZE, MAX_DATA, Reader};
use super::headers::Headers;
use super::window::{Honoured, INITIAL, Window};
use crate::streaming::channels::{Gone, Input};

/// Most streams at a time.
const MAX_STREAMS: usize = 512;
/// Frames that wait: to be written, and per stream to be read.
const QUEUE: usize = 16;
/// Between two pings.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long the peer may take to close after it was told that this is the end.
const FAREWELL: Duration = Duration::from_secs(5);
/// Bytes consumed before the peer is told that there is room again.
const CREDIT: usize = 16 * 1024;

const PROTOCOL_ERROR: u32 = 1;
const INVALID_STREAM: u32 = 2;
const REFUSED_STREAM: u32 = 3;

/// A connection.
#[derive(Debug)]
pub(in crate::streaming) struct Connection {
    incoming: mpsc::Receiver<Stream>,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

/// A stream that the client has opened and that is not answered yet.
#[derive(Debug)]
pub(in crate::streaming) struct Stream {
    pub(in crate::streaming) id: u32,
    pub(in crate::streaming) headers: Headers,
    pub(in crate::streaming) input: Input,
    pub(in crate::streaming) output: Output,
}

/// The sending side of a stream.
#[derive(Debug)]
pub(in crate::streaming) struct Output {
    stream: u32,
    window: Arc<Window>,
    shared: Arc<Shared>,
    open: bool,
}

/// Tells the peer of room as its bytes are consumed.
#[derive(Debug)]
pub(in crate::streaming) struct Credit {
    stream: u32,
    consumed: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    outbound: mpsc::Sender<Frame>,
    gone: CancellationToken,
    streams: Mutex<BTreeMap<u32, Entry>>,
    honoured: Honoured,
    session: Window,
    initial: AtomicI64,
}

/// A stream as the reader sees it; it is forgotten once both directions are closed.
#[derive(Debug)]
struct Entry {
    input: Option<mpsc::Sender<Bytes>>,
    window: Arc<Window>,
    sending: bool,
}

impl Connection {
    /// Serves a connection whose upgrade is done.
    pub(in crate::streaming) fn new<S>(io: S) -> io::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(io);
        let (outbound, frames) = mpsc::channel(QUEUE);
        let (opened, incoming) = mpsc::channel(MAX_STREAMS);
        let shared = Arc::new(Shared {
            outbound,
            gone: CancellationToken::new(),
            streams: Mutex::default(),
            honoured: Honoured::default(),
            session: Window::new(INITIAL),
            initial: AtomicI64::new(INITIAL),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(write_frames(write, frames, Encoder::new()?, shared.gone.clone()));
        tasks.spawn(read_frames(read, opened, Arc::clone(&shared)));
        Ok(Self { incoming, shared, tasks })
    }

    /// The next stream that the client opens; `None` when the connection is gone.
    pub(in crate::streaming) async fn accept(&mut self) -> Option<Stream> {
        self.incoming.recv().await
    }

    /// Resolves when the connection is gone.
    pub(in crate::streaming) fn gone(&self) -> CancellationToken {
        self.shared.gone.clone()
    }

    /// Sends what is queued, says that this is the end, and lets the client close.
    pub(in crate::streaming) async fn finish(mut self) {
        let farewell = async {
            let _ = self.shared.send(Frame::GoAway { last: 0, status: 0 }).await;
            while self.tasks.join_next().await.is_some() {}
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.gone.cancel();
    }
}

impl Stream {
    /// Accepts the stream.
    pub(in crate::streaming) async fn reply(&self) -> Result<(), Gone> {
        let reply = Frame::SynReply { stream: self.id, fin: false, headers: Headers::default() };
        self.output.shared.send(reply).await
    }

    /// Refuses it.
    pub(in crate::streaming) async fn refuse(mut self) {
        self.output.reset(REFUSED_STREAM).await;
    }
}

impl Output {
    pub(in crate::streaming) async fn write(&self, mut bytes: Bytes) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let want = bytes.len().min(MAX_DATA);
            let room = self.window.take(want, &self.shared.honoured).await.ok_or(Gone)?;
            let whole = self.shared.session.take(room, &self.shared.honoured).await.ok_or(Gone)?;
            if whole < room {
                self.window.grant(i64::try_from(room - whole).unwrap_or(0));
            }
            let data = Frame::Data { stream: self.stream, fin: false, bytes: bytes.split_to(whole) };
            self.shared.send(data).await?;
        }
        Ok(())
    }

    /// Ends this direction of the stream.
    pub(in crate::streaming) async fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            let end = Frame::Data { stream: self.stream, fin: true, bytes: Bytes::new() };
            let _ = self.shared.send(end).await;
            self.shared.closed(self.stream, |entry| entry.sending = false);
        }
    }

    async fn reset(&mut self, status: u32) {
        self.open = false;
        self.shared.lock().remove(&self.stream);
        let _ = self.shared.send(Frame::RstStream { stream: self.stream, status }).await;
    }
}

impl Credit {
    pub(in crate::streaming) async fn consumed(&mut self, bytes: usize) {
        self.consumed += bytes;
        if self.consumed >= CREDIT {
            let delta = u32::try_from(std::mem::take(&mut self.consumed)).unwrap_or(0);
            for stream in [self.stream, 0] {
                let _ = self.shared.send(Frame::WindowUpdate { stream, delta }).await;
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Entry>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, frame: Frame) -> Result<(), Gone> {
        tokio::select! {
            sent = self.outbound.send(frame) => sent.map_err(|_| Gone),
            () = self.gone.cancelled() => Err(Gone),
        }
    }

    /// Notes that a direction of a stream has ended.
    fn closed(&self, stream: u32, change: impl FnOnce(&mut Entry)) {
        let mut streams = self.lock();
        if let Some(entry) = streams.get_mut(&stream) {
            change(entry);
            if entry.input.is_none() && !entry.sending {
                streams.remove(&stream);
            }
        }
    }

    /// Acts on a frame; an error ends the connection.
    async fn handle(self: &Arc<Self>, frame: Frame, state: &mut Opened) -> Result<(), Gone> {
        match frame {
            Frame::SynStream { stream, fin, headers } => return self.open(stream, fin, headers, state).await,
            Frame::Data { stream, fin, bytes } => {
                if stream > state.last || stream == 0 {
                    return self.send(Frame::RstStream { stream, status: INVALID_STREAM }).await;
                }
                self.deliver(stream, bytes, state).await?;
                if fin {
                    self.closed(stream, |entry| entry.input = None);
                }
            }
            Frame::Headers { stream, fin: true, .. } => self.closed(stream, |entry| entry.input = None),
            Frame::RstStream { stream, .. } => {
                if let Some(entry) = self.lock().remove(&stream) {
                    entry.window.close();
                }
            }
            // The client's pings are odd; even ones answer ours.
            Frame::Ping { id } if id % 2 == 1 => return self.send(Frame::Ping { id }).await,
            Frame::WindowUpdate { stream, delta } => {
                self.honoured.set();
                match stream {
                    0 => self.session.grant(i64::from(delta)),
                    id => self.lock().get(&id).into_iter().for_each(|e| e.window.grant(i64::from(delta))),
                }
            }
            Frame::Settings { entries } => {
                let window = entries.iter().find(|(id, _)| *id == INITIAL_WINDOW_SIZE);
                if let Some((_, bytes)) = window {
                    self.honoured.set();
                    let bytes = i64::from(*bytes);
                    let before = self.initial.swap(bytes, Ordering::Relaxed);
                    self.lock().values().for_each(|entry| entry.window.grant(bytes - before));
                }
            }
            Frame::Headers { .. }
            | Frame::SynReply { .. }
            | Frame::Ping { .. }
            | Frame::GoAway { .. }
            | Frame::Unknown { .. } => {}
        }
        Ok(())
    }

    async fn open(
        self: &Arc<Self>,
        id: u32,
        fin: bool,
        headers: Headers,
        state: &mut Opened,
    ) -> Result<(), Gone> {
        if id.is_multiple_of(2) || id <= state.last {
            let _ = self.send(Frame::GoAway { last: state.last, status: PROTOCOL_ERROR }).await;
            return Err(Gone);
        }
        state.last = id;
        let (sender, chunks) = mpsc::channel(QUEUE);
        let window = Arc::new(Window::new(self.initial.load(Ordering::Relaxed)));
        let entry = Entry { input: (!fin).then_some(sender), window: Arc::clone(&window), sending: true };
        let full = self.lock().len() >= MAX_STREAMS;
        let stream = Stream {
            id,
            headers,
            input: Input::new(chunks, Some(Credit { stream: id, consumed: 0, shared: Arc::clone(self) })),
            output: Output { stream: id, window, shared: Arc::clone(self), open: true },
        };
        if full || state.opened.try_send(stream).is_err() {
            return self.send(Frame::RstStream { stream: id, status: REFUSED_STREAM }).await;
        }
        self.lock().insert(id, entry);
        Ok(())
    }

    /// Hands bytes to their stream; those of a stream that nobody reads any more are dropped, and their room given back.
    async fn deliver(self: &Arc<Self>, stream: u32, bytes: Bytes, state: &mut Opened) -> Result<(), Gone> {
        if bytes.is_empty() {
            return Ok(());
        }
        let length = bytes.len();
        let input = self.lock().get(&stream).and_then(|entry| entry.input.clone());
        let taken = match input {
            Some(input) => tokio::select! {
                sent = input.send(bytes) => sent.is_ok(),
                () = self.gone.cancelled() => return Err(Gone),
            },
            None => false,
        };
        if !taken {
            state.dropped.consumed(length).await;
        }
        Ok(())
    }
}

/// What the reader keeps for itself.
#[derive(Debug)]
struct Opened {
    opened: mpsc::Sender<Stream>,
    /// Highest stream of the client.
    last: u32,
    /// Room of the session that was taken by bytes for nobody.
    dropped: Credit,
}

async fn read_frames<S: AsyncRead>(from: ReadHalf<S>, opened: mpsc::Sender<Stream>, shared: Arc<Shared>) {
    let mut reader = Reader::new(from);
    let dropped = Credit { stream: 0, consumed: 0, shared: Arc::clone(&shared) };
    let mut state = Opened { opened, last: 0, dropped };
    loop {
        let next = tokio::select! {
            next = reader.next() => next,
            () = shared.gone.cancelled() => break,
        };
        match next {
            Ok(Some(frame)) => {
                if shared.handle(frame, &mut state).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, "SPDY connection ends");
                let _ = shared.send(Frame::GoAway { last: state.last, status: PROTOCOL_ERROR }).await;
                break;
            }
        }
    }
    shared.gone.cancel();
    let streams = std::mem::take(&mut *shared.lock());
    streams.values().for_each(|entry| entry.window.close());
    shared.session.close();
}

async fn write_frames<S: AsyncWrite>(
    mut to: WriteHalf<S>,
    mut frames: mpsc::Receiver<Frame>,
    mut encoder: Encoder,
    gone: CancellationToken,
) {
    let mut pings = tokio::time::interval(KEEP_ALIVE);
    pings.reset();
    let mut ping = 0;
    loop {
        let frame = tokio::select! {
            biased;
            frame = frames.recv() => frame,
            _ = pings.tick() => {
                ping += 2;
                Some(Frame::Ping { id: ping })
            }
            () = gone.cancelled() => None,
        };
        let Some(frame) = frame else { break };
        let last = matches!(frame, Frame::GoAway { .. });
        let written = match encoder.encode(&frame) {
            Ok(bytes) => tokio::select! {
                written = to.write_all(&bytes) => written,
                () = gone.cancelled() => break,
            },
            Err(e) => Err(e),
        };
        let flushed = match written {
            Ok(()) => to.flush().await,
            error => error,
        };
        if flushed.is_err() {
            gone.cancel();
            break;
        }
        if last {
            let _ = to.shutdown().await;
            break;
        }
    }
}
