//! The host's side: boots a machine for one command and forwards what it says.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::Backend;
use crate::backend;
use crate::control::{self, Request};
use crate::error::{Error, last_lines};
use crate::image;

/// What the machine is given.
#[derive(Debug, Clone)]
pub struct Options {
    pub backend: Backend,
    /// MiB.
    pub memory: u32,
    /// The machine is ended after that.
    pub deadline: Duration,
    /// The program whose `guest-agent DIRECTORY` is [`crate::agent::main`].
    pub agent: PathBuf,
}

/// Boots, runs the request, forwards its output, gives its exit status.
///
/// # Errors
/// The machine can't be built or started, or it ends without a status.
pub fn run(request: &Request, options: &Options) -> Result<u8, Error> {
    let image = image::ensure(options.backend)?;
    let control = ControlDirectory::create(request, &options.agent)?;
    let console = backend::console(control.path());
    let output = File::create(&console).map_err(Error::io("create", &console))?;
    let mut command = options.backend.command(&image, control.path(), &request.shares, options.memory);
    command.stdin(Stdio::null()).stdout(output).stderr(Stdio::null()).process_group(0);
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.spawn().map_err(|source| Error::Spawn { program, source })?;
    let ended = Machine { child }.watch(control.path(), options.deadline)?;
    control::status(control.path()).ok_or_else(|| {
        let text = std::fs::read(&console).unwrap_or_default();
        Error::NoStatus { why: ended, console: last_lines(&String::from_utf8_lossy(&text), 40) }
    })
}

/// The directory of one run; removed at its end.
struct ControlDirectory(PathBuf);

impl ControlDirectory {
    fn create(request: &Request, agent: &Path) -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        let path = image::cache_directory().join("runs").join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).map_err(Error::io("make", &path))?;
        let directory = Self(path);
        let at = |name: &str| directory.0.join(name);
        std::fs::write(at(control::REQUEST), request.render()).map_err(Error::io("write", &directory.0))?;
        for name in [control::OUT, control::ERR] {
            File::create(at(name)).map_err(Error::io("create", at(name)))?;
        }
        std::fs::copy(agent, at(control::AGENT)).map_err(Error::io("copy", agent))?;
        Ok(directory)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ControlDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A machine that runs; dropping it ends it.
struct Machine {
    child: Child,
}

impl Machine {
    /// Forwards until the machine has ended by itself or the deadline ends it; how it ended.
    fn watch(mut self, control: &Path, deadline: Duration) -> Result<String, Error> {
        let failed = |errno: rustix::io::Errno| Error::io("watch", control)(errno.into());
        let watch =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(failed)?;
        inotify::add_watch(&watch, control, inotify::WatchFlags::MODIFY | inotify::WatchFlags::MOVED_TO)
            .map_err(failed)?;
        let pidfd = rustix::process::pidfd_open(self.pid(), PidfdFlags::empty()).map_err(failed)?;
        let mut out = Follower::open(control, control::OUT)?;
        let mut err = Follower::open(control, control::ERR)?;
        let end = Instant::now() + deadline;
        loop {
            let mut fds = [PollFd::new(&watch, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
            // QEMU's writes and a deadline raise no event here.
            let _ = poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }));
            let mut events = [0_u8; 4096];
            while rustix::io::read(&watch, &mut events).is_ok_and(|count| count > 0) {}
            let ended = self.child.try_wait().map_err(Error::io("wait for", control))?;
            out.forward(&mut std::io::stdout().lock()).map_err(Error::io("forward", control))?;
            err.forward(&mut std::io::stderr().lock()).map_err(Error::io("forward", control))?;
            if let Some(status) = ended {
                return Ok(format!("the machine ended: {status}"));
            }
            if Instant::now() > end {
                return Ok(format!("no end within {} s", deadline.as_secs()));
            }
            // What is left to say is said: its own shutdown takes a second that nobody needs.
            if control.join(control::STATUS).exists() {
                out.forward(&mut std::io::stdout().lock()).map_err(Error::io("forward", control))?;
                err.forward(&mut std::io::stderr().lock()).map_err(Error::io("forward", control))?;
                return Ok("it left a status".to_owned());
            }
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The group: user-mode Linux keeps a process for each address space of the guest.
        let _ = rustix::process::kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file that grows.
struct Follower(File);

impl Follower {
    fn open(directory: &Path, name: &str) -> Result<Self, Error> {
        let path = directory.join(name);
        File::open(&path).map(Self).map_err(Error::io("open", &path))
    }

    fn forward(&mut self, to: &mut dyn Write) -> std::io::Result<()> {
        let mut bytes = [0_u8; 1 << 16];
        loop {
            let count = self.0.read(&mut bytes)?;
            if count == 0 {
                return to.flush();
            }
            to.write_all(&bytes[..count])?;
        }
    }
}
