//! Start-up: what became of the containers that an earlier daemon left.
//!
//! Half-made ones are undone. Those of this boot that had not ended are asked for at their monitor, then watched again; those
//! of another boot have ended with it.

use std::collections::HashMap;
use std::sync::Arc;

use coracle_monitor::exits;
use coracle_monitor::protocol::Status;

use super::{monitor, remove, watch};
use crate::daemon::Daemon;
use crate::record::{Container, ContainerState, Entry};

/// Nothing is served before it returns: a list that lacks a container makes the kubelet start it twice.
pub async fn recover(daemon: &Arc<Daemon>) {
    let mut told: HashMap<String, Vec<Status>> = HashMap::new();
    for entry in daemon.records.containers.list() {
        let container = entry.get();
        match container.state {
            ContainerState::Exited => {}
            ContainerState::Creating => undo(daemon, &entry).await,
            _ if container.boot != daemon.boot => rebooted(daemon, &entry).await,
            _ => {
                if !told.contains_key(&container.sandbox) {
                    let known = monitor::list(daemon, &container.sandbox).await;
                    told.insert(container.sandbox.clone(), known);
                }
                let known =
                    told.get(&container.sandbox).and_then(|all| all.iter().find(|s| s.id == container.id));
                resume(daemon, &entry, known);
            }
        }
    }
}

async fn undo(daemon: &Arc<Daemon>, entry: &Entry<Container>) {
    let id = entry.read().id.clone();
    match remove::erase(daemon, entry).await {
        Ok(()) => tracing::info!(id, "removed what an interrupted creation had left"),
        Err(error) => tracing::warn!(id, %error, "an interrupted creation is not undone yet"),
    }
}

/// Mounts and processes are gone; so is all below the run directory where that is a tmpfs, and removed where it is not.
async fn rebooted(daemon: &Arc<Daemon>, entry: &Entry<Container>) {
    let id = entry.read().id.clone();
    let changed = entry.establish(|c| {
        c.state = ContainerState::Exited;
        c.pid = 0;
        c.exit_code = 255;
        c.reason = "Unknown".into();
        c.message = "the machine was restarted while the container ran".into();
        c.started_at = c.started_at.max(c.created_at);
        c.finished_at = crate::fresh::now().max(c.started_at + 1);
    });
    if let Err(error) = changed {
        tracing::warn!(id, %error, "the end by a restart of the machine is not recorded");
    }
    let _ = super::build::remove_directory(&daemon.container_directory(&id));
}

/// Takes over a container of this boot. How far a start came is the monitor's to say.
fn resume(daemon: &Arc<Daemon>, entry: &Entry<Container>, known: Option<&Status>) {
    let container = entry.get();
    if let Some(status) = known.filter(|_| container.state == ContainerState::Created) {
        let change = |c: &mut Container| match status.started_at {
            0 => c.started_at = 0,
            at => (c.state, c.started_at) = (ContainerState::Running, at.max(c.created_at + 1)),
        };
        if let Err(error) = entry.establish(change) {
            tracing::warn!(id = container.id, %error, "what the monitor tells is not recorded");
        }
    }
    let directory = daemon.monitor_directory(&container.sandbox);
    let exit = known.and_then(|s| s.exit.clone()).or_else(|| exits::load(&directory, &container.id));
    match exit {
        Some(exit) => watch::apply(daemon, entry, Some(&exit)),
        None => watch::spawn(daemon, entry),
    }
}
