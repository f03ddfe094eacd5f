//! The guest's side: executed from the control directory by the guest's `coracle-guest.service`, as root.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags};

use crate::backend::Backend;
use crate::control::{self, Request};
use crate::error::{Error, succeed};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Serves the request in `directory`, then turns the machine off.
pub fn main(directory: &Path) {
    let status = serve(directory).unwrap_or_else(|error| {
        let line = format!("guest: {}\n", error.chain());
        let _ = append(directory, control::ERR)
            .and_then(|mut file| file.write_all(line.as_bytes()).map_err(Error::io("write", directory)));
        125
    });
    let _ = leave_status(directory, status);
    rustix::fs::sync();
    let _ = rustix::system::reboot(rustix::system::RebootCommand::PowerOff);
}

fn serve(directory: &Path) -> Result<u8, Error> {
    let path = directory.join(control::REQUEST);
    let request = Request::parse(&std::fs::read(&path).map_err(Error::io("read", &path))?)?;
    let backend = Backend::of_this_guest()?;
    for (index, share) in request.shares.iter().enumerate() {
        backend.mount_share(index, share)?;
    }
    succeed(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let (program, arguments) =
        request.command.split_first().ok_or_else(|| Error::Request("no command".to_owned()))?;
    let child = Command::new(program)
        .args(arguments)
        .current_dir(&request.directory)
        .env_clear()
        .env("HOME", "/root")
        .env("PATH", PATH)
        .env("CORACLE_GUEST", backend.name())
        .envs(request.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Error::Spawn { program: program.to_string_lossy().into_owned(), source })?;
    Ok(code(forward(child, directory)?))
}

/// As a shell tells it.
fn code(status: ExitStatus) -> u8 {
    let signalled = || status.signal().map(|signal| 128 + signal);
    u8::try_from(status.code().or_else(signalled).unwrap_or(255)).unwrap_or(255)
}

/// One stream of the command and where it goes.
struct Stream<R> {
    from: Option<R>,
    to: File,
}

impl<R: Read + AsFd> Stream<R> {
    fn new(from: Option<R>, directory: &Path, name: &str) -> Result<Self, Error> {
        if let Some(from) = &from {
            rustix::io::ioctl_fionbio(from, true).map_err(|e| Error::io("unblock", directory)(e.into()))?;
        }
        Ok(Self { from, to: append(directory, name)? })
    }

    /// Copies what is there; forgets the stream at its end.
    fn copy(&mut self) -> std::io::Result<()> {
        let Some(from) = &mut self.from else { return Ok(()) };
        let mut bytes = [0_u8; 1 << 16];
        loop {
            match from.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => self.to.write_all(&bytes[..count])?,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.from = None;
        Ok(())
    }
}

/// Copies both streams until the command ends. What a process that outlives it says is not waited for.
fn forward(mut child: Child, directory: &Path) -> Result<ExitStatus, Error> {
    let failed = |source| Error::Io { action: "copy output to", path: directory.to_owned(), source };
    let mut out = Stream::new(child.stdout.take(), directory, control::OUT)?;
    let mut err = Stream::new(child.stderr.take(), directory, control::ERR)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Error::Request("a process without an id".to_owned()))?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|e| failed(e.into()))?;
    loop {
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(out.from.as_ref().map(|from| PollFd::new(from, PollFlags::IN)));
        fds.extend(err.from.as_ref().map(|from| PollFd::new(from, PollFlags::IN)));
        let _ = poll(&mut fds, Some(&Timespec { tv_sec: 5, tv_nsec: 0 }));
        let status = child.try_wait().map_err(failed)?;
        out.copy().map_err(failed)?;
        err.copy().map_err(failed)?;
        if let Some(status) = status {
            return Ok(status);
        }
    }
}

fn append(directory: &Path, name: &str) -> Result<File, Error> {
    let path = directory.join(name);
    OpenOptions::new().append(true).create(true).open(&path).map_err(Error::io("open", &path))
}

fn leave_status(directory: &Path, status: u8) -> Result<(), Error> {
    let (new, path) = (directory.join("status.new"), directory.join(control::STATUS));
    std::fs::write(&new, status.to_string()).map_err(Error::io("write", &new))?;
    std::fs::rename(&new, &path).map_err(Error::io("rename", &path))
}
