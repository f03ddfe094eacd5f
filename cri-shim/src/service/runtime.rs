//! RuntimeService: what is served so far is the service itself (version, status, configuration) and empty lists.
//!
//! Pods are not served yet, and the status says so: the kubelet then keeps the node NotReady instead of placing pods that
//! could not start.

use k8s_cri::v1::runtime_service_server::RuntimeService;
use k8s_cri::v1::*;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug, Clone, Copy, Default)]
pub struct Runtime {}

const NOT_YET: &str = "pods are not served by this version of coracled; see CHANGELOG.md";

fn not_ready(kind: &str) -> RuntimeCondition {
    RuntimeCondition {
        r#type: kind.into(),
        status: false,
        reason: "PodsNotServed".into(),
        message: NOT_YET.into(),
    }
}

/// Writes the methods that need pods: each answers Unimplemented with the reason.
macro_rules! service {
    (served { $($served:item)* } waiting { $($name:ident($request:ty) -> $response:ty;)* }) => {
        #[tonic::async_trait]
        impl RuntimeService for Runtime {
            type GetContainerEventsStream = tokio_stream::Empty<Result<ContainerEventResponse, Status>>;

            $($served)*

            $(async fn $name(&self, _request: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented(NOT_YET))
            })*

            async fn get_container_events(
                &self,
                _request: Request<GetEventsRequest>,
            ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
                Err(Status::unimplemented(NOT_YET))
            }
        }
    };
}

service! {
    served {
        async fn version(&self, _request: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
            Ok(Response::new(VersionResponse {
                version: "0.1.0".into(), // of the kubelet's runtime API, as every implementation answers
                runtime_name: "coracle".into(),
                runtime_version: env!("CARGO_PKG_VERSION").into(),
                runtime_api_version: "v1".into(),
            }))
        }

        async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
            let conditions = vec![not_ready("RuntimeReady"), not_ready("NetworkReady")];
            let status = Some(RuntimeStatus { conditions });
            Ok(Response::new(StatusResponse { status, ..StatusResponse::default() }))
        }

        async fn runtime_config(
            &self,
            _request: Request<RuntimeConfigRequest>,
        ) -> Result<Response<RuntimeConfigResponse>, Status> {
            let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs as i32 };
            Ok(Response::new(RuntimeConfigResponse { linux: Some(linux) }))
        }

        async fn list_pod_sandbox(
            &self,
            _request: Request<ListPodSandboxRequest>,
        ) -> Result<Response<ListPodSandboxResponse>, Status> {
            Ok(Response::new(ListPodSandboxResponse::default()))
        }

        async fn list_containers(
            &self,
            _request: Request<ListContainersRequest>,
        ) -> Result<Response<ListContainersResponse>, Status> {
            Ok(Response::new(ListContainersResponse::default()))
        }
    }
    waiting {
        run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
        stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
        remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
        pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
        create_container(CreateContainerRequest) -> CreateContainerResponse;
        start_container(StartContainerRequest) -> StartContainerResponse;
        stop_container(StopContainerRequest) -> StopContainerResponse;
        remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
        container_status(ContainerStatusRequest) -> ContainerStatusResponse;
        update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
        exec_sync(ExecSyncRequest) -> ExecSyncResponse;
        exec(ExecRequest) -> ExecResponse;
        attach(AttachRequest) -> AttachResponse;
        port_forward(PortForwardRequest) -> PortForwardResponse;
        container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
        pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
        list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
        update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
        checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
        list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
        list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
    }
}
