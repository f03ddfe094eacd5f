//! Stop, remove and undo: everything that a record names is taken apart, each step as often as it is asked for.
//!
//! Every step is tried whatever became of the others; what fails is told, and done by the next call.

use std::sync::Arc;

use coracle_runtime::fault;
use k8s_cri::v1::{
    ContainerEventType, RemovePodSandboxRequest, RemovePodSandboxResponse, StopPodSandboxRequest,
    StopPodSandboxResponse,
};
use tonic::Status;

use super::error::blocking;
use super::{Error, cgroup, event, files, find, monitor, pins};
use crate::containers;
use crate::daemon::Daemon;
use crate::network::PodRef;
use crate::record::{Entry, Sandbox, SandboxState};

/// Ends the pod's containers and gives its network back. Fine for one that is not there.
pub async fn stop(
    daemon: &Arc<Daemon>,
    request: StopPodSandboxRequest,
) -> Result<StopPodSandboxResponse, Status> {
    if let Some(entry) = find(daemon, &request.pod_sandbox_id) {
        let _turn = entry.turn().await;
        stop_entry(daemon, &entry).await?;
    }
    Ok(StopPodSandboxResponse {})
}

/// Removes the pod with its containers. Fine for one that is not there.
pub async fn remove(
    daemon: &Arc<Daemon>,
    request: RemovePodSandboxRequest,
) -> Result<RemovePodSandboxResponse, Status> {
    if let Some(entry) = find(daemon, &request.pod_sandbox_id) {
        remove_entry(daemon, &entry).await?;
    }
    Ok(RemovePodSandboxResponse {})
}

pub(super) async fn remove_by_id(daemon: &Arc<Daemon>, id: &str) -> Result<(), Status> {
    match find(daemon, id) {
        Some(entry) => remove_entry(daemon, &entry).await,
        None => Ok(()),
    }
}

async fn remove_entry(daemon: &Arc<Daemon>, entry: &Entry<Sandbox>) -> Result<(), Status> {
    let _turn = entry.turn().await;
    let id = entry.read().id.clone();
    if daemon.records.sandboxes.get(&id).is_none() {
        return Ok(()); // another call has removed it while we waited
    }
    stop_entry(daemon, entry).await?;
    containers::remove_all(daemon, &id).await?;
    let fail = |e: Error| e.on("remove pod sandbox", &id);
    fault::point("pods.remove.resources").map_err(|e| fail(e.into()))?;
    release(daemon, entry).await.map_err(fail)?;
    event(daemon, entry, ContainerEventType::ContainerDeletedEvent);
    fault::point("pods.remove.record").map_err(|e| fail(e.into()))?;
    daemon.records.sandboxes.remove(&id).map_err(|e| fail(e.into()))
}

/// Not ready first, so that nothing new is made in it; then every process, then the network.
async fn stop_entry(daemon: &Arc<Daemon>, entry: &Entry<Sandbox>) -> Result<(), Status> {
    let id = entry.read().id.clone();
    let fail = |e: Error| e.on("stop pod sandbox", &id);
    let was_ready = entry.read().state == SandboxState::Ready;
    if was_ready {
        fault::point("pods.stop.record").map_err(|e| fail(e.into()))?;
        // A disk that is full must not keep a pod alive: memory knows, and a restart finds no containers in it.
        if let Err(error) = entry.establish(|s| s.state = SandboxState::NotReady) {
            tracing::warn!(sandbox = id, %error, "record not written");
        }
    }
    containers::stop_all(daemon, &id).await?;
    fault::point("pods.stop.init").map_err(|e| fail(e.into()))?;
    super::init::stop(entry).await.map_err(fail)?;
    fault::point("pods.stop.network").map_err(|e| fail(e.into()))?;
    disconnect(daemon, entry).await.map_err(fail)?;
    if was_ready {
        event(daemon, entry, ContainerEventType::ContainerStoppedEvent);
    }
    Ok(())
}

/// Takes apart a sandbox that is not whole, and forgets it.
pub(super) async fn undo(daemon: &Arc<Daemon>, entry: &Entry<Sandbox>) -> Result<(), Error> {
    let id = entry.read().id.clone();
    release(daemon, entry).await?;
    Ok(daemon.records.sandboxes.remove(&id)?)
}

/// Everything but the record.
async fn release(daemon: &Arc<Daemon>, entry: &Entry<Sandbox>) -> Result<(), Error> {
    let sandbox = entry.get();
    let mut failed = Vec::new();
    let mut note = |step: &'static str, outcome: Result<(), Error>| {
        if let Err(error) = outcome {
            failed.push((step, error));
        }
    };
    let same_boot = sandbox.boot == daemon.boot;
    if same_boot {
        let directory = daemon.monitor_directory(&sandbox.id);
        note("init", super::init::stop(entry).await);
        note("monitor", monitor::end(&directory, sandbox.monitor.clone()).await);
    }
    note("network", disconnect(daemon, entry).await);
    if failed.is_empty() {
        let directory = daemon.sandbox_directory(&sandbox.id);
        let outcome = blocking(move || Ok(release_kernel_objects(&sandbox, &directory, same_boot))).await;
        match outcome {
            Ok(list) => failed.extend(list),
            Err(error) => failed.push(("kernel objects", error)),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::Leftovers(failed)) }
}

fn release_kernel_objects(
    sandbox: &Sandbox,
    directory: &std::path::Path,
    same_boot: bool,
) -> Vec<(&'static str, Error)> {
    let mut failed = Vec::new();
    let mut note = |step: &'static str, outcome: Result<(), Error>| {
        if let Err(error) = outcome {
            failed.push((step, error));
        }
    };
    let pins = [
        ("network namespace", &sandbox.netns),
        ("ipc namespace", &sandbox.ipcns),
        ("uts namespace", &sandbox.utsns),
        ("pid namespace", &sandbox.pidns),
        ("user namespace", &sandbox.userns),
    ];
    for (step, pin) in pins {
        if let Some(pin) = pin {
            note(step, pins::remove(pin));
        }
    }
    note("shm", files::unmount(directory));
    if sandbox.cgroup_made && same_boot {
        note("cgroup", cgroup::remove(&sandbox.cgroup_parent));
    }
    if failed.is_empty() {
        match std::fs::remove_dir_all(directory) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                failed.push(("directory", Error::Path { action: "remove", path: directory.into(), source }));
            }
            _ => {}
        }
    }
    failed
}

/// Gives the network back and lets its namespace go; recorded when done.
async fn disconnect(daemon: &Daemon, entry: &Entry<Sandbox>) -> Result<(), Error> {
    let sandbox = entry.get();
    let Some(pod) = pod_ref(&sandbox).filter(|_| !sandbox.detached) else { return Ok(()) };
    let attachment = sandbox.attachment.unwrap_or_default();
    daemon.network.detach(&pod, &attachment).await?;
    fault::point("pods.stop.unpin")?;
    let path = pod.netns.clone();
    blocking(move || pins::remove(&path)).await?;
    if let Err(error) = entry.establish(|s| s.detached = true) {
        tracing::warn!(sandbox = pod.id, %error, "record not written; the network is given back once more later");
    }
    Ok(())
}

/// What the network needs to know; `None` on the host's.
pub(super) fn pod_ref(sandbox: &Sandbox) -> Option<PodRef> {
    let metadata = sandbox.config.metadata.clone().unwrap_or_default();
    Some(PodRef {
        id: sandbox.id.clone(),
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        netns: sandbox.netns.clone()?,
        ports: sandbox.ports.clone(),
    })
}
