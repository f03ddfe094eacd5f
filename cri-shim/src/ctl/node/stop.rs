//! `coraclectl stop`.

use std::process::ExitCode;

use k8s_cri::v1::{StopContainerRequest, StopPodSandboxRequest};

use super::names::{Found, Known, is_ready};
use crate::ctl::failure::Failure;
use crate::ctl::{Cli, output};

#[derive(clap::Args)]
#[command(
    after_help = "A pod is stopped with all of its containers. What stands still already is no failure."
)]
pub(in crate::ctl) struct Args {
    /// Pod or container: its name, pod/container, or the beginning of its id
    #[arg(required_unless_present = "all", value_name = "NAME")]
    names: Vec<String>,

    /// Every pod
    #[arg(short, long, conflicts_with = "names")]
    all: bool,

    /// Seconds that a container has between the signal to end and its death
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u32,
}

pub(in crate::ctl) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let node = cli.node()?;
    let known = Known::load(&node)?;
    let targets = known.targets(&args.names, args.all, is_ready)?;
    for target in targets {
        match target {
            Found::Pod(pod) => {
                for container in known.containers_of(pod) {
                    node.order(node.cri().stop_container(request(&container.id, args.timeout)))?;
                }
                let stop = StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() };
                node.order(node.cri().stop_pod_sandbox(stop))?;
            }
            Found::Container(container) => {
                node.order(node.cri().stop_container(request(&container.id, args.timeout)))?;
            }
        }
        output::print_line(target.id());
    }
    Ok(ExitCode::SUCCESS)
}

fn request(id: &str, timeout: u32) -> StopContainerRequest {
    StopContainerRequest { container_id: id.to_owned(), timeout: timeout.into() }
}
