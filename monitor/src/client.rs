//! The daemon's side: one connection a request, blocking with a deadline. Call it off the async threads.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::protocol::{Reply, Request};
use crate::wire;

/// Why a request got no good answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No monitor answers at the socket.
    #[error("monitor {path}: {source}")]
    Unreachable { path: PathBuf, source: io::Error },
    /// The monitor refused or its work failed.
    #[error("{message}")]
    Failed { kind: String, message: String },
    /// An answer of another kind than asked for.
    #[error("monitor answered {0:?}")]
    Unexpected(Box<Reply>),
}

impl Error {
    /// Nobody listens at the socket, or who did is dead. A monitor that is only late is neither: what it holds may live.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
        matches!(self, Self::Unreachable { source, .. }
            if matches!(source.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotFound))
    }
}

/// A pod's monitor, by its directory.
#[derive(Debug, Clone)]
pub struct Client {
    directory: PathBuf,
}

/// A connection on which more answers follow.
#[derive(Debug)]
pub struct Pending {
    socket: OwnedFd,
    path: PathBuf,
}

impl Client {
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Sends a request and waits for its first answer.
    pub fn call(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
        deadline: Duration,
    ) -> Result<(Reply, Vec<OwnedFd>), Error> {
        let pending = self.send(request, descriptors)?;
        pending.next(Some(deadline))
    }

    /// Sends a request that is answered by `Done` or `Started`.
    pub fn request(&self, request: &Request, deadline: Duration) -> Result<Reply, Error> {
        Ok(self.call(request, &[], deadline)?.0)
    }

    /// Sends a request; the answers are read from what is returned.
    pub fn send(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<Pending, Error> {
        let fail = |source: io::Error| Error::Unreachable { path: self.directory.clone(), source };
        let connect = || -> io::Result<OwnedFd> {
            let socket = rustix::net::socket_with(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC,
                None,
            )?;
            let (address, _directory) = wire::address(&self.directory)?;
            rustix::net::connect(&socket, &address)?;
            Ok(socket)
        };
        let socket = connect().map_err(fail)?;
        wire::send(&socket, request, descriptors).map_err(fail)?;
        Ok(Pending { socket, path: self.directory.clone() })
    }
}

impl AsFd for Pending {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Pending {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Pending {
    /// For an event loop: [`Pending::try_next`] when the descriptor is readable, in place of [`Pending::next`].
    pub fn set_nonblocking(&self) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.socket, true)?)
    }

    /// The next answer, `None` when it has not come yet.
    pub fn try_next(&self) -> Result<Option<(Reply, Vec<OwnedFd>)>, Error> {
        let fail = |source: io::Error| Error::Unreachable { path: self.path.clone(), source };
        match wire::receive::<Reply>(&self.socket) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(fail(e)),
            Ok(Some((Reply::Failed { kind, message }, _))) => Err(Error::Failed { kind, message }),
            Ok(Some(answer)) => Ok(Some(answer)),
            Ok(None) => Err(fail(io::Error::new(io::ErrorKind::ConnectionReset, "it hung up"))),
        }
    }

    /// Waits for the next answer; without a deadline as long as the monitor lives.
    pub fn next(&self, deadline: Option<Duration>) -> Result<(Reply, Vec<OwnedFd>), Error> {
        let fail = |source: io::Error| Error::Unreachable { path: self.path.clone(), source };
        set_socket_timeout(&self.socket, Timeout::Recv, deadline).map_err(|e| fail(e.into()))?;
        match wire::receive::<Reply>(&self.socket).map_err(fail)? {
            Some((Reply::Failed { kind, message }, _)) => Err(Error::Failed { kind, message }),
            Some(answer) => Ok(answer),
            None => Err(fail(io::Error::new(io::ErrorKind::ConnectionReset, "it hung up"))),
        }
    }
}

/// Starts a monitor and waits until its socket is bound. It goes on in the background, as nobody's child: neither the end of
/// its starter nor that of a terminal reaches it. What it has to say goes to `DIRECTORY/monitor.log`.
pub fn spawn(binary: &Path, directory: &Path, runtime: &Path) -> io::Result<()> {
    use std::io::Read;
    let fail = |path: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    std::fs::create_dir_all(directory).map_err(|e| fail(directory, e))?;
    let log = directory.join("monitor.log");
    let stderr = std::fs::File::create(&log).map_err(|e| fail(&log, e))?;
    let mut command = Command::new(binary);
    command.arg("--directory").arg(directory).arg("--runtime").arg(runtime);
    // Nothing of the daemon's environment is a container's business; runtimes look up hooks and newuidmap by PATH.
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    let mut child = command.spawn().map_err(|e| fail(binary, e))?;
    let mut told = [0u8; 1];
    let ready = child.stdout.take().map(|mut out| out.read(&mut told));
    let status = child.wait()?;
    if matches!(ready, Some(Ok(1))) {
        return Ok(());
    }
    let mut text = String::new();
    let _ = std::fs::File::open(&log).and_then(|file| file.take(1000).read_to_string(&mut text));
    let text = text.trim();
    Err(io::Error::other(format!("{} ended before it was ready ({status}): {text}", binary.display())))
}
