//! CreateContainer: validation, joining of retries, then the building.
//!
//! A kubelet whose call timed out asks again with the same sandbox, name and attempt: an operation under way is joined, and
//! one that has finished and was never started is handed out again while it is what was asked for, else made anew.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_cri::v1::{
    ContainerConfig, ContainerEventType, ContainerMetadata, CreateContainerRequest, CreateContainerResponse,
    NamespaceMode,
};
use tonic::Status;

use super::build::{self, Plan};
use super::error::Error;
use super::joins::Role;
use super::{monitor, remove, status, watch as watcher};
use crate::daemon::Daemon;
use crate::fresh;
use crate::record::{Container, ContainerState, Entry, Sandbox, SandboxState};

/// How long a finished container that nobody started is handed out to a retry.
const UNCLAIMED: Duration = Duration::from_secs(240);

pub async fn create(
    daemon: &Arc<Daemon>,
    request: CreateContainerRequest,
) -> Result<CreateContainerResponse, Status> {
    let config = request.config.ok_or(Error::Invalid { field: "config", why: "is not set".into() })?;
    let metadata = config.metadata.clone().filter(|m| !m.name.is_empty());
    let metadata = metadata.ok_or(Error::Invalid { field: "config.metadata", why: "has no name".into() })?;
    if let Some(device) = config.cdi_devices.first() {
        return Err(
            Error::Unsupported { what: format!("CDI in this version: device {:?}", device.name) }.into()
        );
    }
    let sandbox = ready(daemon, &request.pod_sandbox_id, "creating a container")?;
    let key = (sandbox.id.clone(), metadata.name.clone(), metadata.attempt);
    let mut joined = match daemon.creating.enter(&key) {
        Role::First(sender) => {
            let outcome = create_once(daemon, sandbox, config, &metadata).await;
            let told = match &outcome {
                Ok(id) => Ok(id.clone()),
                Err(status) => Err((status.code(), status.message().to_owned())),
            };
            daemon.creating.leave(&key);
            let _ = sender.send(Some(told));
            return outcome.map(|container_id| CreateContainerResponse { container_id });
        }
        Role::Joined(receiver) => receiver,
    };
    let outcome = joined.wait_for(Option::is_some).await.ok().and_then(|o| o.clone());
    match outcome {
        Some(Ok(container_id)) => Ok(CreateContainerResponse { container_id }),
        Some(Err((code, message))) => Err(Error::Joined { code, message }.into()),
        None => Err(Error::Panicked("the creation that this call joined was given up".into()).into()),
    }
}

/// The sandbox, if containers may be made in it.
pub(super) fn ready(daemon: &Daemon, id: &str, action: &'static str) -> Result<Sandbox, Error> {
    let found = daemon.records.sandboxes.find(id).map(|s| s.get());
    match found {
        Some(sandbox) if sandbox.state == SandboxState::Ready => Ok(sandbox),
        Some(sandbox) if sandbox.state == SandboxState::NotReady => {
            Err(Error::NotReady { id: sandbox.id, action })
        }
        _ => Err(Error::NoSandbox { id: id.to_owned() }),
    }
}

async fn create_once(
    daemon: &Arc<Daemon>,
    sandbox: Sandbox,
    config: ContainerConfig,
    metadata: &ContainerMetadata,
) -> Result<String, Status> {
    if let Some(existing) = existing(daemon, &sandbox.id, metadata)
        && let Some(id) = reuse(daemon, &existing, &config, metadata).await?
    {
        return Ok(id);
    }
    let target = target_namespace(daemon, &sandbox.id, &config)?;
    let created_at = later_than_all(daemon, &sandbox, &metadata.name);
    let id = fresh::random_hex::<32>().map_err(Error::path("read", Path::new("getrandom(2)")))?;
    let plan = Plan { id, created_at, sandbox, config, target };
    let own = Arc::clone(daemon);
    let entry = monitor::blocking(move || build::build(&own, &plan)).await?;
    watcher::spawn(daemon, &entry);
    status::notify(daemon, &entry, ContainerEventType::ContainerCreatedEvent);
    let id = entry.read().id.clone();
    // The sandbox may have been stopped while this went on; what stops it has seen no container.
    let sandbox = entry.read().sandbox.clone();
    if let Err(error) = ready(daemon, &sandbox, "creating a container") {
        remove::remove_entry(daemon, &entry).await?;
        return Err(error.into());
    }
    Ok(id)
}

fn existing(daemon: &Daemon, sandbox: &str, metadata: &ContainerMetadata) -> Option<Entry<Container>> {
    let same = |c: &Entry<Container>| {
        let c = c.read();
        c.state != ContainerState::Creating
            && c.config
                .metadata
                .as_ref()
                .is_some_and(|m| m.name == metadata.name && m.attempt == metadata.attempt)
    };
    daemon.records.containers_of(sandbox).into_iter().find(same)
}

/// What becomes of a container of this name: handed out, removed for a new one, or in the way.
async fn reuse(
    daemon: &Arc<Daemon>,
    entry: &Entry<Container>,
    config: &ContainerConfig,
    metadata: &ContainerMetadata,
) -> Result<Option<String>, Error> {
    let container = entry.get();
    if container.state != ContainerState::Created {
        return Err(Error::Exists {
            name: metadata.name.clone(),
            attempt: metadata.attempt,
            sandbox: container.sandbox,
            id: container.id,
            state: container.state,
        });
    }
    let age = fresh::now().saturating_sub(container.created_at);
    if u128::try_from(age).is_ok_and(|age| age < UNCLAIMED.as_nanos()) && agree(&container.config, config) {
        return Ok(Some(container.id));
    }
    remove::remove_entry(daemon, entry).await?;
    Ok(None)
}

/// Retries are never equal byte by byte: the path of the termination log is random.
fn agree(left: &ContainerConfig, right: &ContainerConfig) -> bool {
    let without = |config: &ContainerConfig| {
        let path = config.annotations.get("io.kubernetes.container.terminationMessagePath").cloned();
        let mut config = config.clone();
        config.mounts.retain(|m| Some(&m.container_path) != path.as_ref());
        config
    };
    without(left) == without(right)
}

/// The PID namespace of the container that this one is to look at.
fn target_namespace(
    daemon: &Daemon,
    sandbox: &str,
    config: &ContainerConfig,
) -> Result<Option<std::path::PathBuf>, Error> {
    let options = build::security_of(config).namespace_options.unwrap_or_default();
    if options.pid() != NamespaceMode::Target {
        return Ok(None);
    }
    let bad = |why: String| Error::Invalid { field: "namespace_options.target_id", why };
    let target = daemon.records.containers.find(&options.target_id).map(|c| c.get());
    let target = target.ok_or_else(|| bad(format!("container {:?} is not there", options.target_id)))?;
    if target.sandbox != sandbox {
        return Err(bad(format!("container {} is in another sandbox", target.id)));
    }
    if target.state != ContainerState::Running {
        return Err(bad(format!("container {} does not run", target.id)));
    }
    Ok(Some(format!("/proc/{}/ns/pid", target.pid).into()))
}

/// Later than every earlier attempt of this name in the pod, also when the clock steps back: the kubelet sorts by it.
fn later_than_all(daemon: &Daemon, sandbox: &Sandbox, name: &str) -> i64 {
    let uid = |s: &Sandbox| s.config.metadata.as_ref().map(|m| m.uid.clone());
    let mine = uid(sandbox);
    let of_pod = |c: &Container| {
        c.sandbox == sandbox.id
            || daemon.records.sandboxes.get(&c.sandbox).is_some_and(|s| uid(&s.read()) == mine)
    };
    let earlier = daemon.records.containers.list();
    let times = earlier.iter().filter_map(|c| {
        let c = c.read();
        let same = c.config.metadata.as_ref().is_some_and(|m| m.name == name) && of_pod(&c);
        same.then_some(c.created_at + 1)
    });
    times.max().unwrap_or(0).max(fresh::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_cri::v1::Mount;

    #[test]
    fn retries_differ_only_in_the_termination_log() {
        let with = |log: &str, data: &str| ContainerConfig {
            annotations: [(
                "io.kubernetes.container.terminationMessagePath".into(),
                "/dev/termination-log".into(),
            )]
            .into(),
            mounts: [("/dev/termination-log", log), ("/data", data)]
                .map(|(to, from)| Mount {
                    container_path: to.into(),
                    host_path: from.into(),
                    ..Mount::default()
                })
                .to_vec(),
            ..ContainerConfig::default()
        };
        assert!(agree(&with("/a", "/d"), &with("/b", "/d")));
        assert!(!agree(&with("/a", "/d"), &with("/a", "/e")));
    }
}
