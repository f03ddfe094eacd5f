//! What others wait for: descriptors over Unix sockets, the pid file, seccomp's listener with its state.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::State;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};

use crate::init::StepError;
use crate::seccomp::Filter;

/// Connects to the stream socket at `path`.
///
/// # Errors
/// The kernel's.
pub fn open_socket(path: &Path) -> Result<OwnedFd, StepError> {
    let failed = |e| StepError::os("connect to", path.display(), e);
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(failed)?;
    connect(&socket, &SocketAddrUnix::new(path).map_err(failed)?).map_err(failed)?;
    Ok(socket)
}

/// Sends `data` with `fd` over a connected socket.
///
/// # Errors
/// The kernel's.
pub fn send_fd(socket: &OwnedFd, data: &[u8], fd: BorrowedFd<'_>) -> Result<(), StepError> {
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[IoSlice::new(data)], &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(|e| StepError::os("send descriptor", "", e))
}

/// Writes `pid` to a file that appears complete.
///
/// # Errors
/// The file system's.
pub fn write_pid_file(path: &Path, pid: i32) -> Result<(), StepError> {
    let failed = |e: std::io::Error| StepError::io("write pid file", path.display(), &e);
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}"));
    std::fs::write(&temporary, pid.to_string()).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)
}

/// Sends seccomp's listener to the agent that the profile names (runtime-spec, "The Container Process State").
///
/// # Errors
/// No agent, or the kernel's.
pub fn send_listener(
    filter: &ListenerTarget,
    state: &State,
    pid: i32,
    listener: &OwnedFd,
) -> Result<(), StepError> {
    let socket = open_socket(&filter.path).map_err(|error| {
        let step = "failed to connect with seccomp agent specified in the seccomp profile:";
        StepError::why(step, filter.path.display(), error)
    })?;
    let document = serde_json::json!({
        "ociVersion": state.version(),
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": filter.metadata,
        "state": state,
    });
    send_fd(&socket, document.to_string().as_bytes(), listener.as_fd())
}

/// Where seccomp's listener goes.
#[derive(Debug, Clone)]
pub struct ListenerTarget {
    path: std::path::PathBuf,
    metadata: String,
}

impl ListenerTarget {
    /// The target that `filter` names, if it notifies.
    #[must_use]
    pub fn of(filter: &Filter) -> Option<Self> {
        let path = filter.listener_path.clone().filter(|_| filter.notify)?;
        Some(Self { path, metadata: filter.listener_metadata.clone().unwrap_or_default() })
    }
}
