//! Pod sandboxes.

use std::sync::Arc;

use k8s_cri::v1::*;
use tonic::Status;

use crate::containers;
use crate::daemon::Daemon;

/// Finds out what became of what an earlier daemon left; nothing is served before.
pub async fn recover(_daemon: &Arc<Daemon>) {}

pub async fn service_status(
    _daemon: &Arc<Daemon>,
    _request: StatusRequest,
) -> Result<StatusResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn update_runtime_config(
    _daemon: &Arc<Daemon>,
    _request: UpdateRuntimeConfigRequest,
) -> Result<UpdateRuntimeConfigResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn run(
    _daemon: &Arc<Daemon>,
    _request: RunPodSandboxRequest,
) -> Result<RunPodSandboxResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn stop(
    daemon: &Arc<Daemon>,
    request: StopPodSandboxRequest,
) -> Result<StopPodSandboxResponse, Status> {
    containers::stop_all(daemon, &request.pod_sandbox_id).await?;
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn remove(
    daemon: &Arc<Daemon>,
    request: RemovePodSandboxRequest,
) -> Result<RemovePodSandboxResponse, Status> {
    containers::remove_all(daemon, &request.pod_sandbox_id).await?;
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn status(
    _daemon: &Arc<Daemon>,
    _request: PodSandboxStatusRequest,
) -> Result<PodSandboxStatusResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn list(
    _daemon: &Arc<Daemon>,
    _request: ListPodSandboxRequest,
) -> Result<ListPodSandboxResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}
