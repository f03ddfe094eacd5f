//! A process in a container: started by the pod's monitor, its pipes held here.
//!
//! The connection to the monitor is the process's life line: when it is dropped, because the client is gone or the daemon
//! died, the monitor kills the process and what it has started.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use coracle_monitor::client::{self, Pending};
use coracle_monitor::protocol::{self, Exit, Reply, Request};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;

use super::descriptor::{Descriptor, watch};
use super::error::Error;
use crate::daemon::Daemon;
use crate::record::{Container, ContainerState};

/// How long the start of a process may take.
const START: Duration = Duration::from_secs(60);

/// What to run and which streams to hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Command {
    pub(super) args: Vec<String>,
    pub(super) tty: bool,
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    /// None runs as long as it runs.
    pub(super) timeout: Option<Duration>,
}

/// A started process. With a terminal `stdin` and `stdout` are its master.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) stdin: Option<Arc<Descriptor>>,
    pub(super) stdout: Option<Arc<Descriptor>>,
    pub(super) stderr: Option<Arc<Descriptor>>,
    pub(super) terminal: Option<Arc<Descriptor>>,
    pub(super) life: Life,
}

/// The connection that tells the end of the process.
#[derive(Debug)]
pub(super) struct Life {
    id: String,
    answers: AsyncFd<Pending>,
}

/// The container with this id, which must run.
pub(super) fn running(daemon: &Daemon, id: &str) -> Result<Container, Error> {
    let found = daemon.records.containers.find(id).map(|entry| entry.get());
    let container = found.filter(|c| c.state != ContainerState::Creating);
    let container = container.ok_or_else(|| Error::NoContainer(id.to_owned()))?;
    match container.state {
        ContainerState::Running => Ok(container),
        state => Err(Error::NotRunning { id: container.id, state }),
    }
}

/// Runs a command with the user, privileges, environment and directory of the container's own process.
pub(super) async fn start(
    daemon: &Daemon,
    container: &Container,
    command: Command,
) -> Result<Process, Error> {
    let pipes =
        if command.tty { Pipes::default() } else { Pipes::new(&command).map_err(Error::io("pipe"))? };
    let Pipes { ours, theirs } = pipes;
    let deadline = command.timeout.map_or(START, |limit| limit.min(START));
    let request = protocol::Exec {
        id: container.id.clone(),
        args: command.args,
        env: if command.tty { vec!["TERM=xterm".into()] } else { Vec::new() },
        tty: command.tty,
        deadline_ms: milliseconds(deadline),
        timeout_ms: command.timeout.map_or(0, milliseconds),
    };
    let client = daemon.monitor(&container.sandbox);
    let answers = blocking(move || {
        let theirs: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        client.send(&Request::Exec(request), &theirs)
    });
    let mut life = Life::new(&container.id, answers.await.map_err(monitor(&container.id))?)?;
    let started = life.next().await.map_err(|error| match (command.timeout, error) {
        // The start itself took as long as the whole was given.
        (Some(limit), Error::Monitor { source: client::Error::Failed { kind, .. }, id })
            if kind == "Exhausted" && limit <= START =>
        {
            Error::Timeout { id, limit }
        }
        (_, error) => error,
    })?;
    match started {
        (Reply::Started { .. }, descriptors) if command.tty => Process::with_terminal(descriptors, life),
        (Reply::Started { .. }, _) => Process::with_pipes(ours, life),
        (other, _) => Err(monitor(&container.id)(client::Error::Unexpected(Box::new(other)))),
    }
}

impl Process {
    fn with_terminal(descriptors: Vec<OwnedFd>, life: Life) -> Result<Self, Error> {
        let fail = Error::io("terminal");
        let master = match descriptors.into_iter().next().map(Descriptor::new) {
            Some(Ok(master)) => Arc::new(master),
            Some(Err(e)) => return Err(fail(e)),
            None => return Err(fail(io::Error::other("the monitor sent none"))),
        };
        let all = Some(Arc::clone(&master));
        Ok(Self { stdin: all.clone(), stdout: all, stderr: None, terminal: Some(master), life })
    }

    fn with_pipes(ours: [Option<OwnedFd>; 3], life: Life) -> Result<Self, Error> {
        let open = |fd: Option<OwnedFd>| {
            fd.map(|fd| Descriptor::new(fd).map(Arc::new)).transpose().map_err(Error::io("pipe"))
        };
        let [stdin, stdout, stderr] = ours;
        Ok(Self { stdin: open(stdin)?, stdout: open(stdout)?, stderr: open(stderr)?, terminal: None, life })
    }
}

impl Life {
    fn new(id: &str, answers: Pending) -> Result<Self, Error> {
        let register = || {
            answers.set_nonblocking()?;
            watch(answers)
        };
        let answers = register().map_err(Error::io("connection to the monitor"))?;
        Ok(Self { id: id.to_owned(), answers })
    }

    /// How the process ended.
    pub(super) async fn exit(&mut self) -> Result<Exit, Error> {
        match self.next().await? {
            (Reply::Exited(exit), _) => Ok(exit),
            (other, _) => Err(monitor(&self.id)(client::Error::Unexpected(Box::new(other)))),
        }
    }

    async fn next(&mut self) -> Result<(Reply, Vec<OwnedFd>), Error> {
        loop {
            let ready = self.answers.readable().await;
            let mut ready = ready.map_err(Error::io("connection to the monitor"))?;
            match self.answers.get_ref().try_next().map_err(monitor(&self.id))? {
                Some(answer) => return Ok(answer),
                None => ready.clear_ready(),
            }
        }
    }
}

/// Sets the size of a terminal.
pub(super) fn resize(terminal: &Descriptor, width: u16, height: u16) -> io::Result<()> {
    Ok(tcsetwinsize(terminal, Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 })?)
}

/// The ends that stay here and those that the process gets; what is not asked for is `/dev/null`.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pub(super) ours: [Option<OwnedFd>; 3],
    pub(super) theirs: Vec<OwnedFd>,
}

impl Pipes {
    pub(super) fn new(wanted: &Command) -> io::Result<Self> {
        let mut made = Self::default();
        for (n, wanted) in [wanted.stdin, wanted.stdout, wanted.stderr].into_iter().enumerate() {
            if !wanted {
                made.theirs.push(File::options().read(true).write(true).open("/dev/null")?.into());
                continue;
            }
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            let (ours, theirs) = if n == 0 { (write, read) } else { (read, write) };
            made.ours[n] = Some(ours);
            made.theirs.push(theirs);
        }
        Ok(made)
    }
}

/// Runs what blocks on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, client::Error> + Send + 'static,
) -> Result<T, client::Error> {
    let lost = |e: tokio::task::JoinError| client::Error::Unreachable {
        path: "monitor.sock".into(),
        source: io::Error::other(e),
    };
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}

pub(super) fn monitor(id: &str) -> impl FnOnce(client::Error) -> Error + use<> {
    let id = id.to_owned();
    move |source| Error::Monitor { id, source }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
