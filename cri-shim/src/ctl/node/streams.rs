//! A command's streams over a WebSocket: the client's side of `v5.channel.k8s.io` and `v4.channel.k8s.io`.
//!
//! The first byte of each message names the channel: 0 input, 1 output, 2 errors, 3 how it ended, 4 the terminal's size.
//! A message of 255 and a channel closes that channel (only version 5).

use std::io::{Read, Write};

use bytes::Bytes;
use coracle_image_store::ErrorKind;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Uri, header};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::terminal;
use crate::ctl::failure::Failure;

const VERSIONS: &str = "v5.channel.k8s.io, v4.channel.k8s.io";
const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const ERRORS: u8 = 2;
const END: u8 = 3;
const SIZE: u8 = 4;
const CLOSE: u8 = 255;

/// One read of standard input.
const CHUNK: usize = 32 * 1024;

type Socket = WebSocketStream<TcpStream>;

/// Carries the streams between this process and the command; its exit code.
pub(super) async fn carry(url: &str, input: bool, terminal: bool) -> Result<i32, Failure> {
    let (socket, half_close) = connect(url).await?;
    let resized = signal(SignalKind::window_change()).map_err(|error| Failure::io("signals", &error))?;
    let (to, from) = socket.split();
    let typed = input.then(read_input);
    // Both at once: a command that answers while it is written to must not wait for us, nor we for it.
    tokio::select! {
        outcome = read_messages(from) => outcome,
        () = write_messages(to, typed, half_close, terminal.then_some(resized)) => {
            Err(Failure::of_kind(ErrorKind::Unavailable, "the connection to the command is lost"))
        }
    }
}

/// Prints until the command has ended.
async fn read_messages(mut from: SplitStream<Socket>) -> Result<i32, Failure> {
    loop {
        match from.next().await {
            Some(Ok(message)) => {
                if let Some(end) = receive(&message.into_data()) {
                    return outcome(&end);
                }
            }
            Some(Err(error)) => return Err(broken(&error)),
            None => {
                return Err(Failure::of_kind(ErrorKind::Unavailable, "the daemon closed the connection"));
            }
        }
    }
}

/// Sends input and sizes. Never returns: that sending fails is told by the reading side, after what the command still
/// said.
async fn write_messages(
    mut to: SplitSink<Socket, Message>,
    mut typed: Option<mpsc::Receiver<Vec<u8>>>,
    half_close: bool,
    mut resized: Option<Signal>,
) {
    if resized.is_some() {
        let _ = to.send(size_message()).await;
    }
    loop {
        let next = tokio::select! {
            Some(chunk) = next_chunk(&mut typed) => match chunk {
                Some(bytes) => message(INPUT, &bytes),
                None => {
                    typed = None;
                    if !half_close {
                        continue;
                    }
                    message(CLOSE, &[INPUT])
                }
            },
            Some(()) = next_size(&mut resized) => size_message(),
            else => std::future::pending().await,
        };
        if to.send(next).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The next input, or its end; None where there is none to wait for.
async fn next_chunk(typed: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Option<Vec<u8>>> {
    match typed {
        Some(typed) => Some(typed.recv().await),
        None => None,
    }
}

/// The next change of the terminal's size; None where there is no terminal.
async fn next_size(resized: &mut Option<Signal>) -> Option<()> {
    match resized {
        Some(resized) => resized.recv().await,
        None => None,
    }
}

/// The connection, and whether channels can be closed one by one.
async fn connect(url: &str) -> Result<(Socket, bool), Failure> {
    let wrong = |why: &str| Failure::of_kind(ErrorKind::Unsupported, format!("streams at {url}: {why}"));
    let uri: Uri = url.parse().map_err(|_| wrong("no URL"))?;
    if uri.scheme_str() != Some("http") {
        return Err(wrong("only http is spoken here"));
    }
    let address = uri.authority().ok_or_else(|| wrong("no address"))?.as_str().to_owned();
    let mut request = url.replacen("http", "ws", 1).into_client_request().map_err(|error| broken(&error))?;
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(VERSIONS));
    let stream = TcpStream::connect(&address).await.map_err(|error| Failure::io(&address, &error))?;
    let (socket, answer) =
        tokio_tungstenite::client_async(request, stream).await.map_err(|error| broken(&error))?;
    let version = answer.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
    Ok((socket, version.is_some_and(|version| version.as_bytes().starts_with(b"v5"))))
}

/// Writes what the command said; the last word, when it comes.
fn receive(data: &[u8]) -> Option<Vec<u8>> {
    let (channel, bytes) = data.split_first()?;
    // Nobody may listen here any more; the command still has to end by itself.
    let _ = match *channel {
        OUTPUT => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
        ERRORS => std::io::stderr().write_all(bytes),
        END if !bytes.is_empty() => return Some(bytes.to_vec()),
        _ => Ok(()),
    };
    None
}

/// The exit code in a `metav1.Status`.
fn outcome(end: &[u8]) -> Result<i32, Failure> {
    let status: Value = serde_json::from_slice(end).unwrap_or_default();
    if status["status"] == "Success" {
        return Ok(0);
    }
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    let code =
        causes.filter(|cause| cause["reason"] == "ExitCode").find_map(|cause| cause["message"].as_str());
    code.and_then(|code| code.parse().ok()).ok_or_else(|| {
        let text = status["message"].as_str().map(str::to_owned);
        Failure::usage(text.unwrap_or_else(|| String::from_utf8_lossy(end).into_owned()))
    })
}

/// Standard input, read by a thread of its own: a read of a terminal cannot be given up.
fn read_input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut buffer) {
            if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

fn size_message() -> Message {
    let (columns, rows) = terminal::size().unwrap_or((80, 24));
    message(SIZE, json!({"Width": columns, "Height": rows}).to_string().as_bytes())
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    Message::Binary(Bytes::from([&[channel], bytes].concat()))
}

fn broken(error: &Error) -> Failure {
    Failure::of_kind(ErrorKind::Unavailable, format!("streams of the command: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_among_the_causes() {
        assert_eq!(outcome(br#"{"metadata":{},"status":"Success"}"#).ok(), Some(0));
        let failed = br#"{"status":"Failure","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        assert_eq!(outcome(failed).ok(), Some(3));
        assert!(outcome(br#"{"status":"Failure","message":"no such file"}"#).is_err());
        assert!(outcome(b"nonsense").is_err());
    }

    #[test]
    fn messages_name_their_channel() {
        assert_eq!(message(INPUT, b"ls").into_data(), Bytes::from_static(b"\0ls"));
        assert_eq!(receive(b"\x03end"), Some(b"end".to_vec()));
        assert_eq!((receive(b"\x03"), receive(b"")), (None, None));
    }
}
