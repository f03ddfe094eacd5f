//! `coraclectl pods`.

use std::process::ExitCode;

use k8s_cri::v1::{PodSandbox, PodSandboxStatus, PodSandboxStatusRequest};
use serde_json::json;

use super::names::{Known, is_ready, is_running};
use super::{Format, Listing, Node, age, short};
use crate::ctl::failure::Failure;
use crate::ctl::{Cli, output};

#[derive(clap::Args)]
pub(in crate::ctl) struct Args {
    /// Only pods of this namespace
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,

    /// Only pods that are ready
    #[arg(long)]
    ready: bool,

    #[command(flatten)]
    listing: Listing,
}

pub(in crate::ctl) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let node = cli.node()?;
    let known = Known::load(&node)?;
    let mut pods: Vec<&PodSandbox> = known.pods.iter().filter(|pod| is_wanted(args, pod)).collect();
    pods.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));
    if args.listing.quiet {
        pods.iter().for_each(|pod| output::print_line(&pod.id));
        return Ok(ExitCode::SUCCESS);
    }
    let described: Vec<Described> = pods.iter().map(|pod| Described::of(&node, &known, pod)).collect();
    match args.listing.format {
        Format::Json => output::json(&described.iter().map(Described::json).collect::<Vec<_>>()),
        Format::Table => {
            let rows: Vec<_> = described.iter().map(Described::row).collect();
            output::table(&["POD", "NAMESPACE", "STATE", "CONTAINERS", "IP", "CREATED", "ID"], &rows);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn is_wanted(args: &Args, pod: &PodSandbox) -> bool {
    let namespace = pod.metadata.as_ref().map(|data| data.namespace.as_str());
    args.namespace.as_deref().is_none_or(|wanted| namespace == Some(wanted)) && (!args.ready || is_ready(pod))
}

/// A pod with what the list alone does not tell.
struct Described<'a> {
    pod: &'a PodSandbox,
    ips: Vec<String>,
    running: usize,
    containers: usize,
}

impl<'a> Described<'a> {
    fn of(node: &Node, known: &Known, pod: &'a PodSandbox) -> Self {
        let containers = known.containers_of(pod);
        Self {
            pod,
            // A pod that went since the list was made has no address: no reason to show nothing.
            ips: status(node, &pod.id).map(|status| ips(&status)).unwrap_or_default(),
            running: containers.iter().filter(|container| is_running(container)).count(),
            containers: containers.len(),
        }
    }

    fn row(&self) -> Vec<String> {
        let data = self.pod.metadata.clone().unwrap_or_default();
        let state = if is_ready(self.pod) { "ready" } else { "not ready" };
        let ips = if self.ips.is_empty() { "-".to_owned() } else { self.ips.join(",") };
        vec![
            data.name,
            data.namespace,
            state.to_owned(),
            format!("{}/{}", self.running, self.containers),
            ips,
            age(self.pod.created_at),
            short(&self.pod.id),
        ]
    }

    fn json(&self) -> serde_json::Value {
        let data = self.pod.metadata.clone().unwrap_or_default();
        json!({
            "id": self.pod.id, "name": data.name, "namespace": data.namespace, "uid": data.uid,
            "attempt": data.attempt, "ready": is_ready(self.pod), "createdAt": self.pod.created_at,
            "ips": self.ips, "containers": self.containers, "running": self.running,
            "labels": self.pod.labels, "annotations": self.pod.annotations,
            "runtimeHandler": self.pod.runtime_handler,
        })
    }
}

pub(super) fn status(node: &Node, id: &str) -> Result<PodSandboxStatus, Failure> {
    let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
    Ok(node.ask(node.cri().pod_sandbox_status(request))?.status.unwrap_or_default())
}

/// All addresses, the primary first; none where the pod uses the host's network.
pub(super) fn ips(status: &PodSandboxStatus) -> Vec<String> {
    let Some(network) = &status.network else { return Vec::new() };
    let all = std::iter::once(&network.ip).chain(network.additional_ips.iter().map(|ip| &ip.ip));
    all.filter(|ip| !ip.is_empty()).cloned().collect()
}
