//! Ports of a pod: connections made inside its network namespace, copied to and from a client's streams.
//!
//! Over SPDY a client opens a pair of streams per connection, `data` and `error`, which a request id ties together. Over a
//! WebSocket the ports are named beforehand: channels 2n and 2n+1 are data and error of the n-th port, and the first
//! message on each is the port's number.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sched::{CloneFlags, setns};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::channels::{Input, Output, Transport};
use super::spdy::{self, Stream};
use super::websocket;

/// How long a connection inside the pod may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the second stream of a pair may take.
const PAIRING: Duration = Duration::from_secs(30);
/// Most connections of one client, and most halves of pairs.
const MAX_CONNECTIONS: usize = 256;
/// How long a client may go on sending after the pod has closed its side; over a WebSocket it could not say that it is done.
const LINGER: Duration = Duration::from_secs(30);

/// Where the pod's ports are: a pinned namespace, or the host's.
#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) id: String,
    pub(super) netns: Option<PathBuf>,
}

/// Serves pairs of streams until the client is gone.
pub(super) async fn spdy(pod: &Pod, mut connection: spdy::Connection) {
    let mut halves: BTreeMap<String, (Instant, Stream)> = BTreeMap::new();
    let mut forwards = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = connection.accept() => stream,
            Some(_) = forwards.join_next() => continue,
        };
        let Some(stream) = stream else { break };
        halves.retain(|_, (since, _)| since.elapsed() < PAIRING);
        let Some((request, port)) = request_of(&stream) else {
            stream.refuse().await;
            continue;
        };
        if stream.reply().await.is_err() {
            break;
        }
        let Some((_, other)) = halves.remove(&request) else {
            if halves.len() < MAX_CONNECTIONS {
                halves.insert(request, (Instant::now(), stream));
            } else {
                stream.refuse().await;
            }
            continue;
        };
        let (data, error) = if is_error(&stream) { (other, stream) } else { (stream, other) };
        if is_error(&data) || !is_error(&error) || forwards.len() >= MAX_CONNECTIONS {
            data.refuse().await;
            error.refuse().await;
            continue;
        }
        let pod = pod.clone();
        let streams = (data.input, Output::Spdy(data.output), Output::Spdy(error.output));
        forwards.spawn(async move { forward(&pod, port, streams.0, streams.1, streams.2).await });
    }
}

/// Serves the ports that the request named, one connection each.
pub(super) async fn websocket(
    pod: &Pod,
    ports: &[u16],
    connection: websocket::Connection,
    mut inputs: BTreeMap<u8, Input>,
) {
    let gone = connection.gone();
    let mut forwards = JoinSet::new();
    for (channel, port) in (0u8..).step_by(2).zip(ports.iter().copied()) {
        let Some(input) = inputs.remove(&channel) else { continue };
        let data = Output::WebSocket(connection.output(channel));
        let error = Output::WebSocket(connection.output(channel + 1));
        let number = Bytes::copy_from_slice(&port.to_le_bytes());
        if data.write(number.clone()).await.is_err() || error.write(number).await.is_err() {
            return;
        }
        let pod = pod.clone();
        forwards.spawn(async move { forward(&pod, port, input, data, error).await });
    }
    tokio::select! {
        () = async { while forwards.join_next().await.is_some() {} } => {}
        () = gone.cancelled() => return,
    }
    Transport::WebSocket(connection).finish().await;
}

fn is_error(stream: &Stream) -> bool {
    stream.headers.get("streamtype") == Some("error")
}

/// The request that a stream belongs to and its port. Clients from before request ids open the error stream first, and
/// the data stream right after it.
fn request_of(stream: &Stream) -> Option<(String, u16)> {
    let port = stream.headers.get("port")?.parse().ok().filter(|port| *port > 0)?;
    let kind = stream.headers.get("streamtype")?;
    let request = match (stream.headers.get("requestid"), kind) {
        (Some(id), "error" | "data") => id.to_owned(),
        (None, "error") => stream.id.to_string(),
        (None, "data") => stream.id.checked_sub(2)?.to_string(),
        _ => return None,
    };
    Some((request, port))
}

async fn forward(pod: &Pod, port: u16, input: Input, mut data: Output, mut error: Output) {
    match connect(pod.netns.as_deref(), port).await {
        Ok(connection) => copy(connection, input, &mut data, &mut error).await,
        Err(e) => {
            let text = format!("port {port} of pod sandbox {}: {e}", pod.id);
            let _ = error.write(text.into()).await;
        }
    }
    data.close().await;
    error.close().await;
}

/// Copies in both directions; the end of one is told to the other side.
async fn copy(connection: TcpStream, mut input: Input, data: &mut Output, error: &mut Output) {
    let (mut from_pod, mut to_pod) = connection.into_split();
    let linger = if matches!(data, Output::Spdy(_)) { LINGER } else { Duration::ZERO };
    let up = async {
        while let Some(bytes) = input.read().await {
            if to_pod.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to_pod.shutdown().await;
    };
    let down = async {
        let mut bytes = vec![0u8; 32 * 1024];
        while let Ok(count @ 1..) = from_pod.read(&mut bytes).await {
            if data.write(Bytes::copy_from_slice(&bytes[..count])).await.is_err() {
                return;
            }
        }
        // Clients let go of the pair when both streams have ended.
        data.close().await;
        error.close().await;
    };
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    tokio::select! {
        () = &mut up => down.await,
        () = &mut down => {
            let _ = tokio::time::timeout(linger, up).await;
        }
    }
}

/// Connects to a port of the pod's loopback: over IPv4, else over IPv6.
async fn connect(netns: Option<&Path>, port: u16) -> io::Result<TcpStream> {
    let [four, six] = sockets(netns).await?;
    match attempt(four, (Ipv4Addr::LOCALHOST, port).into()).await {
        Ok(connection) => Ok(connection),
        Err(first) => attempt(six, (Ipv6Addr::LOCALHOST, port).into())
            .await
            .map_err(|e| io::Error::new(e.kind(), format!("connect to 127.0.0.1: {first}; to ::1: {e}"))),
    }
}

async fn attempt(socket: io::Result<TcpSocket>, address: SocketAddr) -> io::Result<TcpStream> {
    match tokio::time::timeout(CONNECT, socket?.connect(address)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Makes sockets inside a namespace: on a thread that ends there, so that no other work of the daemon ever runs there. A
/// socket stays in the namespace that it was made in.
async fn sockets(netns: Option<&Path>) -> io::Result<[io::Result<TcpSocket>; 2]> {
    let make = || {
        [AddressFamily::INET, AddressFamily::INET6].map(|family| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(family, SocketType::STREAM, flags, None)?;
            Ok(TcpSocket::from_std_stream(std::net::TcpStream::from(socket)))
        })
    };
    let Some(path) = netns.map(Path::to_owned) else { return Ok(make()) };
    let (done, made) = tokio::sync::oneshot::channel();
    let enter = move || {
        let told = |e: io::Error| io::Error::new(e.kind(), format!("enter {}: {e}", path.display()));
        let namespace = std::fs::File::open(&path).map_err(told)?;
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|e| told(e.into()))?;
        Ok(make())
    };
    std::thread::Builder::new().name("netns".into()).stack_size(256 * 1024).spawn(move || {
        let _ = done.send(enter());
    })?;
    made.await.unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace died")))
}
