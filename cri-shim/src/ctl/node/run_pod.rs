//! `coraclectl run-pod`: a Pod manifest of Kubernetes, started on this node without Kubernetes.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use k8s_cri::v1::{
    CreateContainerRequest, ImageSpec, ImageStatusRequest, PodSandboxConfig, PullImageRequest,
    RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StopPodSandboxRequest,
};
use serde::Deserialize;

use super::Node;
use super::manifest::{Container, Manifest, PullPolicy};
use crate::ctl::failure::Failure;
use crate::ctl::{Cli, output};

/// Largest manifest that is read.
const MAX_FILE: u64 = 1 << 20;

#[derive(clap::Args)]
#[command(
    after_help = "Supported of a manifest: metadata; of spec hostname, hostNetwork, hostPID, hostIPC, \
shareProcessNamespace, runtimeClassName, restartPolicy Never, volumes of type hostPath; of its containers image, \
imagePullPolicy, command, args, workingDir, env with values, ports, volumeMounts, resources.limits of cpu and memory, \
stdin, tty, and of securityContext privileged, runAsUser, runAsGroup, readOnlyRootFilesystem. Anything else is refused.\n\n\
Nothing restarts what ends. The pod's id is printed when all of its containers run; `coraclectl rm -f` removes it."
)]
pub(in crate::ctl) struct Args {
    /// Manifest in YAML or JSON, several pods separated by `---`; - is standard input
    file: PathBuf,

    /// Directory of the logs
    #[arg(long, value_name = "DIR", default_value = "/var/log/pods")]
    logs: PathBuf,

    /// Leave a pod as it is when one of its containers cannot be started
    #[arg(long)]
    keep: bool,
}

pub(in crate::ctl) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let name = args.file.display().to_string();
    let text = read(args).map_err(|error| Failure::io(&name, &error))?;
    let mut manifests = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(&text) {
        let mut manifest =
            Manifest::deserialize(document).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
        manifest.check().map_err(|error| Failure::usage(format!("{name}: {error}")))?;
        if manifest.metadata.uid.is_empty() {
            manifest.metadata.uid = new_uid()?;
        }
        manifests.push(manifest);
    }
    let node = cli.node()?;
    for manifest in &manifests {
        let id = start(&node, manifest, args)
            .map_err(|failure| failure.during(&format!("pod {}", manifest.metadata.name)))?;
        output::print_line(&id);
    }
    Ok(ExitCode::SUCCESS)
}

fn read(args: &Args) -> std::io::Result<String> {
    let mut text = String::new();
    if args.file.as_os_str() == "-" {
        std::io::stdin().take(MAX_FILE).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(&args.file)?.take(MAX_FILE).read_to_string(&mut text)?;
    }
    Ok(text)
}

fn new_uid() -> Result<String, Failure> {
    const PATH: &str = "/proc/sys/kernel/random/uuid";
    let uid = std::fs::read_to_string(PATH).map_err(|error| Failure::io(PATH, &error))?;
    Ok(uid.trim().to_owned())
}

/// Images first: a name that is wrong then leaves nothing behind.
fn start(node: &Node, manifest: &Manifest, args: &Args) -> Result<String, Failure> {
    let config = manifest.sandbox(&args.logs);
    let images = manifest.spec.containers.iter().map(|container| pull(node, container, &config));
    let images = images.collect::<Result<Vec<_>, Failure>>()?;
    let request = RunPodSandboxRequest {
        config: Some(config.clone()),
        runtime_handler: manifest.spec.runtime_class_name.clone(),
    };
    let id = node.order(node.cri().run_pod_sandbox(request))?.pod_sandbox_id;
    for (container, image) in manifest.spec.containers.iter().zip(images) {
        let started = start_container(node, manifest, container, &image, &id, &config);
        if let Err(failure) = started {
            if !args.keep {
                remove(node, &id)?;
            }
            return Err(failure.during(&format!("container {}", container.name)));
        }
    }
    Ok(id)
}

/// The image's id.
fn pull(node: &Node, container: &Container, config: &PodSandboxConfig) -> Result<String, Failure> {
    let spec = ImageSpec { image: container.image.clone(), ..ImageSpec::default() };
    if container.image_pull_policy != PullPolicy::Always {
        let request = ImageStatusRequest { image: Some(spec.clone()), verbose: false };
        if let Some(image) = node.ask(node.images().image_status(request))?.image {
            return Ok(image.id);
        }
        if container.image_pull_policy == PullPolicy::Never {
            let text = format!("image {} is not there, and imagePullPolicy is Never", container.image);
            return Err(Failure::usage(text));
        }
    }
    let request = PullImageRequest { image: Some(spec), auth: None, sandbox_config: Some(config.clone()) };
    let pulled = node.order(node.images().pull_image(request));
    Ok(pulled.map_err(|failure| failure.during(&format!("image {}", container.image)))?.image_ref)
}

fn start_container(
    node: &Node,
    manifest: &Manifest,
    container: &Container,
    image: &str,
    pod: &str,
    sandbox: &PodSandboxConfig,
) -> Result<(), Failure> {
    let config = manifest.container(container, image).map_err(|error| Failure::usage(error.to_string()))?;
    let request = CreateContainerRequest {
        pod_sandbox_id: pod.to_owned(),
        config: Some(config),
        sandbox_config: Some(sandbox.clone()),
    };
    let container_id = node.order(node.cri().create_container(request))?.container_id;
    node.order(node.cri().start_container(StartContainerRequest { container_id }))?;
    Ok(())
}

fn remove(node: &Node, id: &str) -> Result<(), Failure> {
    node.order(node.cri().stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.to_owned() }))?;
    node.order(node.cri().remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() }))?;
    Ok(())
}
