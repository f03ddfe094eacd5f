//! `coraclectl ps`.

use std::process::ExitCode;

use k8s_cri::v1::{Container, ContainerStatus, ContainerStatusRequest};
use serde_json::json;

use super::names::{Known, container_name, is_running, pod_name, state};
use super::{Format, Listing, Node, age, short};
use crate::ctl::failure::Failure;
use crate::ctl::{Cli, output};

#[derive(clap::Args)]
pub(in crate::ctl) struct Args {
    /// Also containers that do not run (any more)
    #[arg(short, long)]
    all: bool,

    /// Only containers of this pod
    #[arg(short, long)]
    pod: Option<String>,

    #[command(flatten)]
    listing: Listing,
}

pub(in crate::ctl) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let node = cli.node()?;
    let known = Known::load(&node)?;
    let pod = args.pod.as_deref().map(|text| known.pod(text)).transpose()?;
    let mut containers: Vec<&Container> = known
        .containers
        .iter()
        .filter(|container| args.all || is_running(container))
        .filter(|container| pod.is_none_or(|pod| pod.id == container.pod_sandbox_id))
        .collect();
    containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
    if args.listing.quiet {
        containers.iter().for_each(|container| output::print_line(&container.id));
        return Ok(ExitCode::SUCCESS);
    }
    match args.listing.format {
        Format::Json => {
            let list: Vec<_> =
                containers.iter().map(|container| describe(&node, &known, container)).collect();
            output::json(&list);
        }
        Format::Table => {
            let rows: Vec<_> = containers.iter().map(|container| row(&node, &known, container)).collect();
            output::table(&["CONTAINER", "POD", "IMAGE", "STATE", "CREATED", "ID"], &rows);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(node: &Node, known: &Known, container: &Container) -> Vec<String> {
    let attempt = container.metadata.as_ref().map_or(0, |data| data.attempt);
    let name = container_name(container);
    vec![
        if attempt == 0 { name.to_owned() } else { format!("{name} (attempt {attempt})") },
        known.pod_of(container).map(pod_name).unwrap_or("-").to_owned(),
        image(container),
        described_state(node, container),
        age(container.created_at),
        short(&container.id),
    ]
}

/// `exited (1, Error) 5 minutes ago`: what happened is in the status, not in the list.
fn described_state(node: &Node, container: &Container) -> String {
    let word = state(container.state);
    let status = (word == "exited").then(|| status(node, &container.id).ok()).flatten();
    match status {
        Some(status) if status.reason.is_empty() => {
            format!("exited ({}) {}", status.exit_code, age(status.finished_at))
        }
        Some(status) => {
            format!("exited ({}, {}) {}", status.exit_code, status.reason, age(status.finished_at))
        }
        None => word.to_owned(),
    }
}

/// The name that was asked for; ids are shortened as everywhere.
fn image(container: &Container) -> String {
    let asked = container.image.as_ref().map(|image| match image.user_specified_image.as_str() {
        "" => image.image.clone(),
        asked => asked.to_owned(),
    });
    let name = asked.filter(|name| !name.is_empty()).unwrap_or_else(|| container.image_ref.clone());
    name.strip_prefix("sha256:").map_or_else(|| name.clone(), short)
}

fn describe(node: &Node, known: &Known, container: &Container) -> serde_json::Value {
    let pod = known.pod_of(container);
    let status = status(node, &container.id).unwrap_or_default();
    json!({
        "id": container.id, "name": container_name(container),
        "attempt": container.metadata.as_ref().map_or(0, |data| data.attempt),
        "pod": pod.map(pod_name), "podId": container.pod_sandbox_id, "image": image(container),
        "imageRef": container.image_ref, "state": state(container.state), "createdAt": container.created_at,
        "startedAt": status.started_at, "finishedAt": status.finished_at, "exitCode": status.exit_code,
        "reason": status.reason, "message": status.message, "logPath": status.log_path,
        "labels": container.labels, "annotations": container.annotations,
    })
}

pub(super) fn status(node: &Node, id: &str) -> Result<ContainerStatus, Failure> {
    let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    Ok(node.ask(node.cri().container_status(request))?.status.unwrap_or_default())
}
