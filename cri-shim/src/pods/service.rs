//! Status of the service itself.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_cri::v1::{
    RuntimeCondition, RuntimeFeatures, RuntimeHandler, RuntimeHandlerFeatures, RuntimeStatus, StatusRequest,
    StatusResponse, UpdateRuntimeConfigRequest, UpdateRuntimeConfigResponse,
};
use serde_json::json;
use tonic::Status;

use crate::daemon::Daemon;

/// Whether pods can be run and connected.
pub async fn service_status(daemon: &Arc<Daemon>, request: StatusRequest) -> Result<StatusResponse, Status> {
    let problem = daemon.network.problem().await;
    let ready = |kind: &str| RuntimeCondition { r#type: kind.into(), status: true, ..Default::default() };
    let network = match problem {
        None => ready("NetworkReady"),
        Some(message) => RuntimeCondition {
            r#type: "NetworkReady".into(),
            status: false,
            reason: "NetworkPluginNotReady".into(),
            message,
        },
    };
    let info = if request.verbose { verbose(daemon) } else { HashMap::new() };
    Ok(StatusResponse {
        status: Some(RuntimeStatus { conditions: vec![ready("RuntimeReady"), network] }),
        info,
        runtime_handlers: handlers(daemon),
        features: Some(RuntimeFeatures { supplemental_groups_policy: true }),
    })
}

/// The kubelet tells the node's pod CIDR. Networks are configured by their own files; there is nothing to change.
pub async fn update_runtime_config(
    _daemon: &Arc<Daemon>,
    request: UpdateRuntimeConfigRequest,
) -> Result<UpdateRuntimeConfigResponse, Status> {
    let cidr = request.runtime_config.and_then(|c| c.network_config).map(|n| n.pod_cidr);
    tracing::info!(pod_cidr = cidr, "runtime configuration noted, nothing to change");
    Ok(UpdateRuntimeConfigResponse {})
}

fn handlers(daemon: &Daemon) -> Vec<RuntimeHandler> {
    let names = std::iter::once("").chain(daemon.config.runtimes.keys().map(String::as_str));
    names
        .map(|name| RuntimeHandler {
            name: name.into(),
            features: Some(RuntimeHandlerFeatures {
                recursive_read_only_mounts: true,
                user_namespaces: true,
            }),
        })
        .collect()
}

fn verbose(daemon: &Daemon) -> HashMap<String, String> {
    let config = &daemon.config;
    let config = json!({
        "root": config.root,
        "state": config.state,
        "socket": config.socket,
        "network": format!("{:?}", config.network).to_lowercase(),
        "cgroupDriver": format!("{:?}", config.cgroup_driver).to_lowercase(),
        "monitor": daemon.programs.monitor,
        "runtime": daemon.programs.runtime,
        "boot": daemon.boot,
    });
    HashMap::from([("config".to_owned(), config.to_string())])
}
