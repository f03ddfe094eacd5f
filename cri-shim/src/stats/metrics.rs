//! Pod metrics with the names and labels of cAdvisor, so that dashboards go on when the kubelet asks the runtime instead.
//!
//! The table is the list of descriptors and the way to each value at once. The API carries whole numbers: seconds are
//! rounded down.

use k8s_cri::v1::{ContainerMetrics, Metric, MetricDescriptor, MetricType, PodSandboxMetrics, UInt64Value};

use coracle_runtime::cgroup::HostCgroups;

use super::group::{Cpu, Device, Group, Memory, Usage};
use super::network::Interface;
use super::{PodReading, Reading};

/// On every metric, in this order; then those of the metric itself.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

const SECOND: u64 = 1_000_000_000;

/// A metric of a group: name, help, kind, a label of its own with its value, and where the number is.
struct Row<T: 'static> {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    labels: &'static [(&'static str, &'static str)],
    read: fn(&T) -> Option<u64>,
}

const fn row<T>(
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    labels: &'static [(&'static str, &'static str)],
    read: fn(&T) -> Option<u64>,
) -> Row<T> {
    Row { name, help, kind, labels, read }
}

use MetricType::{Counter, Gauge};

const TOTAL: &[(&str, &str)] = &[("cpu", "total")];
const FAULT: &[(&str, &str)] = &[("failure_type", "pgfault"), ("scope", "container")];
const MAJOR_FAULT: &[(&str, &str)] = &[("failure_type", "pgmajfault"), ("scope", "container")];

fn cpu(usage: &Usage, pick: fn(&Cpu) -> u64) -> Option<u64> {
    usage.cpu.as_ref().map(pick)
}

fn memory(usage: &Usage, pick: fn(&Memory) -> u64) -> Option<u64> {
    usage.memory.as_ref().map(pick)
}

/// Of a container, and of the pod as a whole.
const GROUP: &[Row<Usage>] = &[
    row(
        "container_cpu_usage_seconds_total",
        "Cumulative cpu time consumed in seconds.",
        Counter,
        TOTAL,
        |u| cpu(u, |c| c.total / SECOND),
    ),
    row(
        "container_cpu_user_seconds_total",
        "Cumulative user cpu time consumed in seconds.",
        Counter,
        &[],
        |u| cpu(u, |c| c.user / SECOND),
    ),
    row(
        "container_cpu_system_seconds_total",
        "Cumulative system cpu time consumed in seconds.",
        Counter,
        &[],
        |u| cpu(u, |c| c.system / SECOND),
    ),
    row(
        "container_cpu_cfs_periods_total",
        "Number of elapsed enforcement period intervals.",
        Counter,
        &[],
        |u| cpu(u, |c| c.periods),
    ),
    row(
        "container_cpu_cfs_throttled_periods_total",
        "Number of throttled period intervals.",
        Counter,
        &[],
        |u| cpu(u, |c| c.throttled_periods),
    ),
    row(
        "container_cpu_cfs_throttled_seconds_total",
        "Total time duration the container has been throttled.",
        Counter,
        &[],
        |u| cpu(u, |c| c.throttled / SECOND),
    ),
    row(
        "container_memory_usage_bytes",
        "Current memory usage in bytes, whenever accessed.",
        Gauge,
        &[],
        |u| memory(u, |m| m.usage),
    ),
    row("container_memory_working_set_bytes", "Current working set in bytes.", Gauge, &[], |u| {
        memory(u, Memory::working_set)
    }),
    row("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes.", Gauge, &[], |u| {
        memory(u, |m| m.max_usage)
    }),
    row("container_memory_rss", "Size of RSS in bytes.", Gauge, &[], |u| memory(u, |m| m.rss)),
    row("container_memory_cache", "Number of bytes of page cache memory.", Gauge, &[], |u| {
        memory(u, |m| m.cache)
    }),
    row("container_memory_mapped_file", "Size of memory mapped files in bytes.", Gauge, &[], |u| {
        memory(u, |m| m.mapped_file)
    }),
    row("container_memory_total_active_file_bytes", "Current total active file in bytes.", Gauge, &[], |u| {
        memory(u, |m| m.active_file)
    }),
    row(
        "container_memory_total_inactive_file_bytes",
        "Current total inactive file in bytes.",
        Gauge,
        &[],
        |u| memory(u, |m| m.inactive_file),
    ),
    row("container_memory_swap", "Container swap usage in bytes.", Gauge, &[], |u| {
        memory(u, |m| m.swap.map_or(0, |s| s.usage))
    }),
    row("container_memory_failcnt", "Number of memory usage hits limits.", Counter, &[], |u| {
        memory(u, |m| m.failcnt)
    }),
    row(
        "container_memory_failures_total",
        "Cumulative count of memory allocation failures.",
        Counter,
        FAULT,
        |u| memory(u, |m| m.faults),
    ),
    row(
        "container_memory_failures_total",
        "Cumulative count of memory allocation failures.",
        Counter,
        MAJOR_FAULT,
        |u| memory(u, |m| m.major_faults),
    ),
    row("container_oom_events_total", "Count of out of memory events observed.", Counter, &[], |u| {
        memory(u, |m| m.oom_kills)
    }),
    row("container_threads", "Number of threads running inside the container.", Gauge, &[], |u| u.threads),
    row(
        "container_threads_max",
        "Maximum number of threads allowed inside the container.",
        Gauge,
        &[],
        |u| u.threads.map(|_| u.threads_max),
    ),
    row("container_processes", "Number of processes running inside the container.", Gauge, &[], |u| {
        u.processes
    }),
    row("container_memory_kernel_usage", "Size of kernel memory allocated in bytes.", Gauge, &[], |u| {
        memory(u, |m| m.kernel)
    }),
];

/// Of a container alone.
const CONTAINER: &[Row<Reading>] = &[
    row(
        "container_fs_limit_bytes",
        "Number of bytes that can be consumed by the container.",
        Gauge,
        &[],
        |r| r.written.map(|w| w.disk.bytes),
    ),
    row("container_fs_inodes_total", "Number of inodes.", Gauge, &[], |r| r.written.map(|w| w.disk.inodes)),
    row("container_fs_inodes_free", "Number of available inodes.", Gauge, &[], |r| {
        r.written.map(|w| w.disk.inodes_free)
    }),
    row("container_spec_memory_swap_limit_bytes", "Memory swap limit for the container.", Gauge, &[], |r| {
        memory(&r.usage, |m| m.swap.map_or(0, |s| s.limit))
    }),
    row("container_fs_usage_bytes", "Number of bytes that are consumed by the container.", Gauge, &[], |r| {
        r.written.map(|w| w.bytes)
    }),
    row("container_spec_memory_limit_bytes", "Memory limit for the container.", Gauge, &[], |r| {
        r.usage.memory.as_ref().map(|m| m.limit.unwrap_or(0))
    }),
    row("container_spec_cpu_shares", "CPU share of the container.", Gauge, &[], |r| {
        resources(r, |l| l.cpu_shares)
    }),
    row("container_spec_cpu_period", "CPU period of the container.", Gauge, &[], |r| {
        resources(r, |l| l.cpu_period)
    }),
    row("container_spec_cpu_quota", "CPU quota of the container.", Gauge, &[], |r| {
        resources(r, |l| l.cpu_quota)
    }),
    row(
        "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds.",
        Gauge,
        &[],
        |r| u64::try_from(r.container.started_at).ok().map(|at| at / SECOND),
    ),
    row("container_last_seen", "Last time a container was seen by the exporter.", Gauge, &[], |r| {
        u64::try_from(r.timestamp).ok().map(|at| at / SECOND)
    }),
];

/// Descriptors that the processes of a container hold.
#[derive(Debug, Default, PartialEq, Eq)]
struct Open {
    files: u64,
    sockets: u64,
}

const OPEN: &[Row<Open>] = &[
    row(
        "container_file_descriptors",
        "Number of open file descriptors for the container.",
        Gauge,
        &[],
        |o| Some(o.files),
    ),
    row("container_sockets", "Number of open sockets for the container.", Gauge, &[], |o| Some(o.sockets)),
];

const READ: &[(&str, &str)] = &[("operation", "Read")];
const WRITE: &[(&str, &str)] = &[("operation", "Write")];

/// Of each block device that a container used; with the device's name.
const DEVICE: &[Row<Device>] = &[
    row("container_fs_reads_total", "Cumulative count of reads completed.", Counter, &[], |d| Some(d.reads)),
    row("container_fs_reads_bytes_total", "Cumulative count of bytes read.", Counter, &[], |d| {
        Some(d.read_bytes)
    }),
    row("container_fs_writes_total", "Cumulative count of writes completed.", Counter, &[], |d| {
        Some(d.writes)
    }),
    row("container_fs_writes_bytes_total", "Cumulative count of bytes written.", Counter, &[], |d| {
        Some(d.written_bytes)
    }),
];

/// The same with the device's numbers.
const BLKIO: &[Row<Device>] = &[
    row("container_blkio_device_usage_total", "Blkio device bytes usage.", Counter, READ, |d| {
        Some(d.read_bytes)
    }),
    row("container_blkio_device_usage_total", "Blkio device bytes usage.", Counter, WRITE, |d| {
        Some(d.written_bytes)
    }),
];

/// Of each interface of a pod.
const INTERFACE: &[Row<Interface>] = &[
    row("container_network_receive_bytes_total", "Cumulative count of bytes received.", Counter, &[], |i| {
        Some(i.received[0])
    }),
    row(
        "container_network_receive_packets_total",
        "Cumulative count of packets received.",
        Counter,
        &[],
        |i| Some(i.received[1]),
    ),
    row(
        "container_network_receive_errors_total",
        "Cumulative count of errors while receiving.",
        Counter,
        &[],
        |i| Some(i.received[2]),
    ),
    row(
        "container_network_receive_packets_dropped_total",
        "Cumulative count of packets dropped while receiving.",
        Counter,
        &[],
        |i| Some(i.received[3]),
    ),
    row(
        "container_network_transmit_bytes_total",
        "Cumulative count of bytes transmitted.",
        Counter,
        &[],
        |i| Some(i.sent[0]),
    ),
    row(
        "container_network_transmit_packets_total",
        "Cumulative count of packets transmitted.",
        Counter,
        &[],
        |i| Some(i.sent[1]),
    ),
    row(
        "container_network_transmit_errors_total",
        "Cumulative count of errors while transmitting.",
        Counter,
        &[],
        |i| Some(i.sent[2]),
    ),
    row(
        "container_network_transmit_packets_dropped_total",
        "Cumulative count of packets dropped while transmitting.",
        Counter,
        &[],
        |i| Some(i.sent[3]),
    ),
];

fn resources(reading: &Reading, pick: fn(&k8s_cri::v1::LinuxContainerResources) -> i64) -> Option<u64> {
    let resources = reading.container.config.linux.as_ref()?.resources.as_ref()?;
    u64::try_from(pick(resources)).ok().filter(|value| *value > 0)
}

/// What is served, each name once.
pub(super) fn descriptors() -> Vec<MetricDescriptor> {
    let mut all: Vec<MetricDescriptor> = Vec::new();
    let mut add = |name: &str, help: &str, own: &[&str], labels: &[(&str, &str)]| {
        if all.iter().all(|known| known.name != name) {
            let fixed = labels.iter().map(|(key, _)| *key);
            let label_keys =
                LABELS.into_iter().chain(own.iter().copied()).chain(fixed).map(str::to_owned).collect();
            all.push(MetricDescriptor { name: name.into(), help: help.into(), label_keys });
        }
    };
    GROUP.iter().for_each(|r| add(r.name, r.help, &[], r.labels));
    CONTAINER.iter().for_each(|r| add(r.name, r.help, &[], r.labels));
    OPEN.iter().for_each(|r| add(r.name, r.help, &[], r.labels));
    DEVICE.iter().for_each(|r| add(r.name, r.help, &["device"], r.labels));
    BLKIO.iter().for_each(|r| add(r.name, r.help, &["device", "major", "minor"], r.labels));
    INTERFACE.iter().for_each(|r| add(r.name, r.help, &["interface"], r.labels));
    all
}

/// All metrics of a pod; reads the descriptors of its processes, so it blocks.
pub(super) fn of_pod(pod: &PodReading, host: &HostCgroups) -> PodSandboxMetrics {
    let metadata = pod.sandbox.config.metadata.clone().unwrap_or_default();
    let base = |container: &str, id: &str, image: &str, name: &str| {
        [container, id, image, name, &metadata.namespace, &metadata.name].map(str::to_owned).to_vec()
    };
    let parent = pod.sandbox.cgroup_parent.trim_end_matches('/');
    let labels = base("", parent, "", &pod.sandbox.id);
    let mut metrics = rows(GROUP, &pod.usage, &labels, &[], pod.timestamp);
    for interface in &pod.interfaces {
        metrics.extend(rows(
            INTERFACE,
            interface,
            &labels,
            std::slice::from_ref(&interface.name),
            pod.timestamp,
        ));
    }
    let containers = pod.containers.iter().map(|reading| {
        let c = &reading.container;
        let name = c.config.metadata.as_ref().map(|m| m.name.as_str()).unwrap_or_default();
        let labels = base(name, &format!("{parent}/{}", c.id), &c.image_ref, &c.id);
        let mut metrics = rows(GROUP, &reading.usage, &labels, &[], reading.timestamp);
        metrics.extend(rows(CONTAINER, reading, &labels, &[], reading.timestamp));
        metrics.extend(rows(OPEN, &open_of(host, c.pid), &labels, &[], reading.timestamp));
        for device in &reading.usage.devices {
            let (major, minor) = device.number;
            let own = [device_name(device.number), major.to_string(), minor.to_string()];
            metrics.extend(rows(DEVICE, device, &labels, &own[..1], reading.timestamp));
            metrics.extend(rows(BLKIO, device, &labels, &own, reading.timestamp));
        }
        ContainerMetrics { container_id: c.id.clone(), metrics }
    });
    PodSandboxMetrics {
        pod_sandbox_id: pod.sandbox.id.clone(),
        metrics,
        container_metrics: containers.collect(),
    }
}

/// Counts what the processes of a container's group hold open.
fn open_of(host: &HostCgroups, pid: i32) -> Open {
    let processes = Group::of_process(host, pid).map(|group| group.processes()).unwrap_or_default();
    let mut open = Open::default();
    for pid in processes {
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            open.files += 1;
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            open.sockets += u64::from(target.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
        }
    }
    open
}

/// `/dev/sda` for its numbers, where the kernel tells.
fn device_name((major, minor): (u32, u32)) -> String {
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).unwrap_or_default();
    link.file_name().map(|name| format!("/dev/{}", name.to_string_lossy())).unwrap_or_default()
}

fn rows<T>(table: &[Row<T>], from: &T, labels: &[String], own: &[String], timestamp: i64) -> Vec<Metric> {
    let metric = |row: &Row<T>| {
        let mut label_values = labels.to_vec();
        label_values.extend(own.iter().cloned());
        label_values.extend(row.labels.iter().map(|(_, value)| (*value).to_owned()));
        Some(Metric {
            name: row.name.into(),
            timestamp,
            metric_type: row.kind as i32,
            label_values,
            value: Some(UInt64Value { value: (row.read)(from)? }),
        })
    };
    table.iter().filter_map(metric).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Container, Sandbox};

    #[test]
    fn every_metric_has_a_value_for_each_label_of_its_descriptor() {
        let usage = Usage {
            cpu: Some(Cpu::default()),
            memory: Some(Memory::default()),
            threads: Some(1),
            processes: Some(1),
            devices: vec![Device::default()],
            ..Usage::default()
        };
        let reading =
            Reading { container: Container::default(), usage: usage.clone(), written: None, timestamp: 7 };
        let pod = PodReading {
            sandbox: Sandbox::default(),
            usage,
            interfaces: vec![Interface { name: "eth0".into(), ..Interface::default() }],
            containers: vec![reading],
            timestamp: 7,
        };
        let descriptors = descriptors();
        let keys = |name: &str| &descriptors.iter().find(|d| d.name == name).expect("described").label_keys;
        let all = of_pod(&pod, &HostCgroups::default());
        let metrics: Vec<_> = all.metrics.iter().chain(&all.container_metrics[0].metrics).collect();
        assert!(metrics.len() > 50, "{}", metrics.len());
        for metric in metrics {
            assert_eq!(metric.label_values.len(), keys(&metric.name).len(), "{}", metric.name);
        }
    }
}
