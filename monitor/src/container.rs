//! A container of the pod: its process, its streams, its log, who is attached and who waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::engine::Engine;
use crate::log::{Lines, Log, Stream};
use crate::protocol::{Exit, Status};

/// How long the streams of an exited container are read while a grandchild holds them open.
const DRAIN: Duration = Duration::from_secs(1);

/// One output stream: where it is read from and how it is cut.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) from: OwnedFd,
    pub(crate) stream: Stream,
    lines: Lines,
}

impl Output {
    pub(crate) const fn new(from: OwnedFd, stream: Stream) -> Self {
        Self { from, stream, lines: Lines::new(stream) }
    }
}

/// A client that sees the output. Its descriptors are non-blocking: one that does not read is dropped.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) engine: Engine,
    pub(crate) pid: i32,
    pub(crate) outputs: Vec<Output>,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdin_once: bool,
    pub(crate) console: Option<OwnedFd>,
    pub(crate) log: Option<Log>,
    pub(crate) attached: Vec<Attached>,
    /// Connections that asked to wait.
    pub(crate) waiters: Vec<OwnedFd>,
    pub(crate) started_at: i64,
    pub(crate) exit: Option<Exit>,
    /// Exited, but the streams are not drained yet: the exit is told at the latest then.
    pub(crate) draining: Option<(Exit, Instant)>,
    /// Files of the container's memory cgroup that count OOM kills, opened at creation.
    pub(crate) oom: Option<std::fs::File>,
}

impl Container {
    pub(crate) fn status(&self) -> Status {
        Status { id: self.id.clone(), pid: self.pid, started_at: self.started_at, exit: self.exit.clone() }
    }

    /// Reads what is there of output `index`; `false` when the stream has ended.
    pub(crate) fn pump(&mut self, index: usize) -> bool {
        let mut bytes = [0u8; 64 * 1024];
        let output = &mut self.outputs[index];
        let count = match rustix::io::read(&output.from, &mut bytes) {
            Ok(0) | Err(Errno::IO) => 0, // EIO: the last user of a terminal has closed it
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => 0,
        };
        if count == 0 {
            if let Some(log) = &mut self.log {
                output.lines.finish(log);
            }
            self.outputs.remove(index);
            return false;
        }
        if let Some(log) = &mut self.log {
            output.lines.push(&bytes[..count], log);
        }
        let stream = output.stream;
        self.attached.retain(|client| offer(client, stream, &bytes[..count]));
        true
    }

    /// Copies what an attached client typed into the container; `false` when that client is gone.
    pub(crate) fn pump_stdin(&mut self, client: usize) {
        let Some(from) = self.attached.get(client).and_then(|c| c.stdin.as_ref()) else { return };
        let mut bytes = [0u8; 4096];
        match rustix::io::read(from, &mut bytes) {
            Ok(0) => {
                self.attached[client].stdin = None;
                if self.stdin_once {
                    self.stdin = None;
                }
            }
            Ok(count) => {
                if let Some(to) = self.console.as_ref().or(self.stdin.as_ref()) {
                    // A container that does not read its input loses what does not fit its pipe, as with a terminal.
                    let _ = rustix::io::write(to, &bytes[..count]);
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.attached[client].stdin = None,
        }
    }

    /// The process has ended: what is still in the pipes is read first, for a bounded time.
    pub(crate) fn ended(&mut self, mut exit: Exit) {
        exit.oom = self.oom.as_mut().is_some_and(oom_killed);
        self.draining = Some((exit, Instant::now() + DRAIN));
        self.stdin = None;
    }

    /// The exit, once the streams are drained or their time is over.
    pub(crate) fn drained(&mut self, now: Instant) -> Option<Exit> {
        let (_, deadline) = self.draining.as_ref()?;
        if !self.outputs.is_empty() && now < *deadline {
            return None;
        }
        for output in &mut self.outputs {
            if let Some(log) = &mut self.log {
                output.lines.finish(log);
            }
        }
        self.outputs.clear();
        self.attached.clear();
        self.console = None;
        let (exit, _) = self.draining.take()?;
        self.exit = Some(exit.clone());
        Some(exit)
    }
}

/// Writes to a client without waiting; `false` when it is gone or does not keep up.
fn offer(client: &Attached, stream: Stream, bytes: &[u8]) -> bool {
    let to: BorrowedFd<'_> = match stream {
        Stream::Stdout => client.stdout.as_fd(),
        Stream::Stderr => client.stderr.as_fd(),
    };
    matches!(rustix::io::write(to, bytes), Ok(count) if count == bytes.len())
}

/// Reads `oom_kill` of `memory.events` (v2) or `memory.oom_control` (v1).
fn oom_killed(file: &mut std::fs::File) -> bool {
    use std::io::{Read, Seek, SeekFrom};
    let mut text = String::new();
    let read = |file: &mut std::fs::File, text: &mut String| -> io::Result<usize> {
        file.seek(SeekFrom::Start(0))?;
        file.take(4096).read_to_string(text)
    };
    if read(file, &mut text).is_err() {
        return false;
    }
    text.lines().filter_map(|l| l.strip_prefix("oom_kill ")).any(|n| n.trim() != "0")
}
