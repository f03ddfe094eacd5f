//! ListContainers, ContainerStatus, events: records as CRI messages.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_cri::v1::{
    Container as Listed, ContainerEventResponse, ContainerEventType, ContainerFilter, ContainerResources,
    ContainerState as CriState, ContainerStatus, ContainerStatusRequest, ContainerStatusResponse,
    ContainerUser, ImageSpec, LinuxContainerUser, ListContainersRequest, ListContainersResponse,
};
use serde_json::{Value, json};
use tonic::Status;

use super::{find, monitor};
use crate::daemon::Daemon;
use crate::record::{Container, ContainerState, Entry};

/// Of `config.json`, for the verbose status.
const MAX_CONFIG: u64 = 16 << 20;

pub async fn list(
    daemon: &Arc<Daemon>,
    request: ListContainersRequest,
) -> Result<ListContainersResponse, Status> {
    let filter = request.filter.unwrap_or_default();
    let all = daemon.records.containers.list();
    let containers = all.iter().map(|entry| entry.read()).filter(|c| matches(c, &filter)).map(|c| listed(&c));
    Ok(ListContainersResponse { containers: containers.collect() })
}

pub async fn status(
    daemon: &Arc<Daemon>,
    request: ContainerStatusRequest,
) -> Result<ContainerStatusResponse, Status> {
    let container = find(daemon, &request.container_id)?.get();
    let (own, verbose) = (Arc::clone(daemon), request.verbose);
    let answer = monitor::blocking(move || {
        let mut status = status_of(&container);
        status.image = Some(named(&own, &container));
        let info = if verbose { info(&own, &container) } else { HashMap::new() };
        Ok(ContainerStatusResponse { status: Some(status), info })
    });
    Ok(answer.await?)
}

/// The status without what has to be looked up on disk.
pub(crate) fn status_of(container: &Container) -> ContainerStatus {
    let config = &container.config;
    let resources = config.linux.as_ref().and_then(|l| l.resources.clone());
    ContainerStatus {
        id: container.id.clone(),
        metadata: config.metadata.clone(),
        state: state_of(container.state) as i32,
        created_at: container.created_at,
        // A start under way is not one yet.
        started_at: if container.state == ContainerState::Created { 0 } else { container.started_at },
        finished_at: container.finished_at,
        exit_code: container.exit_code,
        image: config.image.clone(),
        image_ref: container.image_ref.clone(),
        image_id: container.image_id.clone(),
        reason: container.reason.clone(),
        message: container.message.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        mounts: config.mounts.clone(),
        log_path: container.log_path.to_string_lossy().into_owned(),
        resources: Some(ContainerResources { linux: Some(resources.unwrap_or_default()), windows: None }),
        user: Some(ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: container.user.uid.into(),
                gid: container.user.gid.into(),
                supplemental_groups: container.user.additional_gids.iter().map(|g| i64::from(*g)).collect(),
            }),
        }),
    }
}

/// The image as it was asked for, by a name that it has now: the kubelet shows it to the user.
fn named(daemon: &Daemon, container: &Container) -> ImageSpec {
    let asked = container.config.image.clone().unwrap_or_default();
    let image = daemon.store.image(&container.image_id).ok();
    let name = image.and_then(|image| {
        let tags = image.repo_tags();
        let own = tags.iter().find(|t| **t == asked.image || **t == asked.user_specified_image).cloned();
        own.or_else(|| tags.into_iter().next()).or_else(|| image.repo_digests().into_iter().next())
    });
    ImageSpec { image: name.unwrap_or_else(|| asked.image.clone()), ..asked }
}

fn listed(container: &Container) -> Listed {
    Listed {
        id: container.id.clone(),
        pod_sandbox_id: container.sandbox.clone(),
        metadata: container.config.metadata.clone(),
        image: container.config.image.clone(),
        // Kubelets that know no image_id look here for the images in use.
        image_ref: container.image_id.clone(),
        image_id: container.image_id.clone(),
        state: state_of(container.state) as i32,
        created_at: container.created_at,
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
    }
}

const fn state_of(state: ContainerState) -> CriState {
    match state {
        ContainerState::Creating => CriState::ContainerUnknown,
        ContainerState::Created => CriState::ContainerCreated,
        ContainerState::Running => CriState::ContainerRunning,
        ContainerState::Exited => CriState::ContainerExited,
    }
}

fn matches(container: &Container, filter: &ContainerFilter) -> bool {
    let labels = &container.config.labels;
    container.state != ContainerState::Creating
        && container.id.starts_with(&filter.id)
        && (filter.pod_sandbox_id.is_empty() || container.sandbox.starts_with(&filter.pod_sandbox_id))
        && filter.state.as_ref().is_none_or(|s| s.state == state_of(container.state) as i32)
        && filter.label_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// What tools read from the verbose answer; keys as containerd has them.
fn info(daemon: &Daemon, container: &Container) -> HashMap<String, String> {
    let directory = daemon.container_directory(&container.id);
    let read =
        coracle_image_store::store::file::read_bounded(&directory.join("bundle/config.json"), MAX_CONFIG);
    let spec: Value = read.ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or(Value::Null);
    let info = json!({
        "sandboxID": container.sandbox,
        "pid": container.pid,
        "removing": false,
        "snapshotKey": container.id,
        "snapshotter": "coracle",
        "runtimeType": "coracle",
        "rootfs": directory.join("bundle/rootfs"),
        "config": container.config,
        "runtimeSpec": spec,
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}

/// Tells whoever listens. The event carries the whole pod, so that its reader need not ask.
pub(crate) fn notify(daemon: &Daemon, entry: &Entry<Container>, kind: ContainerEventType) {
    let (id, sandbox) = {
        let container = entry.read();
        (container.id.clone(), container.sandbox.clone())
    };
    let others = daemon.records.containers_of(&sandbox);
    let shown = others.iter().map(|c| c.read()).filter(|c| c.state != ContainerState::Creating);
    let containers_statuses = shown.map(|c| status_of(&c)).collect();
    let pod = daemon.records.sandboxes.get(&sandbox);
    // Nobody listening is fine.
    let _ = daemon.events.send(ContainerEventResponse {
        container_id: id,
        container_event_type: kind as i32,
        created_at: crate::fresh::now(),
        pod_sandbox_status: pod.map(|s| crate::pods::status_of(&s.read())),
        containers_statuses,
    });
}

/// Waits until the container is as wanted; whether it came so far in time.
pub(super) async fn until(
    daemon: &Daemon,
    entry: &Entry<Container>,
    patience: Duration,
    wanted: impl Fn(&Container) -> bool,
) -> bool {
    let mut events = daemon.events.subscribe();
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        if wanted(&entry.read()) {
            return true;
        }
        // A lagging reader has lost events, not the state.
        if tokio::time::timeout_at(deadline, events.recv()).await.is_err() {
            return wanted(&entry.read());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_cri::v1::{ContainerConfig, ContainerStateValue};

    #[test]
    fn filters_are_all_to_be_met() {
        let config = ContainerConfig { labels: [("app".into(), "web".into())].into(), ..Default::default() };
        let container = Container {
            id: "abc".into(),
            sandbox: "pod".into(),
            state: ContainerState::Running,
            config,
            ..Container::default()
        };
        let all = ContainerFilter::default();
        assert!(matches(&container, &all));
        assert!(matches(&container, &ContainerFilter { id: "ab".into(), ..all.clone() }));
        assert!(!matches(&container, &ContainerFilter { id: "x".into(), ..all.clone() }));
        assert!(!matches(&container, &ContainerFilter { pod_sandbox_id: "other".into(), ..all.clone() }));
        let state = Some(ContainerStateValue { state: CriState::ContainerExited as i32 });
        assert!(!matches(&container, &ContainerFilter { state, ..all.clone() }));
        let label = |v: &str| ContainerFilter {
            label_selector: [("app".to_owned(), v.to_owned())].into(),
            ..ContainerFilter::default()
        };
        assert!(matches(&container, &label("web")) && !matches(&container, &label("db")));
        assert!(!matches(&Container { state: ContainerState::Creating, ..container }, &all), "in no list");
    }
}
