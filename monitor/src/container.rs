//! A container of the pod: its process, its streams, its log, who is attached and who waits.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::engine::Engine;
use crate::log::{Lines, Log, Stream};
use crate::protocol::{Exit, Status};

/// How long the streams of an exited container are read while a grandchild holds them open.
const DRAIN: Duration = Duration::from_secs(1);

/// How far an attached client may be behind, in bytes.
const MAX_BACKLOG: usize = 1 << 20;

/// How long a client that is behind may take to read the last output of an exited container.
const FAREWELL: Duration = Duration::from_secs(10);

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

/// A client that sees the output, and may type. Its descriptors are non-blocking.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Tap,
    pub(crate) stderr: Tap,
}

impl Attached {
    pub(crate) const fn new(stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd) -> Self {
        Self { stdin, stdout: Tap::new(stdout), stderr: Tap::new(stderr) }
    }

    /// The descriptors that have to become writable before the client has seen everything.
    pub(crate) fn behind(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.stdout, &self.stderr]
            .into_iter()
            .filter(|tap| !tap.backlog.is_empty())
            .map(|tap| tap.to.as_fd())
    }

    /// Writes what the client takes now; `false` when it is gone.
    pub(crate) fn flush(&mut self) -> bool {
        self.stdout.flush() && self.stderr.flush()
    }
}

/// One stream of an attached client, with what it has not taken yet: the container never waits for a client, and a client
/// that reads in fits and starts loses nothing as long as it is less than [`MAX_BACKLOG`] behind.
#[derive(Debug)]
pub(crate) struct Tap {
    to: OwnedFd,
    backlog: VecDeque<u8>,
}

impl Tap {
    const fn new(to: OwnedFd) -> Self {
        Self { to, backlog: VecDeque::new() }
    }

    /// Takes bytes of the container; `false` when the client is gone or too far behind.
    fn offer(&mut self, bytes: &[u8]) -> bool {
        if self.backlog.len() + bytes.len() > MAX_BACKLOG {
            return false;
        }
        self.backlog.extend(bytes);
        self.flush()
    }

    fn flush(&mut self) -> bool {
        while !self.backlog.is_empty() {
            match rustix::io::write(&self.to, self.backlog.as_slices().0) {
                Ok(count) => drop(self.backlog.drain(..count)),
                Err(Errno::AGAIN | Errno::INTR) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

/// What clients typed and the container has not taken yet. As long as there is some no client is read: whoever sends faster
/// than the container reads is held up, and nothing is lost.
#[derive(Debug, Default)]
pub(crate) struct Input {
    typed: VecDeque<u8>,
    /// The input ends behind it.
    ends: bool,
}

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) engine: Engine,
    pub(crate) pid: i32,
    pub(crate) outputs: Vec<Output>,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdin_once: bool,
    pub(crate) input: Input,
    pub(crate) console: Option<OwnedFd>,
    pub(crate) log: Option<Log>,
    pub(crate) attached: Vec<Attached>,
    /// Exited: when clients that are behind with its output are dropped.
    pub(crate) farewell: Option<Instant>,
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
        self.attached.retain_mut(|client| {
            let tap = match stream {
                Stream::Stdout => &mut client.stdout,
                Stream::Stderr => &mut client.stderr,
            };
            tap.offer(&bytes[..count])
        });
        true
    }

    /// Reads what an attached client typed and hands it to the container.
    pub(crate) fn pump_stdin(&mut self, client: usize) {
        let Some(from) = self.attached.get(client).and_then(|c| c.stdin.as_ref()) else { return };
        let mut bytes = [0u8; 4096];
        match rustix::io::read(from, &mut bytes) {
            Ok(0) => {
                self.attached[client].stdin = None;
                self.input.ends |= self.stdin_once;
            }
            Ok(count) => self.input.typed.extend(&bytes[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.attached[client].stdin = None,
        }
        self.feed();
    }

    /// Writes what was typed as far as the container takes it, then closes its input where that was the end.
    pub(crate) fn feed(&mut self) {
        while let Some(to) = self.console.as_ref().or(self.stdin.as_ref())
            && !self.input.typed.is_empty()
        {
            match rustix::io::write(to, self.input.typed.as_slices().0) {
                Ok(count) => drop(self.input.typed.drain(..count)),
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => self.input.typed.clear(),
            }
        }
        // Nobody reads input that has been closed.
        self.input.typed.clear();
        if self.input.ends {
            self.stdin = None;
        }
    }

    /// What has to become writable before more input is read from clients.
    pub(crate) fn input_waits_for(&self) -> Option<BorrowedFd<'_>> {
        let to = self.console.as_ref().or(self.stdin.as_ref())?;
        (!self.input.typed.is_empty()).then(|| to.as_fd())
    }

    /// Drops who waits or looks on and has closed its end, which nothing else tells of while the container is quiet.
    pub(crate) fn forget_hung_up(&mut self) {
        self.waiters.retain(|client| !hung_up(client.as_fd()));
        self.attached.retain(|client| !hung_up(client.stdout.to.as_fd()));
    }

    /// The process has ended: what is still in the pipes is read first, for a bounded time.
    pub(crate) fn ended(&mut self, mut exit: Exit) {
        exit.oom = self.oom.as_mut().is_some_and(oom_killed);
        self.draining = Some((exit, Instant::now() + DRAIN));
        self.stdin = None;
    }

    /// Writes to clients that are behind, and drops those that are gone, or have seen the whole output of an exited
    /// container, or had their time.
    pub(crate) fn flush_attached(&mut self, now: Instant) {
        let over = self.farewell.is_some_and(|at| at <= now);
        let exited = self.exit.is_some();
        self.attached
            .retain_mut(|client| client.flush() && !over && (!exited || client.behind().next().is_some()));
        self.farewell = self.farewell.filter(|_| !self.attached.is_empty());
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
        // Who has seen everything sees the end; the others are served on until `FAREWELL` is over.
        self.attached.retain_mut(|client| client.flush() && client.behind().next().is_some());
        self.farewell = now.checked_add(FAREWELL);
        self.console = None;
        let (exit, _) = self.draining.take()?;
        self.exit = Some(exit.clone());
        Some(exit)
    }
}

fn hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut list = [PollFd::from_borrowed_fd(fd, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut list, Some(&now)).is_ok() && list[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
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
