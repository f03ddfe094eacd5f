//! The monitor's loop: poll, handle what is ready, bound everything by a deadline.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, kill_process_group, pidfd_open, pidfd_send_signal};

use crate::container::{Attached, Container};
use crate::engine::Report;
use crate::process::{Exec, Job, Work};
use crate::protocol::{Exit, Reply, Request, VERSION};
use crate::{exits, wire};

mod requests;

/// Most connections, workers and execs under way together; further connections wait in the listen queue.
const MAX_CLIENTS: usize = 256;
/// Exits of processes that no one has claimed yet (a process may die before its worker has reported it).
const MAX_UNCLAIMED: usize = 256;

/// Where the monitor keeps its socket and records, and which runtime makes its containers.
#[derive(Debug, Clone)]
pub struct Config {
    /// 0700 directory of this pod: `monitor.sock`, `exits/`, `work/`.
    pub directory: PathBuf,
    /// The runtime binary.
    pub runtime: PathBuf,
}

/// The monitor.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listener: OwnedFd,
    signals: SignalFd,
    /// Connections whose request has not come yet.
    connections: Vec<OwnedFd>,
    works: Vec<Work>,
    execs: Vec<Exec>,
    containers: BTreeMap<String, Container>,
    /// End of the pipe that keeps the pod's init alive.
    init: Option<OwnedFd>,
    unclaimed: VecDeque<(i32, i32)>,
    leaving: bool,
    count: u64,
}

/// What a descriptor of the poll list stands for.
#[derive(Debug, Clone)]
enum Ready {
    Listener,
    Signals,
    Connection(usize),
    Work(usize),
    ExecClient(usize),
    Output(String, usize),
    Stdin(String, usize),
    /// The container takes input again.
    Input(String),
    /// A client that was behind reads again.
    Attached(String),
}

impl Server {
    /// Binds the socket and becomes the reaper of what its workers leave.
    pub fn bind(config: Config) -> io::Result<Self> {
        std::fs::create_dir_all(config.directory.join("work"))?;
        // Whoever made it and under which umask: pid files and sockets in it are nobody else's.
        std::fs::set_permissions(&config.directory, std::fs::Permissions::from_mode(0o700))?;
        let _ = std::fs::remove_file(config.directory.join(wire::SOCKET));
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let (address, _directory) = wire::address(&config.directory)?;
        rustix::net::bind(&listener, &address)?;
        rustix::net::listen(&listener, 64)?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self {
            config,
            listener,
            signals,
            connections: Vec::new(),
            works: Vec::new(),
            execs: Vec::new(),
            containers: BTreeMap::new(),
            init: None,
            unclaimed: VecDeque::new(),
            leaving: false,
            count: 0,
        })
    }

    /// Serves until `Shutdown`.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.leaving {
            for ready in self.wait()? {
                self.handle(ready);
            }
            self.reap();
            self.expire(Instant::now());
        }
        std::fs::remove_file(self.config.directory.join(wire::SOCKET))
    }

    /// Polls; outputs come last, so that indices of what came before stay true while they are handled.
    fn wait(&self) -> io::Result<Vec<Ready>> {
        let mut names = vec![Ready::Signals];
        let mut list = vec![PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
        let mut add = |fd, events, name| {
            list.push(PollFd::from_borrowed_fd(fd, events));
            names.push(name);
        };
        if self.connections.len() + self.works.len() + self.execs.len() < MAX_CLIENTS {
            add(self.listener.as_fd(), PollFlags::IN, Ready::Listener);
        }
        for (n, work) in self.works.iter().enumerate().rev() {
            add(work.worker.socket.as_fd(), PollFlags::IN, Ready::Work(n));
        }
        for (n, exec) in self.execs.iter().enumerate().rev() {
            add(exec.client.as_fd(), PollFlags::IN, Ready::ExecClient(n));
        }
        for (n, connection) in self.connections.iter().enumerate().rev() {
            add(connection.as_fd(), PollFlags::IN, Ready::Connection(n));
        }
        for (id, container) in &self.containers {
            for (n, client) in container.attached.iter().enumerate() {
                if let Some(stdin) = client.stdin.as_ref().filter(|_| container.input_waits_for().is_none()) {
                    add(stdin.as_fd(), PollFlags::IN, Ready::Stdin(id.clone(), n));
                }
            }
            for behind in container.attached.iter().flat_map(Attached::behind) {
                add(behind, PollFlags::OUT, Ready::Attached(id.clone()));
            }
            if let Some(input) = container.input_waits_for() {
                add(input, PollFlags::OUT, Ready::Input(id.clone()));
            }
            for (n, output) in container.outputs.iter().enumerate().rev() {
                add(output.from.as_fd(), PollFlags::IN, Ready::Output(id.clone(), n));
            }
        }
        let timeout = self.timeout(Instant::now());
        match poll(&mut list, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = list.iter().zip(names).filter(|(fd, _)| !fd.revents().is_empty());
        Ok(ready.map(|(_, name)| name).collect())
    }

    fn timeout(&self, now: Instant) -> Option<Timespec> {
        let works = self.works.iter().map(|w| w.deadline);
        let execs = self.execs.iter().filter_map(|e| e.deadline);
        let drains = self.containers.values().filter_map(|c| c.draining.as_ref().map(|(_, at)| *at));
        let farewells = self.containers.values().filter_map(|c| c.farewell);
        let next = works.chain(execs).chain(drains).chain(farewells).min()?;
        let wait = next.saturating_duration_since(now) + Duration::from_millis(1);
        Timespec::try_from(wait).ok()
    }

    fn handle(&mut self, ready: Ready) {
        match ready {
            Ready::Signals => while matches!(self.signals.read_signal(), Ok(Some(_))) {},
            Ready::Listener => self.accept(),
            Ready::Connection(n) => self.receive(n),
            Ready::Work(n) => self.work_reported(n),
            Ready::ExecClient(n) => self.exec_client_gone(n),
            Ready::Output(id, n) => {
                if let Some(container) = self.containers.get_mut(&id).filter(|c| n < c.outputs.len()) {
                    container.pump(n);
                }
            }
            Ready::Stdin(id, n) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.pump_stdin(n);
                }
            }
            Ready::Input(id) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.feed();
                }
            }
            Ready::Attached(id) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.flush_attached(Instant::now());
                }
            }
        }
    }

    /// Only the owner of this process may connect, whatever the directory's mode became.
    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(connection) = rustix::net::accept_with(&self.listener, flags) else { return };
        let allowed = rustix::net::sockopt::socket_peercred(&connection)
            .is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid());
        if allowed {
            self.connections.push(connection);
        }
    }

    fn receive(&mut self, n: usize) {
        let connection = self.connections.swap_remove(n);
        match wire::receive::<Request>(&connection) {
            Ok(Some((request, descriptors))) => self.serve(request, descriptors, connection),
            Ok(None) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.connections.push(connection),
            Err(e) => reply(&connection, &failed("Invalid", &e)),
        }
    }

    fn work_reported(&mut self, n: usize) {
        let received = wire::receive::<Report>(&self.works[n].worker.socket);
        if matches!(&received, Err(e) if e.kind() == io::ErrorKind::WouldBlock) {
            return;
        }
        let work = self.works.remove(n);
        let (report, console) = match received {
            Ok(Some((report, descriptors))) => (report, descriptors.into_iter().next()),
            Ok(None) => (Report::Failed { message: "the worker died".into() }, None),
            Err(e) => (Report::Failed { message: format!("read the worker's report: {e}") }, None),
        };
        self.finish(work, report, console);
    }

    fn finish(&mut self, work: Work, report: Report, console: Option<OwnedFd>) {
        match (work.job, report) {
            (_, Report::Failed { message }) => {
                reply(&work.client, &Reply::Failed { kind: "Kernel".into(), message })
            }
            (Job::Create(container), Report::Made { pid }) => {
                self.created(*container, pid, console, &work.client)
            }
            (Job::Exec { tty, timeout_ms }, Report::Made { pid }) => {
                self.exec_started(pid, tty, timeout_ms, console, work.client);
            }
            (Job::PodInit(pipe), Report::Made { pid }) => {
                self.init = Some(pipe);
                reply(&work.client, &Reply::Started { pid });
            }
            (Job::Start { id }, _) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.started_at = nanoseconds();
                }
                reply(&work.client, &Reply::Done);
            }
            (Job::Delete { id }, _) => {
                self.containers.remove(&id);
                let _ = exits::remove(&self.config.directory, &id);
                reply(&work.client, &Reply::Done);
            }
            (Job::Signal | Job::Undo | Job::PodInit(_) | Job::Create(_) | Job::Exec { .. }, _) => {
                reply(&work.client, &Reply::Done)
            }
        }
    }

    fn created(&mut self, mut container: Container, pid: i32, console: Option<OwnedFd>, client: &OwnedFd) {
        container.pid = pid;
        if let Some(console) = console {
            requests::take_console(&mut container, console);
        }
        container.oom = requests::open_oom_file(pid);
        let id = container.id.clone();
        self.containers.insert(id.clone(), container);
        if let Some(code) = self.claim(pid) {
            self.container_ended(&id, code);
        }
        reply(client, &Reply::Started { pid });
    }

    fn exec_started(
        &mut self,
        pid: i32,
        tty: bool,
        timeout_ms: u64,
        console: Option<OwnedFd>,
        client: OwnedFd,
    ) {
        let descriptors: Vec<_> = console.iter().filter(|_| tty).map(AsFd::as_fd).collect();
        let told = wire::send(&client, &Reply::Started { pid }, &descriptors);
        let _ = told; // a client that is gone is seen at the exit
        if let Some(code) = self.claim(pid) {
            reply(&client, &Reply::Exited(exit_of(code)));
            return;
        }
        let opened = Pid::from_raw(pid).map(|p| pidfd_open(p, PidfdFlags::empty()));
        let Some(Ok(pidfd)) = opened else {
            reply(&client, &Reply::Exited(exit_of(255)));
            return;
        };
        let deadline = (timeout_ms > 0).then(|| Instant::now() + Duration::from_millis(timeout_ms));
        self.execs.push(Exec { pid, pidfd, client, deadline, timed_out: false });
    }

    /// The client of an exec hung up: nobody reads the answer, so it is killed, as containerd does.
    fn exec_client_gone(&mut self, n: usize) {
        if let Ok(Some(_)) = wire::receive::<serde_json::Value>(&self.execs[n].client) {
            return; // nothing is expected; ignored
        }
        let exec = self.execs.swap_remove(n);
        exec.kill();
    }

    fn claim(&mut self, pid: i32) -> Option<i32> {
        let at = self.unclaimed.iter().position(|(p, _)| *p == pid)?;
        self.unclaimed.remove(at).map(|(_, code)| code)
    }

    /// Collects every child that has ended.
    fn reap(&mut self) {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let (pid, code) = match status {
                WaitStatus::Exited(pid, code) => (pid.as_raw(), code),
                WaitStatus::Signaled(pid, signal, _) => (pid.as_raw(), 128 + signal as i32),
                WaitStatus::StillAlive => return,
                _ => continue,
            };
            self.ended(pid, code);
        }
    }

    fn ended(&mut self, pid: i32, code: i32) {
        if let Some(n) = self.execs.iter().position(|e| e.pid == pid) {
            let exec = self.execs.swap_remove(n);
            let exit = Exit { timed_out: exec.timed_out, ..exit_of(code) };
            reply(&exec.client, &Reply::Exited(exit));
            return;
        }
        let id = self.containers.values().find(|c| c.pid == pid && c.exit.is_none()).map(|c| c.id.clone());
        if let Some(id) = id {
            self.container_ended(&id, code);
            return;
        }
        if self.works.iter().any(|w| w.worker.pid == pid) {
            return;
        }
        self.unclaimed.push_back((pid, code));
        if self.unclaimed.len() > MAX_UNCLAIMED {
            self.unclaimed.pop_front();
        }
    }

    fn container_ended(&mut self, id: &str, code: i32) {
        if let Some(container) = self.containers.get_mut(id) {
            container.ended(exit_of(code));
        }
    }

    /// What has run out of time: workers, execs, the draining of exited containers.
    fn expire(&mut self, now: Instant) {
        for n in (0..self.works.len()).rev() {
            if self.works[n].deadline <= now {
                let work = self.works.remove(n);
                self.give_up(work);
            }
        }
        for exec in &mut self.execs {
            if exec.deadline.is_some_and(|d| d <= now) {
                exec.deadline = None;
                exec.timed_out = true;
                exec.kill();
            }
        }
        let directory = self.config.directory.clone();
        for container in self.containers.values_mut() {
            if let Some(exit) = container.drained(now) {
                tell_exit(&directory, container, &exit);
            }
            if container.farewell.is_some() {
                container.flush_attached(now);
            }
        }
    }
}

/// Kills the worker and the runtime that it runs. The worker leads a group of its own, which exists as long as the pidfd
/// takes a signal: only this loop reaps. A container's init has left the group by setsid.
fn kill_worker(work: &Work) {
    let signal = rustix::process::Signal::KILL;
    if pidfd_send_signal(&work.worker.pidfd, signal).is_ok()
        && let Some(group) = Pid::from_raw(work.worker.pid)
    {
        let _ = kill_process_group(group, signal);
    }
}

/// Record first, then tell.
fn tell_exit(directory: &Path, container: &mut Container, exit: &Exit) {
    // A record that cannot be written (run directory full) is still told to those who wait.
    let _ = exits::save(directory, &container.id, exit);
    for waiter in container.waiters.drain(..) {
        reply(&waiter, &Reply::Exited(exit.clone()));
    }
}

/// Answers; a client that is gone or does not read has lost its answer.
fn reply(client: &OwnedFd, message: &Reply) {
    let _ = wire::send(client, message, &[]);
}

fn failed(kind: &str, message: &dyn std::fmt::Display) -> Reply {
    Reply::Failed { kind: kind.into(), message: message.to_string() }
}

fn exit_of(code: i32) -> Exit {
    Exit { code, at: nanoseconds(), oom: false, timed_out: false }
}

fn nanoseconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The version that a `Hello` is answered with.
const fn hello(pid: i32) -> Reply {
    Reply::Hello { version: VERSION, pid }
}
