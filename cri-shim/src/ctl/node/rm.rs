//! `coraclectl rm`.

use std::process::ExitCode;

use k8s_cri::v1::{RemoveContainerRequest, RemovePodSandboxRequest, StopPodSandboxRequest};

use super::Node;
use super::names::{Found, Known, container_name, is_ready, is_running, pod_name};
use crate::ctl::failure::Failure;
use crate::ctl::{Cli, output};

#[derive(clap::Args)]
#[command(
    after_help = "A pod goes with all of its containers. What still runs is only removed with --force."
)]
pub(in crate::ctl) struct Args {
    /// Pod or container: its name, pod/container, or the beginning of its id
    #[arg(required_unless_present = "all", value_name = "NAME")]
    names: Vec<String>,

    /// Every pod
    #[arg(short, long, conflicts_with = "names")]
    all: bool,

    /// End what still runs
    #[arg(short, long)]
    force: bool,
}

pub(in crate::ctl) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let node = cli.node()?;
    let known = Known::load(&node)?;
    let targets = known.targets(&args.names, args.all, |_| true)?;
    // All are judged before the first one goes.
    if !args.force {
        targets.iter().try_for_each(|target| stands_still(&known, target))?;
    }
    for target in targets {
        remove(&node, &target)?;
        output::print_line(target.id());
    }
    Ok(ExitCode::SUCCESS)
}

fn stands_still(known: &Known, target: &Found<'_>) -> Result<(), Failure> {
    let (kind, name, runs) = match target {
        Found::Pod(pod) => {
            let runs = known.containers_of(pod).iter().any(|container| is_running(container));
            ("pod", pod_name(pod), runs || is_ready(pod))
        }
        Found::Container(container) => ("container", container_name(container), is_running(container)),
    };
    if runs {
        return Err(Failure::usage(format!("{kind} {name} still runs"))
            .with_hint("`coraclectl stop` it first, or use `coraclectl rm --force`"));
    }
    Ok(())
}

fn remove(node: &Node, target: &Found<'_>) -> Result<(), Failure> {
    match target {
        Found::Pod(pod) => {
            node.order(
                node.cri().stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() }),
            )?;
            let request = RemovePodSandboxRequest { pod_sandbox_id: pod.id.clone() };
            node.order(node.cri().remove_pod_sandbox(request)).map(|_| ())
        }
        Found::Container(container) => {
            let request = RemoveContainerRequest { container_id: container.id.clone() };
            node.order(node.cri().remove_container(request)).map(|_| ())
        }
    }
}
