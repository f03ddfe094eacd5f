//! Statistics of containers and pods: control groups, network interfaces, writable layers.
//!
//! Everything is read when it is asked for and carries the time of its reading; only writable layers are walked at most
//! every ten seconds. A container that does not run has no processor and memory use, but its layer is told.

mod group;
mod metrics;
mod network;
mod samples;
mod writable;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use coracle_runtime::cgroup::HostCgroups;
use k8s_cri::v1::*;
use tonic::Status;

use self::group::{Group, Memory, Usage};
use self::samples::Samples;
use self::writable::{Walks, Written};
use crate::daemon::Daemon;
use crate::record::{Container, ContainerState, Entry, Sandbox, SandboxState};

/// What the daemon keeps between two questions.
#[derive(Debug, Default)]
pub struct Stats {
    walks: Arc<Walks>,
    samples: Samples,
}

/// A container and what was read of it at one time.
#[derive(Debug, Clone)]
struct Reading {
    container: Container,
    usage: Usage,
    written: Option<Written>,
    timestamp: i64,
}

/// A pod, its own group, and its containers.
#[derive(Debug, Clone)]
struct PodReading {
    sandbox: Sandbox,
    usage: Usage,
    interfaces: Vec<network::Interface>,
    containers: Vec<Reading>,
    timestamp: i64,
}

pub async fn container(
    daemon: &Arc<Daemon>,
    request: ContainerStatsRequest,
) -> Result<ContainerStatsResponse, Status> {
    let found = daemon.records.containers.find(&request.container_id);
    let entry = found.filter(|c| c.read().state != ContainerState::Creating).ok_or_else(|| {
        Status::not_found(format!("stats of container {:?}: not found", request.container_id))
    })?;
    let reading = read(daemon, &host()?, &entry).await?;
    Ok(ContainerStatsResponse { stats: Some(container_stats(daemon, &reading)) })
}

pub async fn containers(
    daemon: &Arc<Daemon>,
    request: ListContainerStatsRequest,
) -> Result<ListContainerStatsResponse, Status> {
    forget(daemon);
    let filter = request.filter.unwrap_or_default();
    let host = host()?;
    let mut stats = Vec::new();
    for entry in daemon.records.containers.list() {
        let wanted = {
            let c = entry.read();
            c.state == ContainerState::Running
                && c.id.starts_with(&filter.id)
                && c.sandbox.starts_with(&filter.pod_sandbox_id)
                && selected(&filter.label_selector, &c.config.labels)
        };
        if wanted {
            stats.push(container_stats(daemon, &read(daemon, &host, &entry).await?));
        }
    }
    Ok(ListContainerStatsResponse { stats })
}

pub async fn pod(
    daemon: &Arc<Daemon>,
    request: PodSandboxStatsRequest,
) -> Result<PodSandboxStatsResponse, Status> {
    let id = request.pod_sandbox_id;
    let found = daemon.records.sandboxes.find(&id).map(|entry| entry.get());
    let sandbox = found.filter(|s| s.state != SandboxState::Creating);
    let sandbox =
        sandbox.ok_or_else(|| Status::not_found(format!("stats of pod sandbox {id:?}: not found")))?;
    let reading = read_pod(daemon, &host()?, sandbox).await?;
    Ok(PodSandboxStatsResponse { stats: Some(pod_stats(daemon, &reading)) })
}

pub async fn pods(
    daemon: &Arc<Daemon>,
    request: ListPodSandboxStatsRequest,
) -> Result<ListPodSandboxStatsResponse, Status> {
    let filter = request.filter.unwrap_or_default();
    let wanted =
        |s: &Sandbox| s.id.starts_with(&filter.id) && selected(&filter.label_selector, &s.config.labels);
    let stats = read_pods(daemon, wanted).await?.iter().map(|reading| pod_stats(daemon, reading)).collect();
    Ok(ListPodSandboxStatsResponse { stats })
}

pub async fn metric_descriptors(
    _daemon: &Arc<Daemon>,
    _request: ListMetricDescriptorsRequest,
) -> Result<ListMetricDescriptorsResponse, Status> {
    Ok(ListMetricDescriptorsResponse { descriptors: metrics::descriptors() })
}

pub async fn pod_metrics(
    daemon: &Arc<Daemon>,
    _request: ListPodSandboxMetricsRequest,
) -> Result<ListPodSandboxMetricsResponse, Status> {
    let (pods, host) = (read_pods(daemon, |_| true).await?, host()?);
    // Descriptors of all processes are counted: off the async threads.
    let collect = move || pods.iter().map(|pod| metrics::of_pod(pod, &host)).collect();
    let pod_metrics = tokio::task::spawn_blocking(collect).await;
    let pod_metrics = pod_metrics.map_err(|e| Status::internal(format!("metrics: {e}")))?;
    Ok(ListPodSandboxMetricsResponse { pod_metrics })
}

fn host() -> Result<HostCgroups, Status> {
    HostCgroups::gather().map_err(|e| Status::internal(format!("control groups: {e}")))
}

fn selected(selector: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Drops what is kept of objects that were removed.
fn forget(daemon: &Daemon) {
    let containers = daemon.records.containers.list();
    let mut ids: BTreeSet<String> = containers.iter().map(|c| c.read().id.clone()).collect();
    daemon.stats.walks.keep(&ids);
    ids.extend(daemon.records.sandboxes.list().iter().map(|s| s.read().id.clone()));
    daemon.stats.samples.keep(&ids);
}

async fn read(daemon: &Arc<Daemon>, host: &HostCgroups, entry: &Entry<Container>) -> Result<Reading, Status> {
    let container = entry.get();
    let written = daemon.stats.walks.of(&container.id, &entry.directory().join("upper")).await;
    let runs = container.state == ContainerState::Running && container.pid > 0;
    let group = runs.then(|| Group::of_process(host, container.pid)).flatten();
    let usage = group.map(|group| group.read(host.unified)).unwrap_or_default();
    Ok(Reading { container, usage, written, timestamp: crate::fresh::now() })
}

async fn read_pods(
    daemon: &Arc<Daemon>,
    wanted: impl Fn(&Sandbox) -> bool,
) -> Result<Vec<PodReading>, Status> {
    forget(daemon);
    let host = host()?;
    let mut pods = Vec::new();
    for entry in daemon.records.sandboxes.list() {
        let sandbox = entry.get();
        if sandbox.state == SandboxState::Ready && wanted(&sandbox) {
            pods.push(read_pod(daemon, &host, sandbox).await?);
        }
    }
    Ok(pods)
}

async fn read_pod(daemon: &Arc<Daemon>, host: &HostCgroups, sandbox: Sandbox) -> Result<PodReading, Status> {
    let mut containers = Vec::new();
    for entry in daemon.records.containers_of(&sandbox.id) {
        if entry.read().state == ContainerState::Running {
            containers.push(read(daemon, host, &entry).await?);
        }
    }
    let group = pod_group(host, &sandbox, &containers);
    let usage = group.map(|group| group.read(host.unified)).unwrap_or_default();
    let interfaces = match sandbox.netns.clone() {
        Some(netns) => tokio::task::spawn_blocking(move || network::interfaces(&netns)).await,
        None => Ok(Ok(Vec::new())),
    };
    // A pod that is being stopped has no namespace any more: the rest is told all the same.
    let interfaces = interfaces.ok().and_then(Result::ok).unwrap_or_default();
    Ok(PodReading { sandbox, usage, interfaces, containers, timestamp: crate::fresh::now() })
}

/// A pod's group: named by its record, or around its containers where systemd places it.
fn pod_group(host: &HostCgroups, sandbox: &Sandbox, containers: &[Reading]) -> Option<Group> {
    if sandbox.cgroup_parent.starts_with('/') {
        return Some(Group::at(host, &sandbox.cgroup_parent));
    }
    let pid = containers.iter().map(|c| c.container.pid).find(|pid| *pid > 0)?;
    Some(Group::of_process(host, pid)?.parent())
}

fn container_stats(daemon: &Daemon, reading: &Reading) -> ContainerStats {
    let (c, usage, timestamp) = (&reading.container, &reading.usage, reading.timestamp);
    let attributes = ContainerAttributes {
        id: c.id.clone(),
        metadata: c.config.metadata.clone(),
        labels: c.config.labels.clone(),
        annotations: c.config.annotations.clone(),
    };
    let mountpoint = daemon.config.root.to_string_lossy().into_owned();
    ContainerStats {
        attributes: Some(attributes),
        cpu: cpu_stats(daemon, &c.id, usage, timestamp),
        memory: usage.memory.as_ref().map(|memory| memory_stats(memory, timestamp)),
        writable_layer: reading.written.map(|written| FilesystemUsage {
            timestamp: written.timestamp,
            fs_id: Some(FilesystemIdentifier { mountpoint }),
            used_bytes: value(written.bytes),
            inodes_used: value(written.inodes),
        }),
        swap: usage.memory.as_ref().and_then(|memory| memory.swap).map(|swap| SwapUsage {
            timestamp,
            swap_available_bytes: value(swap.available),
            swap_usage_bytes: value(swap.usage),
        }),
    }
}

fn pod_stats(daemon: &Daemon, reading: &PodReading) -> PodSandboxStats {
    let (s, usage, timestamp) = (&reading.sandbox, &reading.usage, reading.timestamp);
    let attributes = PodSandboxAttributes {
        id: s.id.clone(),
        metadata: s.config.metadata.clone(),
        labels: s.config.labels.clone(),
        annotations: s.config.annotations.clone(),
    };
    let interface = |i: &network::Interface| NetworkInterfaceUsage {
        name: i.name.clone(),
        rx_bytes: value(i.received[0]),
        rx_errors: value(i.received[2]),
        tx_bytes: value(i.sent[0]),
        tx_errors: value(i.sent[2]),
    };
    let (default, others): (Vec<_>, Vec<_>) =
        reading.interfaces.iter().map(interface).partition(|i| i.name == "eth0");
    let network = (!reading.interfaces.is_empty()).then(|| NetworkUsage {
        timestamp,
        default_interface: default.into_iter().next(),
        interfaces: others,
    });
    let linux = LinuxPodSandboxStats {
        cpu: cpu_stats(daemon, &s.id, usage, timestamp),
        memory: usage.memory.as_ref().map(|memory| memory_stats(memory, timestamp)),
        network,
        process: usage.threads.map(|count| ProcessUsage { timestamp, process_count: value(count) }),
        containers: reading.containers.iter().map(|c| container_stats(daemon, c)).collect(),
    };
    PodSandboxStats { attributes: Some(attributes), linux: Some(linux), windows: None }
}

fn cpu_stats(daemon: &Daemon, id: &str, usage: &Usage, timestamp: i64) -> Option<CpuUsage> {
    let total = usage.cpu.as_ref()?.total;
    let rate = daemon.stats.samples.rate(id, timestamp, total);
    Some(CpuUsage {
        timestamp,
        usage_core_nano_seconds: value(total),
        usage_nano_cores: rate.and_then(value),
    })
}

fn memory_stats(memory: &Memory, timestamp: i64) -> MemoryUsage {
    MemoryUsage {
        timestamp,
        working_set_bytes: value(memory.working_set()),
        available_bytes: value(memory.available()),
        usage_bytes: value(memory.usage),
        rss_bytes: value(memory.rss),
        page_faults: value(memory.faults),
        major_page_faults: value(memory.major_faults),
    }
}

#[allow(clippy::unnecessary_wraps)] // every field of the API is optional
const fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}
