//! StartContainer and ReopenContainerLog.

use std::sync::Arc;

use coracle_image_store::fault;
use coracle_monitor::protocol::Request;
use k8s_cri::v1::{
    ContainerEventType, ReopenContainerLogRequest, ReopenContainerLogResponse, StartContainerRequest,
    StartContainerResponse,
};
use tonic::Status;

use super::error::Error;
use super::{create, find, monitor, status, stop};
use crate::daemon::Daemon;
use crate::record::{Container, ContainerState, Entry};

/// What containerd reports for a container that could not be started.
const START_ERROR: (i32, &str) = (128, "StartError");

pub async fn start(
    daemon: &Arc<Daemon>,
    request: StartContainerRequest,
) -> Result<StartContainerResponse, Status> {
    let entry = find(daemon, &request.container_id)?;
    let _turn = entry.turn().await;
    let container = entry.get();
    needs(&container, ContainerState::Created, "starting it", "created")?;
    create::ready(daemon, &container.sandbox, "starting a container")?;
    // The start is recorded before it is made: a restart asks the monitor how far it came.
    let at = crate::fresh::now().max(container.created_at + 1);
    entry.update_for_boot(|c| c.started_at = at).map_err(Error::from)?;
    fault::point("container.starting").map_err(Error::from)?;
    let request = Request::Start { id: container.id.clone() };
    if let Err(error) = monitor::call(daemon, &container.sandbox, request).await {
        fail(daemon, &entry, &error).await;
        return Err(error.into());
    }
    fault::point("container.started").map_err(Error::from)?;
    let running = |c: &mut Container| {
        if c.state == ContainerState::Created {
            c.state = ContainerState::Running;
        }
    };
    if let Err(error) = entry.establish(running) {
        tracing::warn!(id = container.id, %error, "the container runs, but that is not recorded");
    }
    status::notify(daemon, &entry, ContainerEventType::ContainerStartedEvent);
    Ok(StartContainerResponse {})
}

/// A container that did not start is one that has exited, with the reason; what is left of it is ended.
async fn fail(daemon: &Arc<Daemon>, entry: &Entry<Container>, error: &Error) {
    let _ = entry.establish(|c| {
        (c.exit_code, c.reason) = (START_ERROR.0, START_ERROR.1.into());
        c.message = error.to_string();
    });
    if let Err(error) = stop::stop_entry(daemon, entry, std::time::Duration::ZERO).await {
        tracing::warn!(%error, "after a start that failed");
    }
}

pub async fn reopen_log(
    daemon: &Arc<Daemon>,
    request: ReopenContainerLogRequest,
) -> Result<ReopenContainerLogResponse, Status> {
    let container = find(daemon, &request.container_id)?.get();
    needs(&container, ContainerState::Running, "reopening its log", "running")?;
    monitor::call(daemon, &container.sandbox, Request::ReopenLog { id: container.id }).await?;
    Ok(ReopenContainerLogResponse {})
}

fn needs(
    container: &Container,
    wanted: ContainerState,
    action: &'static str,
    needs: &'static str,
) -> Result<(), Error> {
    if container.state == wanted {
        return Ok(());
    }
    Err(Error::State { id: container.id.clone(), state: container.state, action, needs })
}
