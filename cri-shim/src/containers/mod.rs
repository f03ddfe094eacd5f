//! Containers.

use std::sync::Arc;

use k8s_cri::v1::*;
use tonic::Status;

use crate::daemon::Daemon;

/// Finds out what became of what an earlier daemon left; nothing is served before.
pub async fn recover(_daemon: &Arc<Daemon>) {}

/// Ends every container of a sandbox that lives; for the sandbox's stop. Returns when no process of them is alive.
pub async fn stop_all(_daemon: &Arc<Daemon>, _sandbox: &str) -> Result<(), Status> {
    Ok(())
}

/// Removes every container of a sandbox, ended ones and those being created.
pub async fn remove_all(_daemon: &Arc<Daemon>, _sandbox: &str) -> Result<(), Status> {
    Ok(())
}

pub async fn create(
    _daemon: &Arc<Daemon>,
    _request: CreateContainerRequest,
) -> Result<CreateContainerResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn start(
    _daemon: &Arc<Daemon>,
    _request: StartContainerRequest,
) -> Result<StartContainerResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn stop(
    _daemon: &Arc<Daemon>,
    _request: StopContainerRequest,
) -> Result<StopContainerResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn remove(
    _daemon: &Arc<Daemon>,
    _request: RemoveContainerRequest,
) -> Result<RemoveContainerResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn list(
    _daemon: &Arc<Daemon>,
    _request: ListContainersRequest,
) -> Result<ListContainersResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn status(
    _daemon: &Arc<Daemon>,
    _request: ContainerStatusRequest,
) -> Result<ContainerStatusResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn update_resources(
    _daemon: &Arc<Daemon>,
    _request: UpdateContainerResourcesRequest,
) -> Result<UpdateContainerResourcesResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn reopen_log(
    _daemon: &Arc<Daemon>,
    _request: ReopenContainerLogRequest,
) -> Result<ReopenContainerLogResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn checkpoint(
    _daemon: &Arc<Daemon>,
    _request: CheckpointContainerRequest,
) -> Result<CheckpointContainerResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}
