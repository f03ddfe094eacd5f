//! An exec or an attach: the streams of a client and those of a process, copied until one side ends.
//!
//! All copying happens inside one future. When the client is gone it is dropped, with the pipes and, for an exec, the
//! process: no task is left behind.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use coracle_monitor::protocol::Request;
use k8s_cri::v1::{AttachRequest, ExecRequest};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::channels::{Input, Output, Transport};
use super::descriptor::Descriptor;
use super::error::Error;
use super::process::{self, Command, Pipes, Process};
use super::status::Outcome;
use crate::daemon::Daemon;

/// How long outputs are waited for after the exit, while something in the background holds them.
const DRAIN: Duration = Duration::from_secs(1);
/// How long a monitor may take to connect or resize.
const SHORT: Duration = Duration::from_secs(10);
/// Most bytes of a size that is not complete yet.
const MAX_SIZE: usize = 4096;

/// A client with all its streams.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stdin: Option<Input>,
    pub(super) stdout: Option<Output>,
    pub(super) stderr: Option<Output>,
    pub(super) error: Output,
    pub(super) resize: Option<Input>,
    /// Whether it understands a status as JSON.
    pub(super) json_status: bool,
    pub(super) transport: Transport,
}

/// Runs a command for a client.
pub(super) async fn exec(daemon: &Daemon, request: ExecRequest, mut client: Client) {
    let gone = client.transport.gone();
    let outcome = tokio::select! {
        outcome = run(daemon, request, &mut client) => outcome,
        () = gone.cancelled() => return,
    };
    client.end(&outcome.unwrap_or_else(|e| Outcome::Failure(e.to_string()))).await;
}

/// Connects a client with a running container.
pub(super) async fn attach(daemon: &Arc<Daemon>, request: AttachRequest, mut client: Client) {
    let gone = client.transport.gone();
    let outcome = tokio::select! {
        outcome = follow(daemon, request, &mut client) => outcome,
        () = gone.cancelled() => return,
    };
    client.end(&outcome.map_or_else(|e| Outcome::Failure(e.to_string()), |()| Outcome::Success)).await;
}

impl Client {
    /// Closes the outputs, says how it ended, closes the connection.
    async fn end(mut self, outcome: &Outcome) {
        for output in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            output.close().await;
        }
        if let Some(text) = outcome.render(self.json_status) {
            let _ = self.error.write(text).await;
        }
        self.error.close().await;
        // What the client still sends has no reader: it is dropped, so that its close is seen behind it.
        drop((self.stdin, self.resize));
        self.transport.finish().await;
    }
}

async fn run(daemon: &Daemon, request: ExecRequest, client: &mut Client) -> Result<Outcome, Error> {
    let container = process::running(daemon, &request.container_id)?;
    let command = Command {
        args: request.cmd,
        tty: request.tty,
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        timeout: None,
    };
    let process = process::start(daemon, &container, command).await?;
    let Process { stdin, stdout, stderr, terminal, mut life } = process;
    let exited = CancellationToken::new();
    let outputs = async {
        let out = copy_out(stdout, client.stdout.as_ref(), &exited);
        tokio::join!(out, copy_out(stderr, client.stderr.as_ref(), &exited));
    };
    let input = copy_in(client.stdin.as_mut(), stdin);
    let sizes = async {
        let mut sizes = Sizes::new(client.resize.as_mut());
        while let Some(size) = sizes.next().await {
            if let Some(terminal) = &terminal {
                let _ = process::resize(terminal, size.width, size.height);
            }
        }
    };
    let (mut outputs, mut input, mut sizes) =
        (std::pin::pin!(outputs), std::pin::pin!(input), std::pin::pin!(sizes));
    let mut done = (false, false, false);
    let exit = loop {
        tokio::select! {
            exit = life.exit() => break exit?,
            () = &mut outputs, if !done.0 => done.0 = true,
            () = &mut input, if !done.1 => done.1 = true,
            () = &mut sizes, if !done.2 => done.2 = true,
        }
    };
    exited.cancel();
    if !done.0 {
        outputs.await;
    }
    Ok(Outcome::of(exit.code))
}

async fn follow(daemon: &Arc<Daemon>, request: AttachRequest, client: &mut Client) -> Result<(), Error> {
    let container = process::running(daemon, &request.container_id)?;
    // The monitor reads and writes three pipes, whether they are looked at or not: one that is not asked for is read here
    // and dropped.
    let wanted = Command { stdin: true, stdout: true, stderr: true, ..Command::default() };
    let Pipes { ours, theirs } = Pipes::new(&wanted).map_err(Error::io("pipe"))?;
    let (monitor, id) = (daemon.monitor(&container.sandbox), container.id.clone());
    let attach = Request::Attach { id, stdin: request.stdin && container.config.stdin };
    let connected = process::blocking(move || {
        let theirs: Vec<_> = theirs.iter().map(std::os::fd::AsFd::as_fd).collect();
        monitor.call(&attach, &theirs, SHORT).map(drop)
    });
    connected.await.map_err(process::monitor(&container.id))?;
    let open = |fd: Option<std::os::fd::OwnedFd>| {
        fd.map(|fd| Descriptor::new(fd).map(Arc::new)).transpose().map_err(Error::io("pipe"))
    };
    let [stdin, stdout, stderr] = ours;
    let (stdin, stdout, stderr) = (open(stdin)?, open(stdout)?, open(stderr)?);
    let never = CancellationToken::new();
    let outputs = async {
        let out = copy_out(stdout, client.stdout.as_ref(), &never);
        tokio::join!(out, copy_out(stderr, client.stderr.as_ref(), &never));
    };
    // Without a stdin of the client the pipe stays open: its end would end the container's.
    let input = async {
        match client.stdin.as_mut() {
            Some(from) => copy_in(Some(from), stdin).await,
            None => {
                let _held = stdin;
                std::future::pending::<()>().await;
            }
        }
    };
    let sizes = async {
        let mut sizes = Sizes::new(client.resize.as_mut());
        while let Some(Size { width, height }) = sizes.next().await {
            let monitor = daemon.monitor(&container.sandbox);
            let resize = Request::Resize { id: container.id.clone(), width, height };
            let _ = process::blocking(move || monitor.request(&resize, SHORT)).await;
        }
    };
    let (mut outputs, mut input, mut sizes) =
        (std::pin::pin!(outputs), std::pin::pin!(input), std::pin::pin!(sizes));
    let mut done = (false, false);
    loop {
        tokio::select! {
            // The monitor closes the outputs when the container has ended.
            () = &mut outputs => return Ok(()),
            () = &mut input, if !done.0 => done.0 = true,
            () = &mut sizes, if !done.1 => done.1 = true,
        }
    }
}

/// From the process to the client, to the end; after the exit no longer than something comes.
async fn copy_out(from: Option<Arc<Descriptor>>, to: Option<&Output>, exited: &CancellationToken) {
    let Some(from) = from else { return };
    let mut to = to;
    loop {
        let silence = async {
            exited.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        let bytes = tokio::select! {
            biased;
            bytes = from.read() => bytes,
            () = silence => return,
        };
        match bytes {
            Ok(bytes) if !bytes.is_empty() => {
                if let Some(output) = to
                    && output.write(bytes).await.is_err()
                {
                    to = None; // the process goes on, and its output is still read
                }
            }
            _ => return,
        }
    }
}

/// From the client to the process; its end closes the pipe.
async fn copy_in(from: Option<&mut Input>, to: Option<Arc<Descriptor>>) {
    let (Some(from), Some(to)) = (from, to) else { return };
    while let Some(bytes) = from.read().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// A terminal's size as clients send it.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// The sizes that a client sends.
struct Sizes<'a> {
    from: Option<&'a mut Input>,
    pending: Vec<u8>,
    ready: VecDeque<Size>,
}

impl<'a> Sizes<'a> {
    const fn new(from: Option<&'a mut Input>) -> Self {
        Self { from, pending: Vec::new(), ready: VecDeque::new() }
    }

    async fn next(&mut self) -> Option<Size> {
        while self.ready.is_empty() {
            let bytes = self.from.as_mut()?.read().await?;
            self.pending.extend_from_slice(&bytes);
            self.ready.extend(take_sizes(&mut self.pending));
        }
        self.ready.pop_front()
    }
}

/// The complete sizes at the front of what has come; objects follow each other without anything between them.
fn take_sizes(pending: &mut Vec<u8>) -> Vec<Size> {
    let mut stream = serde_json::Deserializer::from_slice(pending).into_iter::<Size>();
    let mut sizes = Vec::new();
    let mut used = 0;
    let mut broken = false;
    loop {
        match stream.next() {
            Some(Ok(size)) => {
                sizes.push(size);
                used = stream.byte_offset();
            }
            Some(Err(e)) => {
                broken = !e.is_eof();
                break;
            }
            None => {
                used = pending.len();
                break;
            }
        }
    }
    pending.drain(..used);
    if broken || pending.len() > MAX_SIZE {
        pending.clear();
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_any_pieces() {
        let mut pending = b"{\"Width\":80,\"Height\":24}\n{\"Width\":1".to_vec();
        assert_eq!(take_sizes(&mut pending), [Size { width: 80, height: 24 }]);
        pending.extend_from_slice(b"00,\"Height\":30}");
        assert_eq!(take_sizes(&mut pending), [Size { width: 100, height: 30 }]);
        assert!(pending.is_empty());
        pending.extend_from_slice(b"nonsense");
        assert_eq!((take_sizes(&mut pending), pending.len()), (vec![], 0));
    }
}
