//! `coraclectl stats`.

use std::process::ExitCode;
use std::time::Duration;

use k8s_cri::v1::{ContainerStats, CpuUsage, ListContainerStatsRequest, UInt64Value};
use serde_json::json;

use super::names::{Known, pod_name};
use super::{Format, Node, short};
use crate::ctl::failure::Failure;
use crate::ctl::{Cli, output};

#[derive(clap::Args)]
#[command(after_help = "CPU is what was used within the last second, in percent of one core.")]
pub(in crate::ctl) struct Args {
    /// Only containers of this pod
    #[arg(short, long)]
    pod: Option<String>,

    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// Between the two looks at the processor time: the interval is what is measured.
const INTERVAL: Duration = Duration::from_secs(1);

pub(in crate::ctl) fn run(cli: &Cli, args: &Args) -> Result<ExitCode, Failure> {
    let node = cli.node()?;
    let known = Known::load(&node)?;
    let pod = args.pod.as_deref().map(|text| known.pod(text)).transpose()?;
    let before = read(&node)?;
    node.wait(async { tokio::time::sleep(INTERVAL).await });
    let mut usages: Vec<Usage> = read(&node)?.iter().map(|stats| Usage::of(&known, &before, stats)).collect();
    usages.retain(|usage| pod.is_none_or(|pod| usage.pod_id == pod.id));
    usages.sort_by(|a, b| (&a.pod, &a.container).cmp(&(&b.pod, &b.container)));
    match args.format {
        Format::Json => output::json(&usages.iter().map(Usage::json).collect::<Vec<_>>()),
        Format::Table => {
            let rows: Vec<_> = usages.iter().map(Usage::row).collect();
            output::table(&["CONTAINER", "POD", "CPU %", "CPU TIME", "MEMORY", "DISK", "ID"], &rows);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(node: &Node) -> Result<Vec<ContainerStats>, Failure> {
    Ok(node.ask(node.cri().list_container_stats(ListContainerStatsRequest::default()))?.stats)
}

struct Usage {
    id: String,
    container: String,
    pod: String,
    pod_id: String,
    /// Of one core, within the interval; None for a container that is new.
    percent: Option<f64>,
    nanoseconds: u64,
    memory: u64,
    disk: u64,
}

impl Usage {
    fn of(known: &Known, before: &[ContainerStats], stats: &ContainerStats) -> Self {
        let attributes = stats.attributes.clone().unwrap_or_default();
        let container = known.containers.iter().find(|container| container.id == attributes.id);
        let pod = container.and_then(|container| known.pod_of(container));
        let is_same =
            |stats: &&ContainerStats| stats.attributes.as_ref().is_some_and(|data| data.id == attributes.id);
        let earlier = before.iter().find(is_same);
        let cpu = |stats: &ContainerStats| stats.cpu.unwrap_or_default();
        let memory = stats.memory.unwrap_or_default();
        Self {
            container: attributes.metadata.map(|data| data.name).unwrap_or_default(),
            pod: pod.map(pod_name).unwrap_or_default().to_owned(),
            pod_id: container.map(|container| container.pod_sandbox_id.clone()).unwrap_or_default(),
            percent: earlier.and_then(|earlier| percent(&cpu(earlier), &cpu(stats))),
            nanoseconds: value(cpu(stats).usage_core_nano_seconds.as_ref()),
            memory: value(memory.working_set_bytes.as_ref()),
            disk: value(stats.writable_layer.as_ref().and_then(|layer| layer.used_bytes.as_ref())),
            id: attributes.id,
        }
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.container.clone(),
            self.pod.clone(),
            self.percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1}")),
            format!("{:.1} s", Duration::from_nanos(self.nanoseconds).as_secs_f64()),
            output::size(self.memory),
            output::size(self.disk),
            short(&self.id),
        ]
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "id": self.id, "name": self.container, "pod": self.pod, "podId": self.pod_id,
            "cpuPercent": self.percent, "cpuNanoseconds": self.nanoseconds, "memoryBytes": self.memory,
            "diskBytes": self.disk,
        })
    }
}

/// From two looks at a counter; None where the clock of the counter stood still.
fn percent(before: &CpuUsage, after: &CpuUsage) -> Option<f64> {
    let used = value(after.usage_core_nano_seconds.as_ref())
        .saturating_sub(value(before.usage_core_nano_seconds.as_ref()));
    let passed = u64::try_from(after.timestamp - before.timestamp).ok().filter(|passed| *passed > 0)?;
    #[allow(clippy::cast_precision_loss)]
    Some(100.0 * used as f64 / passed as f64)
}

fn value(of: Option<&UInt64Value>) -> u64 {
    of.map_or(0, |number| number.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_of_one_core() {
        let usage = |timestamp, value| CpuUsage {
            timestamp,
            usage_core_nano_seconds: Some(UInt64Value { value }),
            ..CpuUsage::default()
        };
        assert_eq!(percent(&usage(0, 0), &usage(1000, 250)), Some(25.0));
        assert_eq!(percent(&usage(5, 0), &usage(5, 250)), None);
    }
}
