//! The HTTP server that clients come to with their tokens: checks, answers `101 Switching Protocols`, hands over.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::connect;
use super::negotiate::{ACCEPTED, Kind, Protocol, Refusal, STREAM_PROTOCOL, negotiate};
use super::tokens::Ticket;
use crate::daemon::Daemon;

/// Most connections at a time, sessions included; more wait in the listen queue.
const MAX_CONNECTIONS: usize = 1024;
/// How long a TLS handshake and the headers of a request may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

type Answer = Response<Full<Bytes>>;

/// Serves for ever.
pub(super) async fn serve(daemon: Arc<Daemon>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "streaming: accept");
                tokio::time::sleep(Duration::from_millis(100)).await; // out of descriptors: some will be closed
                continue;
            }
        };
        let _ = socket.set_nodelay(true);
        tokio::spawn(greet(Arc::clone(&daemon), socket, tls.clone(), permit));
    }
}

async fn greet(
    daemon: Arc<Daemon>,
    socket: TcpStream,
    tls: Option<TlsAcceptor>,
    permit: OwnedSemaphorePermit,
) {
    let ended = match tls {
        None => talk(daemon, socket, permit).await,
        Some(acceptor) => match tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await {
            Ok(Ok(socket)) => talk(daemon, socket, permit).await,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("TLS handshake took too long".into()),
        },
    };
    if let Err(error) = ended {
        tracing::debug!(error, "streaming: connection ended");
    }
}

async fn talk<S>(daemon: Arc<Daemon>, socket: S, permit: OwnedSemaphorePermit) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let permit = Arc::new(permit);
    let service = service_fn(move |request| {
        let answer = respond(&daemon, request, &permit);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    let connection = http.serve_connection(TokioIo::new(socket), service).with_upgrades();
    connection.await.map_err(|e| e.to_string())
}

fn respond(
    daemon: &Arc<Daemon>,
    mut request: Request<Incoming>,
    permit: &Arc<OwnedSemaphorePermit>,
) -> Answer {
    if request.method() != Method::GET && request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
    }
    let mut parts = request.uri().path().trim_start_matches('/').splitn(2, '/');
    let (kind, token) = (parts.next().and_then(Kind::named), parts.next().unwrap_or_default());
    let Some(kind) = kind else { return text(StatusCode::NOT_FOUND, "not found") };
    let protocol = match negotiate(kind, request.headers()) {
        Ok(protocol) => protocol,
        Err(refusal) => return refused(&refusal),
    };
    let ticket = daemon.streaming.tokens.redeem(token, Instant::now());
    let Some(ticket) = ticket.filter(|ticket| Kind::of(ticket) == kind) else {
        return text(StatusCode::NOT_FOUND, "no request waits for this token");
    };
    let answer = switch(&protocol, request.headers());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(session(Arc::clone(daemon), ticket, protocol, upgrade, Arc::clone(permit)));
    answer
}

async fn session(
    daemon: Arc<Daemon>,
    ticket: Ticket,
    protocol: Protocol,
    upgrade: OnUpgrade,
    _permit: Arc<OwnedSemaphorePermit>,
) {
    let done = match upgrade.await {
        Ok(io) => connect::run(&daemon, ticket, protocol, TokioIo::new(io)).await,
        Err(e) => Err(io::Error::other(e)),
    };
    if let Err(error) = done {
        tracing::debug!(%error, "streaming: session ended");
    }
}

/// The answer that ends HTTP on the connection.
fn switch(protocol: &Protocol, headers: &http::HeaderMap) -> Answer {
    let mut answer = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let out = answer.headers_mut();
    out.remove(header::CONTENT_TYPE);
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let mut set = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            out.insert(name, value);
        }
    };
    match protocol {
        Protocol::Spdy { name, .. } => {
            set(header::UPGRADE, "SPDY/3.1");
            set(STREAM_PROTOCOL, name);
        }
        Protocol::WebSocket { name, .. } | Protocol::Tunnel { name } => {
            let key = headers.get(header::SEC_WEBSOCKET_KEY).map_or(&b""[..], HeaderValue::as_bytes);
            set(header::UPGRADE, "websocket");
            set(header::SEC_WEBSOCKET_ACCEPT, &derive_accept_key(key));
            if !name.is_empty() {
                set(header::SEC_WEBSOCKET_PROTOCOL, name);
            }
        }
    }
    answer
}

fn refused(refusal: &Refusal) -> Answer {
    match refusal {
        Refusal::NoUpgrade => {
            text(StatusCode::BAD_REQUEST, "upgrade to SPDY/3.1 or to a WebSocket is required")
        }
        Refusal::NoProtocol(known) => {
            let mut answer = text(StatusCode::FORBIDDEN, "none of the protocols asked for is known");
            for name in *known {
                answer.headers_mut().append(ACCEPTED, HeaderValue::from_static(name));
            }
            answer
        }
    }
}

fn text(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}
