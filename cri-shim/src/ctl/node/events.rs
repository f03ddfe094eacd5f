//! `coraclectl events`.

use std::process::ExitCode;

use k8s_cri::v1::{ContainerEventResponse, ContainerEventType, GetEventsRequest};
use serde_json::json;

use super::{Format, short, timestamp};
use crate::ctl::failure::Failure;
use crate::ctl::{Cli, output};

#[derive(clap::Args)]
#[command(after_help = "Runs until it is interrupted or the daemon stops.")]
pub(in crate::ctl) struct Args {
    /// How to print; JSON is one object a line
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub(in crate::ctl) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let node = cli.node()?;
    let mut events = node.ask(node.cri().get_container_events(GetEventsRequest {}))?;
    loop {
        match node.wait(events.message()).map_err(|status| super::client::failure(&status))? {
            Some(event) if args.format == Format::Json => output::print_line(&in_json(&event).to_string()),
            Some(event) => output::print_line(&in_words(&event)),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn word(event: &ContainerEventResponse) -> &'static str {
    match ContainerEventType::try_from(event.container_event_type) {
        Ok(ContainerEventType::ContainerCreatedEvent) => "created",
        Ok(ContainerEventType::ContainerStartedEvent) => "started",
        Ok(ContainerEventType::ContainerStoppedEvent) => "stopped",
        Ok(ContainerEventType::ContainerDeletedEvent) => "deleted",
        Err(_) => "unknown",
    }
}

/// The names of container and pod; an event about the sandbox itself carries the sandbox's id as container.
fn names(event: &ContainerEventResponse) -> (Option<&str>, Option<&str>) {
    let container = event.containers_statuses.iter().find(|status| status.id == event.container_id);
    let container = container.and_then(|status| Some(status.metadata.as_ref()?.name.as_str()));
    let pod = event.pod_sandbox_status.as_ref();
    (container, pod.and_then(|status| Some(status.metadata.as_ref()?.name.as_str())))
}

fn exit_code(event: &ContainerEventResponse) -> Option<i32> {
    let status = event.containers_statuses.iter().find(|status| status.id == event.container_id)?;
    (word(event) == "stopped").then_some(status.exit_code)
}

fn in_words(event: &ContainerEventResponse) -> String {
    let (container, pod) = names(event);
    let is_pod = event.pod_sandbox_status.as_ref().is_some_and(|status| status.id == event.container_id);
    let what = match (is_pod, container) {
        (true, _) => format!("pod {}", pod.unwrap_or("?")),
        (false, Some(container)) => format!("container {}/{container}", pod.unwrap_or("?")),
        (false, None) => format!("container of {}", pod.unwrap_or("?")),
    };
    let exit = exit_code(event).map(|code| format!(", exit code {code}")).unwrap_or_default();
    let time = timestamp::format(event.created_at);
    format!("{time}  {:<8} {what} ({}){exit}", word(event), short(&event.container_id))
}

fn in_json(event: &ContainerEventResponse) -> serde_json::Value {
    let (container, pod) = names(event);
    json!({
        "type": word(event), "createdAt": event.created_at, "id": event.container_id,
        "container": container, "pod": pod,
        "podId": event.pod_sandbox_status.as_ref().map(|status| &status.id), "exitCode": exit_code(event),
    })
}

#[cfg(test)]
mod tests {
    use k8s_cri::v1::{ContainerMetadata, ContainerStatus, PodSandboxMetadata, PodSandboxStatus};

    use super::*;

    #[test]
    fn an_event_in_words() {
        let pod = PodSandboxMetadata { name: "web".into(), ..PodSandboxMetadata::default() };
        let name = ContainerMetadata { name: "nginx".into(), attempt: 0 };
        let status = ContainerStatus {
            id: "c1".into(),
            metadata: Some(name),
            exit_code: 3,
            ..ContainerStatus::default()
        };
        let mut event = ContainerEventResponse {
            container_id: "c1".into(),
            container_event_type: ContainerEventType::ContainerStoppedEvent as i32,
            pod_sandbox_status: Some(PodSandboxStatus {
                id: "p1".into(),
                metadata: Some(pod),
                ..PodSandboxStatus::default()
            }),
            containers_statuses: vec![status],
            ..ContainerEventResponse::default()
        };
        assert_eq!(in_words(&event), "1970-01-01T00:00:00Z  stopped  container web/nginx (c1), exit code 3");
        event.container_id = "p1".into();
        assert_eq!(in_words(&event), "1970-01-01T00:00:00Z  stopped  pod web (p1)");
    }
}
