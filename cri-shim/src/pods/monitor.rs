//! The pod's monitor, as the daemon sees it: started, watched, ended.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_monitor::client::{self, Client};
use coracle_monitor::protocol::{Reply, Request, VERSION};
use coracle_runtime::state::Identity;
use k8s_cri::v1::ContainerEventType;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Error, error::blocking, event};
use crate::daemon::Daemon;
use crate::record::{Entry, Sandbox, SandboxState};

/// How long a monitor may take to answer what it answers at once.
const PROMPT: Duration = Duration::from_secs(10);
/// How long after its init's end that of a monitor may be seen that took the init along.
const TOGETHER: Duration = Duration::from_millis(500);
/// How long a container may take to be killed and removed by it.
const KILL: Duration = Duration::from_secs(70);

/// Starts the monitor of a sandbox; blocking. It is nobody's child and outlives the daemon.
pub(super) fn spawn(binary: &Path, directory: &Path, runtime: &Path) -> Result<Identity, Error> {
    client::spawn(binary, directory, runtime)
        .map_err(|e| Error::Monitor { action: "start", why: e.to_string() })?;
    identify(directory)?.ok_or_else(|| Error::Monitor { action: "start", why: "it died at once".into() })
}

/// Who answers at the socket; `None` where nobody does. The pidfd is opened between two answers, so that it is of the
/// process that gave them.
pub(super) fn identify(directory: &Path) -> Result<Option<Identity>, Error> {
    let client = Client::new(directory);
    let fail = |why: String| Error::Monitor { action: "ask", why };
    let Some(pid) = hello(&client)? else { return Ok(None) };
    let number = Pid::from_raw(pid).ok_or_else(|| fail(format!("it says that its pid is {pid}")))?;
    let pidfd = pidfd_open(number, PidfdFlags::empty()).map_err(|e| fail(e.to_string()))?;
    if hello(&client)? != Some(pid) {
        return Ok(None);
    }
    Identity::of(pid, &pidfd).map(Some).map_err(|e| fail(e.to_string()))
}

fn hello(client: &Client) -> Result<Option<i32>, Error> {
    match client.request(&Request::Hello { version: VERSION }, PROMPT) {
        Ok(Reply::Hello { pid, .. }) => Ok(Some(pid)),
        Ok(other) => Err(Error::Monitor { action: "ask", why: format!("it answered {other:?}") }),
        Err(e) if e.is_dead() => Ok(None),
        Err(e) => Err(Error::Monitor { action: "ask", why: e.to_string() }),
    }
}

/// Marks the sandbox once its monitor or its init has died, if nobody has stopped it by then.
pub(super) fn watch(daemon: &Arc<Daemon>, entry: &Entry<Sandbox>) {
    let sandbox = entry.get();
    for (what, identity) in [("monitor", sandbox.monitor.clone()), ("init", sandbox.init)] {
        let Some(identity) = identity else { continue };
        let (daemon, entry) = (Arc::clone(daemon), entry.clone());
        let monitor = sandbox.monitor.clone().filter(|_| what == "init");
        tokio::spawn(async move {
            if let Err(error) = ended(&identity).await {
                tracing::warn!(pid = identity.pid, what, error, "a process of the pod cannot be watched");
                return;
            }
            if let Some(monitor) = monitor {
                // It ends with its monitor, and that is the cause to name; the monitor's own end is seen after its pipe's.
                if let Ok(Ok(())) = tokio::time::timeout(TOGETHER, ended(&monitor)).await {
                    return;
                }
            }
            let _turn = entry.turn().await;
            lost(&daemon, &entry, &format!("the pod's {what} (pid {}) died", identity.pid));
        });
    }
}

async fn ended(identity: &Identity) -> Result<(), String> {
    let Some(pidfd) = identity.open().map_err(|e| e.to_string())? else { return Ok(()) };
    let pidfd = readable_later(pidfd).map_err(|e| e.to_string())?;
    pidfd.readable().await.map(drop).map_err(|e| e.to_string())
}

/// Deprecated for descriptors that change under it, which an `OwnedFd` does not; its successor is `unsafe`.
#[allow(deprecated)]
fn readable_later(pidfd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

/// A sandbox that was ready and has lost its monitor, or its boot.
pub(super) fn lost(daemon: &Arc<Daemon>, entry: &Entry<Sandbox>, message: &str) {
    if entry.read().state != SandboxState::Ready {
        return;
    }
    let id = entry.read().id.clone();
    tracing::warn!(sandbox = id, message, "sandbox lost");
    let change = |sandbox: &mut Sandbox| {
        sandbox.state = SandboxState::NotReady;
        sandbox.message = message.to_owned();
    };
    if let Err(error) = entry.establish(change) {
        tracing::warn!(sandbox = id, %error, "record not written");
    }
    event(daemon, entry, ContainerEventType::ContainerStoppedEvent);
}

/// Ends the monitor of a sandbox with everything that it still holds. Fine where it is gone.
pub(super) async fn end(directory: &Path, identity: Option<Identity>) -> Result<(), Error> {
    let directory = directory.to_owned();
    blocking(move || end_blocking(&directory, identity.as_ref())).await
}

fn end_blocking(directory: &Path, identity: Option<&Identity>) -> Result<(), Error> {
    let client = Client::new(directory);
    match client.request(&Request::Shutdown, PROMPT) {
        Ok(_) => return wait_for_end(identity),
        // Dead, too late, or one that has lost its socket's file and cannot be asked any more.
        Err(client::Error::Unreachable { .. }) => return kill(identity),
        Err(client::Error::Failed { .. } | client::Error::Unexpected(_)) => {}
    }
    remove_containers(&client)?;
    client
        .request(&Request::Shutdown, PROMPT)
        .map_err(|e| Error::Monitor { action: "end", why: e.to_string() })?;
    wait_for_end(identity)
}

/// What the monitor holds and no record knows of.
fn remove_containers(client: &Client) -> Result<(), Error> {
    let fail = |e: client::Error| Error::Monitor { action: "remove what is left in", why: e.to_string() };
    let Reply::List { containers } = client.request(&Request::List, PROMPT).map_err(fail)? else {
        return Ok(());
    };
    for container in containers {
        tracing::warn!(container = container.id, "left in the monitor; removed");
        let kill = Request::Signal { id: container.id.clone(), signal: 9, all: false };
        let _ = client.request(&kill, KILL);
        client.request(&Request::Delete { id: container.id }, KILL).map_err(fail)?;
    }
    Ok(())
}

fn kill(identity: Option<&Identity>) -> Result<(), Error> {
    let fail = |why: String| Error::Monitor { action: "kill", why };
    let Some(identity) = identity else { return Ok(()) };
    if let Some(pidfd) = identity.open().map_err(|e| fail(e.to_string()))? {
        match pidfd_send_signal(&pidfd, rustix::process::Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(fail(errno.to_string())),
        }
    }
    wait_for_end(Some(identity))
}

/// Until the process is gone: its files are removed next.
pub(super) fn wait_for_end(identity: Option<&Identity>) -> Result<(), Error> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Some(identity) = identity else { return Ok(()) };
    let opened = identity.open().map_err(|e| Error::Monitor { action: "end", why: e.to_string() })?;
    let Some(pidfd) = opened else { return Ok(()) };
    let limit = Timespec { tv_sec: PROMPT.as_secs().cast_signed(), tv_nsec: 0 };
    match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)) {
        Ok(1) => Ok(()),
        _ => Err(Error::Monitor {
            action: "see the end of",
            why: format!("pid {} does not end", identity.pid),
        }),
    }
}
