//! Start-up is recovery: what an earlier daemon, or another boot, left is finished or undone before anything is served.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::error::blocking;
use super::{Error, files, monitor, pins, teardown};
use crate::daemon::Daemon;
use crate::record::{Entry, Sandbox, SandboxState};

/// Finds out what became of what an earlier daemon left; nothing is served before.
pub async fn recover(daemon: &Arc<Daemon>) {
    for entry in daemon.records.sandboxes.list() {
        let _turn = entry.turn().await;
        let sandbox = entry.get();
        if sandbox.state == SandboxState::Creating {
            undo(daemon, &entry).await;
        } else if sandbox.boot != daemon.boot {
            other_boot(daemon, &entry);
        } else if sandbox.state == SandboxState::Ready {
            reconnect(daemon, &entry).await;
        }
    }
    sweep(daemon).await;
}

async fn undo(daemon: &Arc<Daemon>, entry: &Entry<Sandbox>) {
    let id = entry.read().id.clone();
    match teardown::undo(daemon, entry).await {
        Ok(()) => tracing::info!(sandbox = id, "creation was interrupted; undone"),
        Err(error) => tracing::warn!(sandbox = id, %error, "creation was interrupted; not undone yet"),
    }
}

/// Its processes, namespaces and mounts are gone; its network is given back by the stop that the kubelet sends.
fn other_boot(daemon: &Arc<Daemon>, entry: &Entry<Sandbox>) {
    monitor::lost(daemon, entry, "the machine was started anew");
    let sandbox = entry.get();
    for pin in [&sandbox.netns, &sandbox.ipcns, &sandbox.utsns, &sandbox.pidns, &sandbox.userns]
        .into_iter()
        .flatten()
    {
        if let Err(error) = pins::remove(pin) {
            tracing::warn!(sandbox = sandbox.id, %error, "stale pin");
        }
    }
}

async fn reconnect(daemon: &Arc<Daemon>, entry: &Entry<Sandbox>) {
    let sandbox = entry.get();
    let directory = daemon.monitor_directory(&sandbox.id);
    match blocking(move || monitor::identify(&directory)).await {
        Ok(Some(identity)) if sandbox.monitor.as_ref() == Some(&identity) => monitor::watch(daemon, entry),
        Ok(Some(identity)) => {
            // Another process than the one recorded answers: believed, for only root can bind there.
            let update = entry.establish(|s| {
                s.monitor_pid = identity.pid;
                s.monitor = Some(identity);
            });
            if let Err(error) = update {
                tracing::warn!(sandbox = sandbox.id, %error, "record not written");
            }
            monitor::watch(daemon, entry);
        }
        Ok(None) => {
            let message = format!("the pod's monitor (pid {}) died", sandbox.monitor_pid);
            monitor::lost(daemon, entry, &message);
        }
        Err(error) => {
            tracing::warn!(sandbox = sandbox.id, %error, "the monitor does not answer");
            monitor::watch(daemon, entry);
        }
    }
}

/// Directories and leases that no record knows of (a record that was lost or could not be read).
async fn sweep(daemon: &Arc<Daemon>) {
    let known: BTreeSet<String> =
        daemon.records.sandboxes.list().iter().map(|entry| entry.read().id.clone()).collect();
    if let Err(error) = daemon.network.sweep(&known).await {
        tracing::warn!(%error, "leases of pods that are gone");
    }
    let names: Vec<_> = std::fs::read_dir(daemon.config.state.join("pods"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !known.contains(name))
        .collect();
    for name in names {
        match clear(daemon, &name).await {
            Ok(()) => tracing::info!(sandbox = name, "its record is gone; its directory was removed"),
            Err(error) => tracing::warn!(sandbox = name, %error, "its record is gone; leftovers"),
        }
    }
}

async fn clear(daemon: &Daemon, name: &str) -> Result<(), Error> {
    let directory = daemon.sandbox_directory(name);
    let monitor_directory = directory.join("monitor");
    let (place, identity) =
        (monitor_directory.clone(), blocking(move || monitor::identify(&monitor_directory)).await);
    monitor::end(&place, identity.ok().flatten()).await?;
    blocking(move || {
        for pin in ["net", "ipc", "uts", "pid", "user"] {
            pins::remove(&directory.join("ns").join(pin))?;
        }
        files::unmount(&directory)?;
        remove_directory(&directory)
    })
    .await
}

fn remove_directory(path: &Path) -> Result<(), Error> {
    std::fs::remove_dir_all(path).map_err(|source| Error::Path {
        action: "remove",
        path: path.to_owned(),
        source,
    })
}
