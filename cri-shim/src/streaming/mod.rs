//! Exec, attach and port forwarding: over gRPC a request is checked and gets a URL, over HTTP its client comes to it.
//!
//! ```text
//! gRPC  Exec → token            HTTP  /exec/<token> → 101 → SPDY/3.1 or WebSocket → session → pod's monitor
//! ```
//!
//! A token is good once and for a minute. A session is one task, with two for its connection; all of them end when the
//! client is gone, and the process of an exec with them. Every queue between a client and a process is bounded, so that
//! whoever is slow holds up the other.

mod channels;
mod connect;
mod descriptor;
mod error;
mod exec_sync;
mod negotiate;
mod port_forward;
mod process;
mod server;
mod session;
pub mod spdy;
mod status;
mod tls;
mod tokens;
mod websocket;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use k8s_cri::v1::*;
use tokio::net::TcpListener;
use tonic::Status;

use self::error::Error;
use self::negotiate::Kind;
use self::port_forward::Pod;
use self::tokens::{Ticket, Tokens};
use crate::daemon::Daemon;
use crate::record::SandboxState;

/// What the daemon keeps of the streaming server.
#[derive(Debug, Default)]
pub struct Streaming {
    tokens: Tokens,
    /// Scheme, host and port of the URLs; set when the server listens.
    base: OnceLock<String>,
}

/// Starts the streaming server.
pub async fn serve(daemon: &Arc<Daemon>) -> io::Result<()> {
    let config = &daemon.config;
    let tls = config.stream_tls.as_ref().map(tls::acceptor).transpose()?;
    let told = |e: io::Error| io::Error::new(e.kind(), format!("listen at {}: {e}", config.stream));
    let listener = TcpListener::bind(config.stream).await.map_err(told)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let address = reachable(listener.local_addr()?);
    let _ = daemon.streaming.base.set(format!("{scheme}://{address}"));
    tokio::spawn(server::serve(Arc::clone(daemon), listener, tls));
    Ok(())
}

/// Where the kubelet on this machine finds the server that listens everywhere.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(a) if a.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, a.port()).into(),
        SocketAddr::V6(a) if a.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, a.port()).into(),
        address => address,
    }
}

/// Runs a command and answers with its output.
pub async fn exec_sync(daemon: &Arc<Daemon>, request: ExecSyncRequest) -> Result<ExecSyncResponse, Status> {
    Ok(exec_sync::run(daemon, request).await?)
}

/// Where a client finds the streams of a command that it wants to run.
pub async fn exec(daemon: &Arc<Daemon>, request: ExecRequest) -> Result<ExecResponse, Status> {
    check_streams(request.tty, request.stdin, request.stdout, request.stderr)?;
    if request.cmd.is_empty() {
        return Err(Error::Invalid("exec: cmd is empty").into());
    }
    process::running(daemon, &request.container_id)?;
    Ok(ExecResponse { url: daemon.streaming.url(Ticket::Exec(request))? })
}

/// Where a client finds the streams of a running container.
pub async fn attach(daemon: &Arc<Daemon>, mut request: AttachRequest) -> Result<AttachResponse, Status> {
    let container = process::running(daemon, &request.container_id)?;
    // A terminal has one output, whatever the client believes.
    request.tty = container.config.tty;
    request.stderr &= !request.tty;
    check_streams(request.tty, request.stdin, request.stdout, request.stderr)?;
    Ok(AttachResponse { url: daemon.streaming.url(Ticket::Attach(request))? })
}

/// Where a client finds the ports of a pod.
pub async fn port_forward(
    daemon: &Arc<Daemon>,
    request: PortForwardRequest,
) -> Result<PortForwardResponse, Status> {
    pod(daemon, &request.pod_sandbox_id)?;
    if request.port.iter().any(|port| !(1..=i32::from(u16::MAX)).contains(port)) {
        return Err(Error::Invalid("port_forward: a port is not between 1 and 65535").into());
    }
    Ok(PortForwardResponse { url: daemon.streaming.url(Ticket::PortForward(request))? })
}

impl Streaming {
    fn url(&self, ticket: Ticket) -> Result<String, Error> {
        let kind = Kind::of(&ticket);
        let base = self.base.get().ok_or(Error::Invalid("streaming: the server does not listen"))?;
        Ok(format!("{base}/{}/{}", kind.path(), self.tokens.issue(ticket, Instant::now())?))
    }
}

const fn check_streams(tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Result<(), Error> {
    if tty && stderr {
        return Err(Error::Invalid("tty and stderr cannot both be true: a terminal has one output"));
    }
    if stdin || stdout || stderr {
        Ok(())
    } else {
        Err(Error::Invalid("one of stdin, stdout and stderr must be true"))
    }
}

/// The sandbox with this id, which must be ready.
fn pod(daemon: &Daemon, id: &str) -> Result<Pod, Error> {
    let found = daemon.records.sandboxes.find(id).map(|entry| entry.get());
    let sandbox = found.filter(|s| s.state != SandboxState::Creating);
    let sandbox = sandbox.ok_or_else(|| Error::NoSandbox(id.to_owned()))?;
    match sandbox.state {
        SandboxState::Ready => Ok(Pod { id: sandbox.id, netns: sandbox.netns }),
        state => Err(Error::NotReady { id: sandbox.id, state }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_needs_a_stream_and_a_terminal_has_one_output() {
        assert!(check_streams(false, false, false, false).is_err());
        assert!(check_streams(true, true, true, true).is_err());
        assert!(check_streams(true, true, true, false).is_ok());
        assert!(check_streams(false, false, false, true).is_ok());
    }

    #[test]
    fn urls_name_an_address_that_can_be_connected_to() {
        let table = [("0.0.0.0:7", "127.0.0.1:7"), ("[::]:7", "[::1]:7"), ("192.0.2.1:7", "192.0.2.1:7")];
        for (bound, named) in table {
            assert_eq!(reachable(bound.parse().expect("address")).to_string(), named);
        }
    }
}
