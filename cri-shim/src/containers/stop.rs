//! StopContainer: the stop signal, the grace, SIGKILL, and the certainty that nothing is left.
//!
//! It holds no lock: a second call with a shorter grace is not held up by the first.

use std::sync::Arc;
use std::time::Duration;

use coracle_monitor::protocol::Request;
use k8s_cri::v1::{StopContainerRequest, StopContainerResponse};
use tonic::Status;

use super::error::Error;
use super::{monitor, processes, status};
use crate::daemon::Daemon;
use crate::record::{Container, ContainerState, Entry};

/// How long what was sent SIGKILL may take to be gone; longer is stuck in the kernel.
const KILLED: Duration = Duration::from_secs(15);

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

pub async fn stop(
    daemon: &Arc<Daemon>,
    request: StopContainerRequest,
) -> Result<StopContainerResponse, Status> {
    let Some(entry) = daemon.records.containers.find(&request.container_id) else {
        return Ok(StopContainerResponse {});
    };
    let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
    stop_entry(daemon, &entry, grace).await?;
    Ok(StopContainerResponse {})
}

/// Ends every container of a sandbox that lives. Returns when no process of them is alive.
pub async fn stop_all(daemon: &Arc<Daemon>, sandbox: &str) -> Result<(), Status> {
    daemon.creating.settled(sandbox).await;
    let mut tasks = tokio::task::JoinSet::new();
    for entry in daemon.records.containers_of(sandbox) {
        let daemon = Arc::clone(daemon);
        tasks.spawn(async move { stop_entry(&daemon, &entry, Duration::ZERO).await });
    }
    let mut failed = Vec::new();
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed.push(error),
            Err(panic) => failed.push(Error::Panicked(panic.to_string())),
        }
    }
    if failed.len() > 1 {
        let all: Vec<String> = failed.iter().map(ToString::to_string).collect();
        return Err(Status::internal(all.join("; ")));
    }
    failed.pop().map_or(Ok(()), |error| Err(error.into()))
}

pub(super) async fn stop_entry(
    daemon: &Arc<Daemon>,
    entry: &Entry<Container>,
    grace: Duration,
) -> Result<(), Error> {
    let container = entry.get();
    match container.state {
        ContainerState::Exited | ContainerState::Creating => return Ok(()),
        // Nothing of the image runs yet: there is no one to ask.
        ContainerState::Created => {}
        ContainerState::Running if grace.is_zero() => {}
        ContainerState::Running => {
            // It may be ending by itself just now; SIGKILL follows anyway.
            if let Err(error) = signal(daemon, &container, stop_signal(&container), false).await {
                tracing::debug!(id = container.id, %error, "stop signal not sent");
            }
            if exited(daemon, entry, grace).await {
                return Ok(());
            }
        }
    }
    kill(daemon, entry, &container).await
}

async fn kill(daemon: &Arc<Daemon>, entry: &Entry<Container>, container: &Container) -> Result<(), Error> {
    let sent = signal(daemon, container, SIGKILL, true).await;
    if exited(daemon, entry, KILLED).await {
        return Ok(());
    }
    sent?;
    let left = processes::living(daemon, &container.id).await?;
    let processes = match left.is_empty() {
        false => processes::describe(&left),
        true => format!("no process is left, but its monitor has not told of its end within {KILLED:?}"),
    };
    Err(Error::Alive { id: container.id.clone(), processes })
}

/// Sends a signal by the monitor. Where that is gone the task that watches the container ends it.
async fn signal(daemon: &Arc<Daemon>, container: &Container, signal: i32, all: bool) -> Result<(), Error> {
    let request = Request::Signal { id: container.id.clone(), signal, all };
    match monitor::call(daemon, &container.sandbox, request).await {
        Err(error) if monitor::is_gone(&error) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

async fn exited(daemon: &Arc<Daemon>, entry: &Entry<Container>, patience: Duration) -> bool {
    status::until(daemon, entry, patience, |c| c.state == ContainerState::Exited).await
}

/// Of the image; one that is no signal counts as none.
fn stop_signal(container: &Container) -> i32 {
    let named = coracle_runtime::commands::parse_signal(container.stop_signal.trim());
    named.filter(|n| (1..=64).contains(n)).unwrap_or(SIGTERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_by_name_and_number() {
        for (text, number) in
            [("", 15), ("SIGQUIT", 3), ("INT", 2), ("9", 9), ("RTMIN+3", 37), ("0", 15), ("x", 15)]
        {
            let container = Container { stop_signal: text.into(), ..Container::default() };
            assert_eq!(stop_signal(&container), number, "{text}");
        }
    }
}
