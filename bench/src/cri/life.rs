//! A pod's life, call by call, each call timed.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ExecSyncRequest, ImageSpec,
    LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
    NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, RemovePodSandboxRequest,
    RunPodSandboxRequest, StartContainerRequest, StopContainerRequest, StopPodSandboxRequest,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::{Response, Status};

use crate::daemons::Candidate;

/// The calls, in order.
pub const STEPS: [&str; 7] = [
    "RunPodSandbox",
    "CreateContainer",
    "StartContainer",
    "ExecSync",
    "StopContainer",
    "StopPodSandbox",
    "RemovePodSandbox",
];

/// Pods that come and go at the same time.
const AT_ONCE: usize = 10;

/// Ends at SIGTERM, as a program should.
const PROGRAM: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"];

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Network {
    Host,
    Pod,
}

/// The times of one life.
pub async fn live(
    candidate: &Candidate,
    network: Network,
    image: &str,
    round: usize,
) -> Result<Vec<Duration>, String> {
    let mut times = Vec::new();
    let config = sandbox(candidate, network, &format!("life-{round}"));
    let pod = run(candidate, &config, &mut times).await?;
    let container = create_and_start(candidate, &config, &pod, image, &mut times).await?;
    let mut client = candidate.runtime.clone();
    let exec = ExecSyncRequest { container_id: container.clone(), cmd: vec!["true".into()], timeout: 30 };
    let answer = timed(candidate, &mut times, client.exec_sync(exec)).await?;
    if answer.exit_code != 0 {
        return Err(format!("{}: exec: exit code {}", candidate.name, answer.exit_code));
    }
    let stop = StopContainerRequest { container_id: container, timeout: 10 };
    timed(candidate, &mut times, client.stop_container(stop)).await?;
    end(candidate, pod, &mut times).await?;
    Ok(times)
}

/// Pods with one container each, some at a time; their ids.
pub async fn all_up(candidate: &Candidate, image: &str, count: usize) -> Result<Vec<String>, String> {
    let names = (0..count).map(|number| format!("crowd-{number}")).collect();
    each(candidate, names, |candidate, name| {
        let image = image.to_owned();
        async move {
            let config = sandbox(&candidate, Network::Pod, &name);
            let pod = run(&candidate, &config, &mut Vec::new()).await?;
            create_and_start(&candidate, &config, &pod, &image, &mut Vec::new()).await?;
            Ok(pod)
        }
    })
    .await
}

/// Stops and removes pods, some at a time.
pub async fn all_down(candidate: &Candidate, pods: Vec<String>) -> Result<(), String> {
    each(candidate, pods, |candidate, pod| async move {
        end(&candidate, pod, &mut Vec::new()).await.map(|()| String::new())
    })
    .await
    .map(|_| ())
}

async fn each<F, W>(candidate: &Candidate, of: Vec<String>, work: F) -> Result<Vec<String>, String>
where
    F: Fn(Candidate, String) -> W,
    W: Future<Output = Result<String, String>> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for one in of {
        let permits = Arc::clone(&permits);
        let job = work(candidate.clone(), one);
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            job.await
        });
    }
    let mut found = Vec::new();
    while let Some(done) = tasks.join_next().await {
        found.push(done.map_err(|e| e.to_string())??);
    }
    Ok(found)
}

async fn run(
    candidate: &Candidate,
    config: &PodSandboxConfig,
    times: &mut Vec<Duration>,
) -> Result<String, String> {
    let request =
        RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: candidate.handler.to_owned() };
    let mut client = candidate.runtime.clone();
    Ok(timed(candidate, times, client.run_pod_sandbox(request)).await?.pod_sandbox_id)
}

async fn create_and_start(
    candidate: &Candidate,
    config: &PodSandboxConfig,
    pod: &str,
    image: &str,
    times: &mut Vec<Duration>,
) -> Result<String, String> {
    let mut client = candidate.runtime.clone();
    let create = CreateContainerRequest {
        pod_sandbox_id: pod.to_owned(),
        config: Some(container(config, image)),
        sandbox_config: Some(config.clone()),
    };
    let id = timed(candidate, times, client.create_container(create)).await?.container_id;
    let start = StartContainerRequest { container_id: id.clone() };
    timed(candidate, times, client.start_container(start)).await?;
    Ok(id)
}

async fn end(candidate: &Candidate, pod: String, times: &mut Vec<Duration>) -> Result<(), String> {
    let mut client = candidate.runtime.clone();
    let stop = StopPodSandboxRequest { pod_sandbox_id: pod.clone() };
    timed(candidate, times, client.stop_pod_sandbox(stop)).await?;
    timed(candidate, times, client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod }))
        .await?;
    Ok(())
}

async fn timed<T>(
    candidate: &Candidate,
    times: &mut Vec<Duration>,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, String> {
    let started = Instant::now();
    let answer = call.await;
    times.push(started.elapsed());
    let step = STEPS.get(times.len() - 1).unwrap_or(&"call");
    answer.map(Response::into_inner).map_err(|status| format!("{}: {step}: {status}", candidate.name))
}

fn namespaces(network: Network) -> NamespaceOption {
    let mode = match network {
        Network::Host => NamespaceMode::Node,
        Network::Pod => NamespaceMode::Pod,
    };
    NamespaceOption {
        network: mode as i32,
        pid: NamespaceMode::Container as i32,
        ..NamespaceOption::default()
    }
}

fn sandbox(candidate: &Candidate, network: Network, name: &str) -> PodSandboxConfig {
    let place = if network == Network::Host { "host" } else { "pod" };
    let uid = format!("{place}-{name}-{}", candidate.handler);
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.clone(),
            namespace: "bench".to_owned(),
            attempt: 0,
        }),
        log_directory: candidate.logs.join(uid).display().to_string(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: "/coracle-bench".to_owned(),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(network)),
                ..LinuxSandboxSecurityContext::default()
            }),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    }
}

fn container(of: &PodSandboxConfig, image: &str) -> ContainerConfig {
    let options = of.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
        image: Some(ImageSpec { image: image.to_owned(), ..ImageSpec::default() }),
        command: PROGRAM.map(str::to_owned).to_vec(),
        log_path: "main.log".to_owned(),
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: options.and_then(|options| options.namespace_options.clone()),
                ..LinuxContainerSecurityContext::default()
            }),
            ..LinuxContainerConfig::default()
        }),
        ..ContainerConfig::default()
    }
}
