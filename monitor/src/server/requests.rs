//! What each request does: answer at once, or start a worker whose report answers later.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use coracle_runtime::sys::worker::fork_worker;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};

use super::{Server, failed, hello, reply};
use crate::container::{Attached, Container, Input, Output};
use crate::engine::{Engine, Report};
use crate::log::{Log, Stream};
use crate::process::{Job, Work};
use crate::protocol::{Create, Exec, Reply, Request};
use crate::wire;

/// Clients that see the output of one container.
const MAX_ATTACHED: usize = 64;

/// How long start, signal and delete may take.
const SHORT: Duration = Duration::from_secs(60);

impl Server {
    pub(super) fn serve(&mut self, request: Request, descriptors: Vec<OwnedFd>, client: OwnedFd) {
        match request {
            Request::Hello { .. } => reply(&client, &hello(rustix::process::getpid().as_raw_nonzero().get())),
            Request::Create(create) => self.create(create, client),
            Request::Start { id } => self.start(id, client),
            Request::Exec(exec) => self.exec(&exec, descriptors, client),
            Request::Signal { id, signal, all } => self.signal(&id, signal, all, client),
            Request::Resize { id, width, height } => {
                let answer = self.resize(&id, width, height);
                reply(&client, &answer);
            }
            Request::ReopenLog { id } => {
                let answer = self.reopen_log(&id);
                reply(&client, &answer);
            }
            Request::Attach { id, stdin } => {
                let answer = self.attach(&id, stdin, descriptors);
                reply(&client, &answer);
            }
            Request::Wait { id } => self.wait_for(&id, client),
            Request::Delete { id } => self.delete(id, client),
            Request::PodInit { namespaces } => self.pod_init(namespaces, client),
            Request::List => {
                let containers = self.containers.values().map(Container::status).collect();
                reply(&client, &Reply::List { containers });
            }
            Request::Shutdown => self.shut_down(&client),
        }
    }

    fn create(&mut self, create: Create, client: OwnedFd) {
        let under_way = |w: &Work| matches!(&w.job, Job::Create(c) if c.id == create.id);
        if self.containers.contains_key(&create.id) || self.works.iter().any(under_way) {
            return reply(&client, &failed("Conflict", &format!("container {} exists", create.id)));
        }
        let engine = Engine {
            binary: self.config.runtime.clone(),
            root: create.runtime_root.clone(),
            systemd: create.systemd,
            scratch: self.config.directory.join("work"),
        };
        let (container, streams) = match prepare(&create, engine) {
            Ok(made) => made,
            Err(e) => return reply(&client, &failed("Kernel", &e)),
        };
        let (engine, id) = (container.engine.clone(), create.id.clone());
        let deadline = Duration::from_millis(create.deadline_ms);
        self.spawn(Job::Create(Box::new(container)), client, deadline, move || {
            engine.create(&id, &create.bundle, streams).map(Outcome::from)
        });
    }

    fn pod_init(&mut self, namespaces: Vec<(String, PathBuf)>, client: OwnedFd) {
        let under_way = self.works.iter().any(|w| matches!(w.job, Job::PodInit(_)));
        if self.init.is_some() || under_way {
            return reply(&client, &failed("Conflict", &"the pod has an init"));
        }
        let (read, write) = match pipe_with(PipeFlags::CLOEXEC) {
            Ok(pipe) => pipe,
            Err(e) => return reply(&client, &failed("Exhausted", &e)),
        };
        self.spawn(Job::PodInit(write), client, SHORT, move || {
            crate::pod_init::spawn(&namespaces, read).map(|pid| Outcome::from((pid, None)))
        });
    }

    fn start(&mut self, id: String, client: OwnedFd) {
        let Some(engine) = self.engine_of(&id) else { return reply(&client, &no_container(&id)) };
        let job = Job::Start { id: id.clone() };
        self.spawn(job, client, SHORT, move || engine.start(&id).map(|()| Outcome::done()));
    }

    fn exec(&mut self, exec: &Exec, descriptors: Vec<OwnedFd>, client: OwnedFd) {
        let Some(engine) = self.engine_of(&exec.id) else { return reply(&client, &no_container(&exec.id)) };
        let streams: Option<[OwnedFd; 3]> = if exec.tty { None } else { descriptors.try_into().ok() };
        if !exec.tty && streams.is_none() {
            return reply(&client, &failed("Invalid", &"exec without a terminal needs three descriptors"));
        }
        self.count += 1;
        let key = format!("exec{}", self.count);
        let (id, args, env) = (exec.id.clone(), exec.args.clone(), exec.env.clone());
        let job = Job::Exec { tty: exec.tty, timeout_ms: exec.timeout_ms };
        self.spawn(job, client, Duration::from_millis(exec.deadline_ms), move || {
            engine.exec(&key, &id, &args, &env, streams).map(Outcome::from)
        });
    }

    fn signal(&mut self, id: &str, signal: i32, all: bool, client: OwnedFd) {
        let Some(container) = self.containers.get(id) else { return reply(&client, &no_container(id)) };
        if container.exit.is_some() || container.draining.is_some() {
            return reply(&client, &Reply::Done);
        }
        let (engine, id) = (container.engine.clone(), id.to_owned());
        self.spawn(Job::Signal, client, SHORT, move || {
            engine.kill(&id, signal, all).map(|()| Outcome::done())
        });
    }

    fn delete(&mut self, id: String, client: OwnedFd) {
        let Some(engine) = self.engine_of(&id) else { return reply(&client, &no_container(&id)) };
        let job = Job::Delete { id: id.clone() };
        self.spawn(job, client, SHORT, move || engine.delete(&id).map(|()| Outcome::done()));
    }

    fn resize(&self, id: &str, width: u16, height: u16) -> Reply {
        let Some(container) = self.containers.get(id) else { return no_container(id) };
        let Some(console) = &container.console else {
            return failed("Invalid", &"the container has no terminal");
        };
        let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(console, size).map_or_else(|e| failed("Kernel", &e), |()| Reply::Done)
    }

    fn reopen_log(&mut self, id: &str) -> Reply {
        let Some(container) = self.containers.get_mut(id) else { return no_container(id) };
        if container.exit.is_some() {
            return failed("Conflict", &"the container does not run");
        }
        container
            .log
            .as_mut()
            .map_or(Reply::Done, |log| log.reopen().map_or_else(|e| failed("Kernel", &e), |()| Reply::Done))
    }

    fn attach(&mut self, id: &str, reads: bool, descriptors: Vec<OwnedFd>) -> Reply {
        let Some(container) = self.containers.get_mut(id) else { return no_container(id) };
        let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(descriptors) else {
            return failed("Invalid", &"attach needs three descriptors");
        };
        for fd in [&stdin, &stdout, &stderr] {
            if let Err(e) = rustix::io::ioctl_fionbio(fd, true) {
                return failed("Kernel", &e);
            }
        }
        container.forget_hung_up();
        if container.attached.len() >= MAX_ATTACHED {
            return failed("Exhausted", &format!("{MAX_ATTACHED} clients are attached to container {id}"));
        }
        container.attached.push(Attached::new(reads.then_some(stdin), stdout, stderr));
        Reply::Done
    }

    fn wait_for(&mut self, id: &str, client: OwnedFd) {
        match self.containers.get_mut(id) {
            None => reply(&client, &no_container(id)),
            Some(Container { exit: Some(exit), .. }) => reply(&client, &Reply::Exited(exit.clone())),
            Some(container) => {
                // A daemon that was started anew asks again, and what its predecessor asked on is still here.
                container.forget_hung_up();
                container.waiters.push(client);
            }
        }
    }

    fn shut_down(&mut self, client: &OwnedFd) {
        if self.containers.values().any(|c| c.exit.is_none()) || !self.works.is_empty() {
            return reply(client, &failed("Conflict", &"a container of the pod is alive"));
        }
        self.leaving = true;
        reply(client, &Reply::Done);
    }

    /// A worker whose time is over: it is killed with its runtime, and what a creation has left is removed.
    pub(super) fn give_up(&mut self, work: Work) {
        super::kill_worker(&work);
        let message = "the runtime did not answer in time and was killed";
        let Job::Create(container) = work.job else {
            return reply(&work.client, &failed("Exhausted", &message));
        };
        let (engine, id) = (container.engine.clone(), container.id.clone());
        drop(container);
        self.spawn(Job::Undo, work.client, SHORT, move || {
            let removed = engine.delete(&id);
            let also = removed.map_or_else(|e| format!("; removing what is left: {e}"), |()| String::new());
            Err(std::io::Error::other(format!("{message}{also}")))
        });
    }

    fn engine_of(&self, id: &str) -> Option<Engine> {
        self.containers.get(id).map(|c| c.engine.clone())
    }

    fn spawn(
        &mut self,
        job: Job,
        client: OwnedFd,
        limit: Duration,
        work: impl FnOnce() -> std::io::Result<Outcome>,
    ) {
        let forked = fork_worker(|socket| {
            // A group of its own, so that a deadline ends the runtime too.
            let _ = rustix::process::setpgid(None, None);
            // The loop blocks SIGCHLD; a container must not inherit that.
            let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
            let outcome = work().unwrap_or_else(|e| Outcome {
                report: Report::Failed { message: e.to_string() },
                console: None,
            });
            let descriptors: Vec<_> = outcome.console.iter().map(AsFd::as_fd).collect();
            i32::from(wire::send(&socket, &outcome.report, &descriptors).is_err())
        });
        match forked {
            Ok(worker) => self.works.push(Work { worker, job, client, deadline: Instant::now() + limit }),
            Err(e) => reply(&client, &failed("Exhausted", &format!("fork a worker: {e}"))),
        }
    }
}

/// What a worker has made.
struct Outcome {
    report: Report,
    console: Option<OwnedFd>,
}

impl Outcome {
    const fn done() -> Self {
        Self { report: Report::Done, console: None }
    }
}

impl From<(i32, Option<OwnedFd>)> for Outcome {
    fn from((pid, console): (i32, Option<OwnedFd>)) -> Self {
        Self { report: Report::Made { pid }, console }
    }
}

fn no_container(id: &str) -> Reply {
    failed("NotFound", &format!("container {id}: not in this pod"))
}

/// Opens the log and makes the pipes: our ends go into the container, the others are its streams.
fn prepare(create: &Create, engine: Engine) -> std::io::Result<(Container, Option<[OwnedFd; 3]>)> {
    let log = create.log_path.as_deref().map(Log::open).transpose()?;
    let mut container = Container {
        id: create.id.clone(),
        engine,
        pid: 0,
        outputs: Vec::new(),
        stdin: None,
        stdin_once: create.stdin_once,
        input: Input::default(),
        console: None,
        log,
        attached: Vec::new(),
        farewell: None,
        waiters: Vec::new(),
        started_at: 0,
        exit: None,
        draining: None,
        oom: None,
    };
    if wants_terminal(&create.bundle)? {
        return Ok((container, None));
    }
    let (out_read, out_write) = pipe_with(PipeFlags::CLOEXEC)?;
    let (err_read, err_write) = pipe_with(PipeFlags::CLOEXEC)?;
    for fd in [&out_read, &err_read] {
        rustix::io::ioctl_fionbio(fd, true)?;
    }
    container.outputs = vec![Output::new(out_read, Stream::Stdout), Output::new(err_read, Stream::Stderr)];
    let stdin = if create.stdin {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&write, true)?;
        container.stdin = Some(write);
        read
    } else {
        File::open("/dev/null")?.into()
    };
    Ok((container, Some([stdin, out_write, err_write])))
}

fn wants_terminal(bundle: &std::path::Path) -> std::io::Result<bool> {
    use std::io::Read;
    let path = bundle.join("config.json");
    let mut text = String::new();
    let told = |e: std::io::Error| std::io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    File::open(&path).map_err(told)?.take(16 << 20).read_to_string(&mut text).map_err(told)?;
    let config: serde_json::Value = serde_json::from_str(&text)?;
    Ok(config["process"]["terminal"].as_bool().unwrap_or(false))
}

/// The terminal's master serves both directions; its output is the container's stdout.
pub(super) fn take_console(container: &mut Container, console: OwnedFd) {
    let Ok(reader) = console.try_clone() else { return };
    let _ = rustix::io::ioctl_fionbio(&reader, true);
    container.outputs = vec![Output::new(reader, Stream::Stdout)];
    container.console = Some(console);
}

/// Opens the file that counts OOM kills of the group of `pid`: kept open, it can be read after the group is gone from
/// the tree on v1; on v2 the runtime removes the group only at delete.
pub(super) fn open_oom_file(pid: i32) -> Option<File> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let group = |line: &str| line.splitn(3, ':').nth(2).map(|p| p.trim_start_matches('/').to_owned());
    let v1 = text.lines().find(|l| l.split(':').nth(1).is_some_and(|c| c.split(',').any(|c| c == "memory")));
    if let Some(path) = v1.and_then(group) {
        return File::open(format!("/sys/fs/cgroup/memory/{path}/memory.oom_control")).ok();
    }
    let path = text.lines().find(|l| l.starts_with("0::")).and_then(group)?;
    File::open(format!("/sys/fs/cgroup/{path}/memory.events")).ok()
}
