//! From an upgraded connection to a client with all its streams.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_cri::v1::PortForwardRequest;
use tokio::io::{AsyncRead, AsyncWrite};

use super::channels::{Input, Output, Transport};
use super::negotiate::Protocol;
use super::session::{self, Client};
use super::tokens::Ticket;
use super::websocket::{self, Form};
use super::{port_forward, spdy};
use crate::daemon::Daemon;

/// How long a client has to open all its streams.
const STREAMS: Duration = Duration::from_secs(30);

/// The channels of a WebSocket.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// The streams that a request asks for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

/// Serves a session to its end.
pub(super) async fn run<S>(daemon: &Arc<Daemon>, ticket: Ticket, protocol: Protocol, io: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wanted = match &ticket {
        Ticket::Exec(r) => Wanted { stdin: r.stdin, stdout: r.stdout, stderr: r.stderr, tty: r.tty },
        Ticket::Attach(r) => Wanted { stdin: r.stdin, stdout: r.stdout, stderr: r.stderr, tty: r.tty },
        Ticket::PortForward(request) => return forward(daemon, request, protocol, io).await,
    };
    let client = match protocol {
        Protocol::Spdy { json_status, resize, .. } => over_spdy(io, wanted, json_status, resize).await?,
        Protocol::WebSocket { form, json_status, .. } => {
            over_websocket(io, wanted, form, json_status).await?
        }
        Protocol::Tunnel { .. } => return Err(io::ErrorKind::Unsupported.into()),
    };
    match ticket {
        Ticket::Exec(request) => session::exec(daemon, request, client).await,
        Ticket::Attach(request) => session::attach(daemon, request, client).await,
        Ticket::PortForward(_) => {}
    }
    Ok(())
}

async fn forward<S>(
    daemon: &Arc<Daemon>,
    request: &PortForwardRequest,
    protocol: Protocol,
    io: S,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let pod = super::pod(daemon, &request.pod_sandbox_id).map_err(io::Error::other)?;
    match protocol {
        Protocol::Spdy { .. } => port_forward::spdy(&pod, spdy::Connection::new(io)?).await,
        Protocol::Tunnel { .. } => {
            let (inner, _carrier) = websocket::tunnel(io).await;
            port_forward::spdy(&pod, spdy::Connection::new(inner)?).await;
        }
        Protocol::WebSocket { form, .. } => {
            let ports: Vec<u16> = request.port.iter().filter_map(|port| u16::try_from(*port).ok()).collect();
            let readable: Vec<u8> = (0..254u8).step_by(2).take(ports.len()).collect();
            let (connection, inputs) = websocket::Connection::new(io, form, &readable).await;
            port_forward::websocket(&pod, &ports, connection, inputs).await;
        }
    }
    Ok(())
}

async fn over_websocket<S>(io: S, wanted: Wanted, form: Form, json_status: bool) -> io::Result<Client>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let readable: Vec<u8> = [(wanted.stdin, STDIN), (wanted.tty, RESIZE)]
        .into_iter()
        .filter_map(|(w, c)| w.then_some(c))
        .collect();
    let (connection, mut inputs) = websocket::Connection::new(io, form, &readable).await;
    let output = |wanted: bool, channel| wanted.then(|| Output::WebSocket(connection.output(channel)));
    let client = Client {
        stdin: inputs.remove(&STDIN),
        stdout: output(wanted.stdout, STDOUT),
        stderr: output(wanted.stderr && !wanted.tty, STDERR),
        error: Output::WebSocket(connection.output(ERROR)),
        resize: inputs.remove(&RESIZE),
        json_status,
        transport: Transport::WebSocket(connection),
    };
    // An empty message on the first channel tells the client that the connection stands.
    let first = client.stdout.as_ref().or(client.stderr.as_ref()).unwrap_or(&client.error);
    first.write(Bytes::new()).await.map_err(io::Error::other)?;
    Ok(client)
}

/// The streams as they come in; all of them, or none in time.
#[derive(Debug, Default)]
struct Streams {
    stdin: Option<Input>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    error: Option<Output>,
    resize: Option<Input>,
}

async fn over_spdy<S>(io: S, wanted: Wanted, json_status: bool, resize: bool) -> io::Result<Client>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut connection = spdy::Connection::new(io)?;
    let collect = collect(&mut connection, wanted, resize && wanted.tty);
    let streams = tokio::time::timeout(STREAMS, collect).await;
    let streams = streams.map_err(|_| io::Error::other("the client did not open its streams in time"))??;
    let error = streams.error.ok_or_else(|| io::Error::other("no error stream"))?;
    Ok(Client {
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
        error,
        resize: streams.resize,
        json_status,
        transport: Transport::Spdy(connection),
    })
}

async fn collect(connection: &mut spdy::Connection, wanted: Wanted, resize: bool) -> io::Result<Streams> {
    let mut streams = Streams::default();
    let stderr = wanted.stderr && !wanted.tty;
    let complete = |s: &Streams| {
        s.error.is_some()
            && s.stdin.is_some() == wanted.stdin
            && s.stdout.is_some() == wanted.stdout
            && s.stderr.is_some() == stderr
            && s.resize.is_some() == resize
    };
    while !complete(&streams) {
        let stream = connection.accept().await.ok_or_else(|| io::Error::other("the client is gone"))?;
        let kind = stream.headers.get("streamtype").unwrap_or_default().to_owned();
        let expected = match kind.as_str() {
            "error" => streams.error.is_none(),
            "stdin" => wanted.stdin && streams.stdin.is_none(),
            "stdout" => wanted.stdout && streams.stdout.is_none(),
            "stderr" => stderr && streams.stderr.is_none(),
            "resize" => resize && streams.resize.is_none(),
            _ => false,
        };
        if !expected {
            stream.refuse().await;
            continue;
        }
        stream.reply().await.map_err(io::Error::other)?;
        match kind.as_str() {
            "stdin" => streams.stdin = Some(stream.input),
            "resize" => streams.resize = Some(stream.input),
            "stdout" => streams.stdout = Some(Output::Spdy(stream.output)),
            "stderr" => streams.stderr = Some(Output::Spdy(stream.output)),
            _ => streams.error = Some(Output::Spdy(stream.output)),
        }
    }
    Ok(streams)
}
