//! The end of a container, learnt from its monitor: one task a container, from its creation on.
//!
//! The connection is awaited, not blocked on: hundreds of containers cost hundreds of descriptors and no thread. An exit
//! changes the record first and is told then. A monitor that is gone leaves its exit records; without one the exit code is
//! lost, and what still runs is ended before the container is called exited: nobody would hear of its end.

use std::sync::Arc;
use std::time::Duration;

use coracle_image_store::fault;
use coracle_monitor::client::Pending;
use coracle_monitor::exits;
use coracle_monitor::protocol::{Exit, Reply, Request};
use k8s_cri::v1::{ContainerEventType, NamespaceMode};
use tokio::io::unix::AsyncFd;

use super::error::Error;
use super::{build, monitor, processes, status};
use crate::daemon::Daemon;
use crate::record::{Container, ContainerState, Entry};

/// Between two attempts to end what does not end.
const AGAIN: Duration = Duration::from_secs(5);

/// How long an exit waits for the answer of a start under way, so that they are told in this order.
const STARTING: Duration = Duration::from_secs(5);

pub(super) fn spawn(daemon: &Arc<Daemon>, entry: &Entry<Container>) {
    let (daemon, entry) = (Arc::clone(daemon), entry.clone());
    tokio::spawn(async move { follow(&daemon, &entry).await });
}

async fn follow(daemon: &Arc<Daemon>, entry: &Entry<Container>) {
    let container = entry.get();
    let exit = loop {
        match wait(daemon, &container).await {
            Ok(exit) => break Some(exit),
            Err(error) if !has_end_to_come(daemon, entry) => {
                tracing::debug!(id = container.id, %error, "no longer watched");
                return;
            }
            Err(error) if monitor::is_gone(&error) => break lost(daemon, &container),
            Err(error) => {
                tracing::warn!(id = container.id, %error, "monitor does not tell of the container");
                tokio::time::sleep(AGAIN).await;
            }
        }
    };
    if exit.is_none() || shares_processes(&container) {
        end_survivors(daemon, &container.id).await;
    }
    started(daemon, entry).await;
    apply(daemon, entry, exit.as_ref());
}

/// Whether the container is there and has not exited.
fn has_end_to_come(daemon: &Daemon, entry: &Entry<Container>) -> bool {
    let container = entry.read();
    container.state != ContainerState::Exited && daemon.records.containers.get(&container.id).is_some()
}

async fn wait(daemon: &Arc<Daemon>, container: &Container) -> Result<Exit, Error> {
    let fail = |source| Error::Monitor { sandbox: container.sandbox.clone(), source };
    let (client, id) = (daemon.monitor(&container.sandbox), container.id.clone());
    let sandbox = container.sandbox.clone();
    let pending = monitor::blocking(move || {
        client.send(&Request::Wait { id }, &[]).map_err(|source| Error::Monitor { sandbox, source })
    })
    .await?;
    // Deprecated for types whose descriptor changes; this one's does not, and its successor is unsafe.
    #[expect(deprecated)]
    let register = |pending: Pending| {
        pending.set_nonblocking()?;
        AsyncFd::new(pending)
    };
    let connection = register(pending).map_err(Error::path("watch the monitor of", &container.sandbox))?;
    loop {
        let ready = connection.readable().await;
        let mut ready = ready.map_err(Error::path("watch the monitor of", &container.sandbox))?;
        match connection.get_ref().try_next().map_err(fail)? {
            Some((Reply::Exited(exit), _)) => return Ok(exit),
            Some((other, _)) => {
                return Err(fail(coracle_monitor::client::Error::Unexpected(Box::new(other))));
            }
            None => ready.clear_ready(),
        }
    }
}

/// What the monitor wrote before it died.
fn lost(daemon: &Daemon, container: &Container) -> Option<Exit> {
    exits::load(&daemon.monitor_directory(&container.sandbox), &container.id)
}

/// Whether processes of the container may outlive its first one.
fn shares_processes(container: &Container) -> bool {
    let options = build::security_of(&container.config).namespace_options.unwrap_or_default();
    options.pid() != NamespaceMode::Container
}

/// Until nothing of the container is alive it has not ended: its volumes are detached next.
async fn end_survivors(daemon: &Arc<Daemon>, id: &str) {
    while let Err(error) = processes::kill_all(daemon, id, AGAIN).await {
        tracing::warn!(id, %error, "the container's first process has ended, others have not");
        tokio::time::sleep(AGAIN).await;
    }
}

async fn started(daemon: &Arc<Daemon>, entry: &Entry<Container>) {
    let starting =
        |c: &Container| c.state == ContainerState::Created && c.started_at > 0 && c.reason.is_empty();
    status::until(daemon, entry, STARTING, |c| !starting(c)).await;
}

/// Writes the exit into the record and tells of it. The disk may be full: the fact holds all the same.
pub(super) fn apply(daemon: &Arc<Daemon>, entry: &Entry<Container>, exit: Option<&Exit>) {
    if entry.read().state == ContainerState::Exited {
        return;
    }
    let written = entry.establish(|c| record(c, exit));
    if let Err(error) = written {
        tracing::warn!(%error, "the exit is known but not recorded");
    }
    if fault::point("container.exited").is_err() {
        return;
    }
    status::notify(daemon, entry, ContainerEventType::ContainerStoppedEvent);
}

/// The record of a container that has ended; times are never 0, nor before what they follow.
pub(super) fn record(container: &mut Container, exit: Option<&Exit>) {
    container.state = ContainerState::Exited;
    container.pid = 0;
    container.finished_at = exit.map_or_else(crate::fresh::now, |e| e.at);
    if container.started_at == 0 {
        container.started_at = container.created_at;
    }
    container.finished_at = container.finished_at.max(container.started_at + 1);
    // A start that failed has said why.
    if !container.reason.is_empty() {
        return;
    }
    container.exit_code = exit.map_or(255, |e| e.code);
    container.reason = match exit {
        None => "MonitorLost",
        Some(exit) if exit.oom => "OOMKilled",
        Some(exit) if exit.code == 0 => "Completed",
        Some(_) => "Error",
    }
    .into();
    if exit.is_none() {
        container.message = "the pod's monitor is gone, and the exit code with it".into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_becomes_a_record() {
        let exit = |code, oom| Exit { code, at: 50, oom, timed_out: false };
        let table = [
            (Some(exit(0, false)), 0, "Completed"),
            (Some(exit(3, false)), 3, "Error"),
            (Some(exit(137, true)), 137, "OOMKilled"),
            (None, 255, "MonitorLost"),
        ];
        for (exit, code, reason) in table {
            let mut container = Container { created_at: 60, ..Container::default() };
            record(&mut container, exit.as_ref());
            assert_eq!((container.exit_code, container.reason.as_str()), (code, reason));
            assert!(container.started_at == 60 && container.finished_at > 60, "never 0, never before");
        }
        let mut failed = Container { reason: "StartError".into(), exit_code: 128, ..Container::default() };
        record(&mut failed, Some(&exit(137, false)));
        assert_eq!((failed.exit_code, failed.reason.as_str()), (128, "StartError"));
    }
}
