//! Clients of the streaming server: an HTTP upgrade, then SPDY or a WebSocket.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use coracle_cri::streaming::spdy::frame::{Encoder, Frame, Reader};
use coracle_cri::streaming::spdy::headers::Headers;
use coracle_integration::cri::Service;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

pub const PATIENCE: Duration = Duration::from_secs(30);

/// Sends an upgrade request; the connection and the head of the answer.
pub async fn upgrade(service: &Service, url: &str, headers: &[(&str, &str)]) -> (TcpStream, String) {
    let rest = url.strip_prefix("http://").expect("an HTTP URL");
    let (address, path) = rest.split_once('/').expect("a path");
    let connection = service.in_network(|| std::net::TcpStream::connect(address).expect("connect"));
    connection.set_nonblocking(true).expect("nonblocking");
    let mut connection = TcpStream::from_std(connection).expect("connection");
    let mut request = format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    connection.write_all(format!("{request}\r\n").as_bytes()).await.expect("request");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, connection.read_u8()).await.expect("in time");
        head.push(byte.expect("an answer"));
    }
    let head = String::from_utf8(head).expect("text");
    // Go's clients want it so.
    let lower = head.to_ascii_lowercase();
    assert!(!head.starts_with("HTTP/1.1 101 ") || lower.contains("\r\nconnection: upgrade\r\n"), "{head}");
    (connection, head)
}

/// A SPDY client.
pub struct Spdy {
    reader: Reader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    encoder: Encoder,
    next: u32,
}

impl Spdy {
    pub async fn connect(service: &Service, url: &str, protocol: &str) -> Self {
        let headers = [("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", protocol)];
        let (connection, head) = upgrade(service, url, &headers).await;
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(protocol), "{head}");
        let (read, writer) = connection.into_split();
        let reader = Reader::new(read);
        Self { reader, writer, encoder: Encoder::new().expect("encoder"), next: 1 }
    }

    pub async fn send(&mut self, frame: Frame) {
        let bytes = self.encoder.encode(&frame).expect("frame");
        self.writer.write_all(&bytes).await.expect("send");
    }

    /// Opens a stream and waits for the answer.
    pub async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let stream = self.next;
        self.next += 2;
        let headers = Headers(headers.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect());
        self.send(Frame::SynStream { stream, fin: false, headers }).await;
        match self.next().await {
            Some(Frame::SynReply { stream: answered, .. }) => assert_eq!(answered, stream),
            other => panic!("{other:?}"),
        }
        stream
    }

    pub async fn data(&mut self, stream: u32, bytes: &'static [u8], fin: bool) {
        self.send(Frame::Data { stream, fin, bytes: Bytes::from_static(bytes) }).await;
    }

    /// The next frame that is not about windows.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.reader.next()).await.expect("in time");
            match frame.expect("a frame") {
                Some(Frame::WindowUpdate { .. }) => {}
                frame => return frame,
            }
        }
    }

    /// Reads until the streams are closed: what came on each.
    pub async fn until_closed(&mut self, streams: &[u32]) -> BTreeMap<u32, Vec<u8>> {
        let mut got: BTreeMap<u32, Vec<u8>> = streams.iter().map(|s| (*s, Vec::new())).collect();
        let mut open = streams.to_vec();
        while !open.is_empty() {
            match self.next().await {
                Some(Frame::Data { stream, fin, bytes }) => {
                    got.entry(stream).or_default().extend_from_slice(&bytes);
                    open.retain(|s| !(fin && *s == stream));
                }
                Some(Frame::RstStream { stream, .. }) => open.retain(|s| *s != stream),
                Some(_) => {}
                None => panic!("closed with {open:?} open: {got:?}"),
            }
        }
        got
    }
}

/// A WebSocket client.
pub struct Ws(WebSocketStream<TcpStream>);

impl Ws {
    pub async fn connect(service: &Service, url: &str, protocol: &str) -> Self {
        // The example of RFC 6455, with the accept value that it gives.
        let headers = [
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Protocol", protocol),
        ];
        let (connection, head) = upgrade(service, url, &headers).await;
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(protocol), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        Self(WebSocketStream::from_raw_socket(connection, Role::Client, None).await)
    }

    pub async fn send(&mut self, message: impl Into<Message>) {
        self.0.send(message.into()).await.expect("send");
    }

    pub async fn bytes(&mut self, channel: u8, bytes: &[u8]) {
        self.send([&[channel], bytes].concat()).await;
    }

    /// The next message with content.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("in time");
            match message.expect("a message or a close").expect("a message") {
                Message::Binary(bytes) => return Some(bytes.to_vec()),
                Message::Text(text) => return Some(text.as_bytes().to_vec()),
                Message::Close(frame) => {
                    assert_eq!(frame.map(|f| u16::from(f.code)), Some(1000), "Go's clients want a code");
                    return None;
                }
                _ => {}
            }
        }
    }

    /// Reads until the server closes: what came on each channel.
    pub async fn until_closed(&mut self) -> BTreeMap<u8, Vec<u8>> {
        let mut got: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        while let Some(message) = self.next().await {
            got.entry(message[0]).or_default().extend_from_slice(&message[1..]);
        }
        got
    }
}
