//! Statistics.

use std::sync::Arc;

use k8s_cri::v1::*;
use tonic::Status;

use crate::daemon::Daemon;

pub async fn container(
    _daemon: &Arc<Daemon>,
    _request: ContainerStatsRequest,
) -> Result<ContainerStatsResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn containers(
    _daemon: &Arc<Daemon>,
    _request: ListContainerStatsRequest,
) -> Result<ListContainerStatsResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn pod(
    _daemon: &Arc<Daemon>,
    _request: PodSandboxStatsRequest,
) -> Result<PodSandboxStatsResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn pods(
    _daemon: &Arc<Daemon>,
    _request: ListPodSandboxStatsRequest,
) -> Result<ListPodSandboxStatsResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn metric_descriptors(
    _daemon: &Arc<Daemon>,
    _request: ListMetricDescriptorsRequest,
) -> Result<ListMetricDescriptorsResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}

pub async fn pod_metrics(
    _daemon: &Arc<Daemon>,
    _request: ListPodSandboxMetricsRequest,
) -> Result<ListPodSandboxMetricsResponse, Status> {
    Err(Status::unimplemented("not served by this version of coracled"))
}
