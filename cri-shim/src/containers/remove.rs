//! RemoveContainer: ends it, takes its mounts, and gives back layers, files and record. Needs no free space on `--root`:
//! nothing is written there, the directory is renamed and unlinked.

use std::sync::Arc;
use std::time::Duration;

use coracle_image_store::fault;
use coracle_monitor::protocol::Request;
use k8s_cri::v1::{ContainerEventType, RemoveContainerRequest, RemoveContainerResponse};
use tonic::Status;

use super::error::Error;
use super::{build, monitor, processes, rootfs, status, stop};
use crate::daemon::Daemon;
use crate::record::{Container, Entry};

pub async fn remove(
    daemon: &Arc<Daemon>,
    request: RemoveContainerRequest,
) -> Result<RemoveContainerResponse, Status> {
    if let Some(entry) = daemon.records.containers.find(&request.container_id) {
        remove_entry(daemon, &entry).await?;
    }
    Ok(RemoveContainerResponse {})
}

/// Removes every container of a sandbox, ended ones and those being created.
pub async fn remove_all(daemon: &Arc<Daemon>, sandbox: &str) -> Result<(), Status> {
    daemon.creating.settled(sandbox).await;
    for entry in daemon.records.containers_of(sandbox) {
        remove_entry(daemon, &entry).await?;
    }
    Ok(())
}

pub(super) async fn remove_entry(daemon: &Arc<Daemon>, entry: &Entry<Container>) -> Result<(), Error> {
    let _turn = entry.turn().await;
    let id = entry.read().id.clone();
    if daemon.records.containers.get(&id).is_none() {
        return Ok(());
    }
    stop::stop_entry(daemon, entry, Duration::ZERO).await?;
    fault::point("container.removing")?;
    erase(daemon, entry).await?;
    status::notify(daemon, entry, ContainerEventType::ContainerDeletedEvent);
    Ok(())
}

/// Removes all that there may be of a container whose processes have ended, or that was half made. Each step is fine with
/// finding nothing.
pub(super) async fn erase(daemon: &Arc<Daemon>, entry: &Entry<Container>) -> Result<(), Error> {
    let container = entry.get();
    let request = Request::Delete { id: container.id.clone() };
    match monitor::call(daemon, &container.sandbox, request).await {
        Err(error) if monitor::is_gone(&error) => processes::delete(daemon, &container.id).await?,
        other => drop(other?),
    }
    fault::point("container.deleted")?;
    let own = Arc::clone(daemon);
    monitor::blocking(move || {
        let directory = own.container_directory(&container.id);
        rootfs::detach_all(&directory)?;
        fault::point("container.unmounted")?;
        build::remove_directory(&directory)?;
        own.store.release(&container.id)?;
        fault::point("container.released")?;
        Ok(own.records.containers.remove(&container.id)?)
    })
    .await
}
