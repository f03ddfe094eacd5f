//! The section of docs/performance.md.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::life::{Network, STEPS};

/// Where the section begins; what stands before belongs to the other bench.
pub const SECTION: &str = "## Pods\n";

/// Times of the calls of one candidate.
pub struct Calls {
    pub candidate: &'static str,
    pub network: Network,
    /// By step.
    pub samples: Vec<Vec<Duration>>,
}

/// Many pods at once.
pub struct Crowd {
    pub candidate: &'static str,
    pub up: Duration,
    pub down: Duration,
    pub helpers: u64,
    pub daemon: u64,
}

pub fn render(calls: &[Calls], crowds: &[Crowd], rounds: usize, pods: usize) -> String {
    let mut text = format!(
        "{SECTION}\nWritten by `cargo xtask bench cri`: `coracled` with its own runtime beside Debian's containerd with runc \
         and with crun, over\nthe CRI, in one run on the machine named above. {rounds} rounds, candidates in turns, one pod of one \
         busybox container; median (95th\npercentile) in milliseconds. Host network: no network is made. Pod network: the \
         embedded one against the CNI plugins bridge,\nhost-local and portmap. `coracled` makes a container's process in \
         CreateContainer, containerd in StartContainer:\ncompare the two together.\n"
    );
    for (network, title) in [(Network::Host, "host network"), (Network::Pod, "pod network")] {
        let of: Vec<&Calls> = calls.iter().filter(|calls| calls.network == network).collect();
        let _ = write!(text, "\n| {title} |");
        of.iter().for_each(|calls| text.push_str(&format!(" {} |", calls.candidate)));
        let _ = writeln!(text, "\n|---|{}", "---:|".repeat(of.len()));
        for (step, name) in STEPS.iter().enumerate() {
            let _ = write!(text, "| {name} |");
            for calls in &of {
                let (median, high) = spread(&calls.samples[step]);
                let _ = write!(text, " {median:.1} ({high:.1}) |");
            }
            text.push('\n');
        }
    }
    let _ = writeln!(
        text,
        "\n{pods} pods with the pod network, ten at a time. Memory is the proportional set size of what is there for pods and is \
         no\ncontainer's: monitors, or shims and pause containers; and what the daemon grew by.\n\n\
         | {pods} pods | up s | down s | monitor or shim and pause, MB a pod | daemon, MB a pod |\n|---|---:|---:|---:|---:|"
    );
    for crowd in crowds {
        let share = |bytes: u64| megabytes(bytes) / megabytes(pods as u64 * 1_000_000);
        let _ = writeln!(
            text,
            "| {} | {:.1} | {:.1} | {:.2} | {:.2} |",
            crowd.candidate,
            crowd.up.as_secs_f64(),
            crowd.down.as_secs_f64(),
            share(crowd.helpers),
            share(crowd.daemon)
        );
    }
    text
}

#[allow(clippy::cast_precision_loss)]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Median and 95th percentile in milliseconds.
fn spread(samples: &[Duration]) -> (f64, f64) {
    let mut sorted = samples.to_vec();
    sorted.sort();
    let at = |share: usize| sorted.get((sorted.len() * share / 100).min(sorted.len().saturating_sub(1)));
    let milliseconds = |of: Option<&Duration>| of.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    (milliseconds(at(50)), milliseconds(at(95)))
}

/// Prints the section and puts it in the place of the one that the page has.
pub fn write(page: &Path, section: &str) -> Result<(), String> {
    println!("{section}");
    let old = std::fs::read_to_string(page).unwrap_or_default();
    let before = old.split(SECTION).next().unwrap_or_default().trim_end();
    std::fs::write(page, format!("{before}\n\n{section}")).map_err(|e| format!("{}: {e}", page.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_percentile() {
        let samples: Vec<Duration> = (1..=20).map(Duration::from_millis).collect();
        assert_eq!(spread(&samples), (11.0, 20.0));
        assert_eq!(spread(&[]), (0.0, 0.0));
    }
}
