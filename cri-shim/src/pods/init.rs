//! The pod's init: the first process of a shared PID namespace, made and reaped by the monitor.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_monitor::client::Client;
use coracle_monitor::protocol::{Reply, Request};
use coracle_runtime::fault;
use coracle_runtime::state::Identity;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::error::blocking;
use super::{Error, monitor, pins};
use crate::daemon::Daemon;
use crate::record::{Entry, Sandbox};

/// How long its start may take.
const START: Duration = Duration::from_secs(30);

/// Starts it where the pod shares its PID namespace, and pins that.
pub(super) async fn start(daemon: &Arc<Daemon>, entry: &Entry<Sandbox>) -> Result<(), Error> {
    let sandbox = entry.get();
    let Some(pin) = sandbox.pidns.clone() else { return Ok(()) };
    let directory = daemon.monitor_directory(&sandbox.id);
    let identity = blocking(move || start_blocking(&directory, joined(&sandbox), &pin)).await?;
    fault::point("pods.run.init-recorded")?;
    entry.update_for_boot(|s| {
        s.init_pid = identity.pid;
        s.init = Some(identity);
    })?;
    Ok(())
}

/// The pod's other namespaces, which it lives in as a pause process would: `nsenter --target` its pid finds the pod.
fn joined(sandbox: &Sandbox) -> Vec<(String, PathBuf)> {
    let pins = [
        ("user", &sandbox.userns),
        ("net", &sandbox.netns),
        ("ipc", &sandbox.ipcns),
        ("uts", &sandbox.utsns),
    ];
    pins.into_iter().filter_map(|(kind, path)| Some((kind.to_owned(), path.clone()?))).collect()
}

fn start_blocking(
    directory: &Path,
    namespaces: Vec<(String, PathBuf)>,
    pin: &Path,
) -> Result<Identity, Error> {
    let fail = |why: String| Error::Monitor { action: "start the pod's init in", why };
    let answer = Client::new(directory).request(&Request::PodInit { namespaces }, START);
    let pid = match answer {
        Ok(Reply::Started { pid }) => pid,
        Ok(other) => return Err(fail(format!("it answered {other:?}"))),
        Err(e) => return Err(fail(e.to_string())),
    };
    let number = Pid::from_raw(pid).ok_or_else(|| fail(format!("its pid is {pid}")))?;
    let pidfd = pidfd_open(number, PidfdFlags::empty()).map_err(|e| fail(e.to_string()))?;
    let identity = Identity::of(pid, &pidfd).map_err(|e| fail(e.to_string()))?;
    pins::prepare(pin)?;
    pins::bind(Path::new(&format!("/proc/{pid}/ns/pid")), pin)?;
    // Had it died in between, the number might have been another's by the time of the pin.
    match identity.is_alive() {
        Ok(true) => Ok(identity),
        Ok(false) => Err(fail("it died at once".into())),
        Err(e) => Err(fail(e.to_string())),
    }
}

/// Ends it, and with it whatever is left in its namespace. Fine where there is none.
pub(super) async fn stop(entry: &Entry<Sandbox>) -> Result<(), Error> {
    let sandbox = entry.get();
    blocking(move || {
        if let Some(identity) = &sandbox.init {
            let fail = |why: String| Error::Monitor { action: "end the pod's init in", why };
            if let Some(pidfd) = identity.open().map_err(|e| fail(e.to_string()))? {
                match pidfd_send_signal(&pidfd, Signal::KILL) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(errno) => return Err(fail(errno.to_string())),
                }
            }
            monitor::wait_for_end(Some(identity))?;
        }
        match &sandbox.pidns {
            Some(pin) => pins::remove(pin),
            None => Ok(()),
        }
    })
    .await
}
