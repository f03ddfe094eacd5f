//! `sd_notify(3)` out of a container: a socket of our own is mounted into it, and its READY goes on to the manager.
//!
//! ```text
//! create: <root>/@notify/<id>/ is made and bound at /run/notify, NOTIFY_SOCKET names the socket in it
//! start:  binds the socket, opens the gate, waits for READY=…, sends READY, MAINPID and BARRIER to the caller's socket
//! delete: removes the directory (`@` is in no container's id)
//! ```

use std::fs::{DirBuilder, Permissions};
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime::{Mount, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::{Context, Error};
use crate::log::Log;

const IN_CONTAINER: &str = "/run/notify";
const SOCKET: &str = "notify.sock";

/// A manager without the barrier keeps the descriptor; sd_notify_barrier(3) waits for a time of the caller's choice.
const BARRIER_DEADLINE: Duration = Duration::from_secs(30);

/// A container's notification directory, and who is to be notified.
#[derive(Debug)]
pub struct Notify {
    host: String,
    directory: PathBuf,
}

/// A bound notification socket.
#[derive(Debug)]
pub struct Bound {
    host: String,
    socket: UnixDatagram,
}

impl Notify {
    /// The caller has a notification socket.
    pub fn wanted(context: &Context, id: &str) -> Option<Self> {
        let host = context.environment.text("NOTIFY_SOCKET")?.to_owned();
        Some(Self { host, directory: directory(context, id) })
    }

    /// The caller has one, and the container was created with one.
    pub fn prepared(context: &Context, id: &str) -> Option<Self> {
        Self::wanted(context, id).filter(|notify| notify.directory.is_dir())
    }

    /// Makes the directory and puts it into the container's configuration.
    pub fn prepare(&self, spec: &mut Spec) -> Result<(), Error> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder.create(&self.directory).map_err(Error::io("create", &self.directory))?;
        let mut mount = Mount::default();
        mount.set_destination(IN_CONTAINER.into());
        mount.set_source(Some(self.directory.clone()));
        mount.set_typ(None);
        mount.set_options(Some(["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec()));
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        mounts.push(mount);
        spec.set_mounts(Some(mounts));
        if let Some(process) = spec.process_mut() {
            let mut env = process.env().clone().unwrap_or_default();
            env.push(format!("NOTIFY_SOCKET={IN_CONTAINER}/{SOCKET}"));
            process.set_env(Some(env));
        }
        Ok(())
    }

    /// Binds the socket, for everybody in the container to write to.
    pub fn bind(self) -> Result<Bound, Error> {
        let path = self.directory.join(SOCKET);
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).map_err(Error::io("bind", &path))?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o777)).map_err(Error::io("chmod", &path))?;
        Ok(Bound { host: self.host, socket })
    }

    /// Removes what `prepare` made.
    pub fn remove(context: &Context, id: &str) {
        let _ = std::fs::remove_dir_all(directory(context, id));
    }
}

fn directory(context: &Context, id: &str) -> PathBuf {
    context.root.join("@notify").join(id)
}

impl Bound {
    /// Waits until the container is ready, or has ended, and tells the caller's manager.
    pub fn forward(&self, log: &Log, pidfd: &OwnedFd, pid: i32) -> Result<(), Error> {
        let failed = |error| Error::io("notify", &self.host)(error);
        let manager = UnixDatagram::unbound().map_err(failed)?;
        connect(&manager, &self.host).map_err(failed)?;
        let Some(ready) = self.wait_ready(pidfd).map_err(failed)? else { return Ok(()) };
        manager.send(&ready).map_err(failed)?;
        manager.send(format!("MAINPID={pid}\n").as_bytes()).map_err(failed)?;
        if !barrier(&manager).map_err(failed)? {
            log.warn("Timeout after waiting 30s for barrier. Ignored.");
        }
        Ok(())
    }

    /// The line that says READY; `None` when the container ended first.
    fn wait_ready(&self, pidfd: &OwnedFd) -> std::io::Result<Option<Vec<u8>>> {
        let mut buffer = [0; 4096];
        loop {
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
            rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
            if fds[0].revents().is_empty() {
                return Ok(None);
            }
            let count = self.socket.recv(&mut buffer)?;
            if let Some(line) = ready_line(&buffer[..count]) {
                return Ok(Some([line, b"\n"].concat()));
            }
        }
    }
}

fn ready_line(message: &[u8]) -> Option<&[u8]> {
    message.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="))
}

/// A leading `@` means the abstract namespace.
fn connect(socket: &UnixDatagram, address: &str) -> std::io::Result<()> {
    match address.strip_prefix('@') {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?),
        None => socket.connect(address),
    }
}

/// sd_notify_barrier(3): the manager closes the descriptor once it has read everything before. `false` when it did not.
fn barrier(manager: &UnixDatagram) -> std::io::Result<bool> {
    let (mut reader, writer) = std::io::pipe()?;
    let fds = [writer.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(manager, &[IoSlice::new(b"BARRIER=1")], &mut control, SendFlags::empty())?;
    drop(writer);
    let mut wait = [PollFd::new(&reader, PollFlags::IN)];
    let timeout = Timespec::try_from(BARRIER_DEADLINE).ok();
    if rustix::io::retry_on_intr(|| poll(&mut wait, timeout.as_ref()))? == 0 {
        return Ok(false);
    }
    reader.read(&mut [0]).map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::ready_line;

    #[test]
    fn ready_among_other_lines() {
        assert_eq!(ready_line(b"STATUS=x\nREADY=1\nFOO=2"), Some(&b"READY=1"[..]));
        assert_eq!(ready_line(b"STATUS=READY=1"), None);
    }
}
