//! RuntimeService: each call is handed to the module that owns it.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use k8s_cri::v1::runtime_service_server::RuntimeService;
use k8s_cri::v1::*;
use tonic::{Request, Response, Status};

use crate::config::CgroupDriver as Driver;
use crate::daemon::Daemon;
use crate::{containers, events, pods, stats, streaming};

/// The service.
#[derive(Debug, Clone)]
pub struct Runtime {
    daemon: Arc<Daemon>,
}

impl Runtime {
    /// Serves this daemon.
    #[must_use]
    pub const fn new(daemon: Arc<Daemon>) -> Self {
        Self { daemon }
    }
}

/// Writes the methods: `name(Request) -> Response = module::function;` hands `(&Arc<Daemon>, Request)` on. The work goes
/// on to its end when the client hangs up (a kubelet's deadline must not leave half of an operation behind).
macro_rules! service {
    (own { $($own:item)* } handed { $($name:ident($request:ty) -> $response:ty = $function:path;)* }) => {
        #[tonic::async_trait]
        impl RuntimeService for Runtime {
            $($own)*

            $(async fn $name(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                let daemon = Arc::clone(&self.daemon);
                let work = tokio::spawn(async move { $function(&daemon, request.into_inner()).await });
                match work.await {
                    Ok(answer) => answer.map(Response::new).inspect_err(|status| {
                        tracing::warn!(call = stringify!($name), code = ?status.code(), "{}", status.message());
                    }),
                    Err(panic) => Err(Status::internal(format!("{}: {panic}", stringify!($name)))),
                }
            })*
        }
    };
}

service! {
    own {
        type GetContainerEventsStream = Pin<Box<dyn Stream<Item = Result<ContainerEventResponse, Status>> + Send>>;

        async fn get_container_events(
            &self,
            _request: Request<GetEventsRequest>,
        ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
            Ok(Response::new(events::subscribe(&self.daemon)))
        }

        /// Spawns its work itself: it has to know whether the client is still there at the end.
        async fn run_pod_sandbox(
            &self,
            request: Request<RunPodSandboxRequest>,
        ) -> Result<Response<RunPodSandboxResponse>, Status> {
            let answer = pods::run(&self.daemon, request.into_inner()).await;
            answer.map(Response::new).inspect_err(|status| {
                tracing::warn!(call = "run_pod_sandbox", code = ?status.code(), "{}", status.message());
            })
        }

        async fn version(&self, _request: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
            Ok(Response::new(VersionResponse {
                version: "0.1.0".into(), // of the kubelet's runtime API, as every implementation answers
                runtime_name: "coracle".into(),
                runtime_version: env!("CARGO_PKG_VERSION").into(),
                runtime_api_version: "v1".into(),
            }))
        }

        async fn runtime_config(
            &self,
            _request: Request<RuntimeConfigRequest>,
        ) -> Result<Response<RuntimeConfigResponse>, Status> {
            let driver = match self.daemon.config.cgroup_driver {
                Driver::Cgroupfs => CgroupDriver::Cgroupfs,
                Driver::Systemd => CgroupDriver::Systemd,
            };
            let linux = LinuxRuntimeConfiguration { cgroup_driver: driver as i32 };
            Ok(Response::new(RuntimeConfigResponse { linux: Some(linux) }))
        }
    }
    handed {
        status(StatusRequest) -> StatusResponse = pods::service_status;
        update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse = pods::update_runtime_config;
        stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse = pods::stop;
        remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse = pods::remove;
        pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse = pods::status;
        list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse = pods::list;
        create_container(CreateContainerRequest) -> CreateContainerResponse = containers::create;
        start_container(StartContainerRequest) -> StartContainerResponse = containers::start;
        stop_container(StopContainerRequest) -> StopContainerResponse = containers::stop;
        remove_container(RemoveContainerRequest) -> RemoveContainerResponse = containers::remove;
        list_containers(ListContainersRequest) -> ListContainersResponse = containers::list;
        container_status(ContainerStatusRequest) -> ContainerStatusResponse = containers::status;
        update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse = containers::update_resources;
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse = containers::reopen_log;
        checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse = containers::checkpoint;
        exec_sync(ExecSyncRequest) -> ExecSyncResponse = streaming::exec_sync;
        exec(ExecRequest) -> ExecResponse = streaming::exec;
        attach(AttachRequest) -> AttachResponse = streaming::attach;
        port_forward(PortForwardRequest) -> PortForwardResponse = streaming::port_forward;
        container_stats(ContainerStatsRequest) -> ContainerStatsResponse = stats::container;
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse = stats::containers;
        pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse = stats::pod;
        list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse = stats::pods;
        list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse = stats::metric_descriptors;
        list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse = stats::pod_metrics;
    }
}
