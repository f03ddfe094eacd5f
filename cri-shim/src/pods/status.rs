//! PodSandboxStatus and ListPodSandbox, from the records.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_cri::v1::{
    LinuxPodSandboxStatus, ListPodSandboxRequest, ListPodSandboxResponse, Namespace, NamespaceMode, PodIp,
    PodSandbox, PodSandboxFilter, PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus,
    PodSandboxStatusRequest, PodSandboxStatusResponse,
};
use serde_json::json;
use tonic::Status;

use super::plan::namespace_options;
use super::{containers_of, find};
use crate::daemon::Daemon;
use crate::record::{Sandbox, SandboxState};

pub async fn status(
    daemon: &Arc<Daemon>,
    request: PodSandboxStatusRequest,
) -> Result<PodSandboxStatusResponse, Status> {
    let id = &request.pod_sandbox_id;
    let entry =
        find(daemon, id).ok_or_else(|| Status::not_found(format!("pod sandbox {id:?}: no such sandbox")))?;
    let sandbox = entry.get();
    let info = if request.verbose { verbose(daemon, &sandbox) } else { HashMap::new() };
    Ok(PodSandboxStatusResponse {
        status: Some(status_of(&sandbox)),
        info,
        containers_statuses: containers_of(daemon, &sandbox.id),
        timestamp: crate::fresh::now(),
    })
}

pub async fn list(
    daemon: &Arc<Daemon>,
    request: ListPodSandboxRequest,
) -> Result<ListPodSandboxResponse, Status> {
    let filter = request.filter.unwrap_or_default();
    let all = daemon.records.sandboxes.list();
    let items = all.iter().filter_map(|entry| {
        let sandbox = entry.read();
        matches(&sandbox, &filter).then(|| item(&sandbox))
    });
    Ok(ListPodSandboxResponse { items: items.collect() })
}

fn matches(sandbox: &Sandbox, filter: &PodSandboxFilter) -> bool {
    let labels = &sandbox.config.labels;
    sandbox.state != SandboxState::Creating
        && sandbox.id.starts_with(&filter.id)
        && filter.state.is_none_or(|wanted| wanted.state == state_of(sandbox) as i32)
        && filter.label_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

const fn state_of(sandbox: &Sandbox) -> PodSandboxState {
    match sandbox.state {
        SandboxState::Ready => PodSandboxState::SandboxReady,
        SandboxState::Creating | SandboxState::NotReady => PodSandboxState::SandboxNotready,
    }
}

fn item(sandbox: &Sandbox) -> PodSandbox {
    PodSandbox {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        state: state_of(sandbox) as i32,
        created_at: sandbox.created_at,
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: sandbox.runtime_handler.clone(),
    }
}

/// The status of a sandbox, as events carry it too.
pub(crate) fn status_of(sandbox: &Sandbox) -> PodSandboxStatus {
    let mut ips =
        sandbox.attachment.iter().filter(|_| !sandbox.detached).flat_map(|a| &a.ips).map(ToString::to_string);
    let ip = ips.next().unwrap_or_default();
    let additional_ips = ips.map(|ip| PodIp { ip }).collect();
    let options = namespace_options(&sandbox.config);
    PodSandboxStatus {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        state: state_of(sandbox) as i32,
        created_at: sandbox.created_at,
        network: Some(PodSandboxNetworkStatus { ip, additional_ips }),
        linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options: Some(options) }) }),
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: sandbox.runtime_handler.clone(),
    }
}

/// `info` under the keys that tools look for (containerd's): pid, paths of namespaces, the network's answer.
fn verbose(daemon: &Daemon, sandbox: &Sandbox) -> HashMap<String, String> {
    let paths = [
        ("network", &sandbox.netns),
        ("ipc", &sandbox.ipcns),
        ("uts", &sandbox.utsns),
        ("pid", &sandbox.pidns),
        ("user", &sandbox.userns),
    ];
    let pinned = |kind: &str| !(kind == "network" && sandbox.detached);
    let namespaces: Vec<_> = paths
        .into_iter()
        .filter(|(kind, path)| path.is_some() && pinned(kind))
        .map(|(kind, path)| json!({"type": kind, "path": path}))
        .collect();
    let host_network = namespace_options(&sandbox.config).network() == NamespaceMode::Node;
    let info = json!({
        "pid": sandbox.init_pid,
        "processStatus": if sandbox.state == SandboxState::Ready { "running" } else { "stopped" },
        "netNamespaceClosed": !host_network && sandbox.detached,
        "runtimeHandler": sandbox.runtime_handler,
        "runtimeType": "coracle",
        "monitorPid": sandbox.monitor_pid,
        "message": sandbox.message,
        "directory": daemon.sandbox_directory(&sandbox.id),
        "cgroupParent": sandbox.cgroup_parent,
        "config": sandbox.config,
        "cniResult": sandbox.attachment,
        "runtimeSpec": {"linux": {"namespaces": namespaces, "cgroupsPath": sandbox.cgroup_parent}},
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}

#[cfg(test)]
mod tests {
    use k8s_cri::v1::{PodSandboxConfig, PodSandboxStateValue};

    use super::*;

    #[test]
    fn a_sandbox_being_made_is_in_no_list() {
        let config =
            PodSandboxConfig { labels: [("app".to_owned(), "web".to_owned())].into(), ..Default::default() };
        let ready = Sandbox { id: "abc".into(), state: SandboxState::Ready, config, ..Sandbox::default() };
        let all = PodSandboxFilter::default();
        assert!(matches(&ready, &all));
        assert!(!matches(&Sandbox { state: SandboxState::Creating, ..ready.clone() }, &all));
        let state = |state| PodSandboxFilter {
            state: Some(PodSandboxStateValue { state: state as i32 }),
            ..PodSandboxFilter::default()
        };
        assert!(matches(&ready, &state(PodSandboxState::SandboxReady)));
        assert!(!matches(&ready, &state(PodSandboxState::SandboxNotready)));
        let label = |value: &str| PodSandboxFilter {
            label_selector: [("app".to_owned(), value.to_owned())].into(),
            ..PodSandboxFilter::default()
        };
        assert!(matches(&ready, &label("web")) && !matches(&ready, &label("db")));
    }

    #[test]
    fn addresses_are_shown_until_they_are_given_back() {
        let ips = vec!["10.0.0.2".parse().expect("ip"), "fd00::2".parse().expect("ip")];
        let attachment = Some(crate::network::Attachment { ips, ..Default::default() });
        let sandbox = Sandbox { attachment, ..Sandbox::default() };
        let network = status_of(&sandbox).network.expect("network");
        assert_eq!((network.ip.as_str(), network.additional_ips[0].ip.as_str()), ("10.0.0.2", "fd00::2"));
        let gone = status_of(&Sandbox { detached: true, ..sandbox }).network.expect("network");
        assert_eq!((gone.ip.as_str(), gone.additional_ips.len()), ("", 0));
    }
}
