//! The report: rows of samples to a page in Markdown.

use std::fmt::Write;
use std::time::Duration;

use crate::measure::Sample;

/// One candidate in one operation at one pace.
pub struct Row {
    pub operation: &'static str,
    pub pace: &'static str,
    pub runtime: String,
    pub samples: Vec<Sample>,
    pub syscalls: Option<u64>,
}

const HEAD: &str = "\
# Performance

Written by `cargo xtask bench`: the default bundle of `runc spec` with `/bin/true` of busybox, candidates in turns within
one run, on the machine named below. `floor` is the bare kernel work (`bench/src/bin/floor.rs`). Wall time is the median
(minimum) in milliseconds; processor time, page faults and system calls are of all processes of the operation. Ratios
within a row group mean something, bare times do not. What was done about them is in
[decision 0020](decisions/0020-cost-of-a-start.md).
";

/// The head of the page with its table.
pub fn head(rows: &[Row]) -> String {
    format!("{HEAD}\nMachine: {}. Bundles and state on ext4.\n\n{}", machine(), table(rows))
}

/// A chapter with a table.
pub fn chapter(title: &str, rows: &[Row]) -> String {
    format!("\n## {title}\n{}", table(rows))
}

fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    text.push_str("| operation | pace | candidate | wall ms | × floor | × best runtime peer | CPU ms | page faults | system calls |\n");
    text.push_str("|---|---|---|---:|---:|---:|---:|---:|---:|\n");
    for row in rows {
        let wall = median(row, |sample| sample.wall.as_secs_f64() * 1e3);
        let least =
            row.samples.iter().map(|sample| sample.wall).min().unwrap_or(Duration::ZERO).as_secs_f64() * 1e3;
        let cpu = median(row, |sample| sample.cpu.as_secs_f64() * 1e3);
        #[allow(clippy::cast_precision_loss)]
        let faults = median(row, |sample| sample.page_faults as f64);
        let times = |of: Option<f64>| of.map_or_else(|| "–".to_owned(), |of| format!("{:.2}", wall / of));
        let (floor, ratio) = (times(floor(rows, row)), times(peer(rows, row)));
        let syscalls = row.syscalls.map_or_else(|| "–".to_owned(), |count| count.to_string());
        let name = row.runtime.trim_start_matches("coracle-");
        let _ = writeln!(
            text,
            "| {} | {} | {name} | {wall:.2} ({least:.2}) | {floor} | {ratio} | {cpu:.2} | {faults:.0} | {syscalls} |",
            row.operation, row.pace
        );
    }
    text
}

/// The median wall time of the floor in the same operation and pace.
fn floor(rows: &[Row], of: &Row) -> Option<f64> {
    let same = |row: &&Row| row.operation == of.operation && row.pace == of.pace;
    let floor = rows.iter().filter(same).find(|row| row.runtime == "coracle-floor")?;
    Some(median(floor, |sample| sample.wall.as_secs_f64() * 1e3))
}

/// The median wall time of the fastest peer in the same operation and pace.
fn peer(rows: &[Row], of: &Row) -> Option<f64> {
    let same = rows.iter().filter(|row| row.operation == of.operation && row.pace == of.pace);
    let peers = same.filter(|row| !row.runtime.starts_with("coracle"));
    peers.map(|row| median(row, |sample| sample.wall.as_secs_f64() * 1e3)).min_by(f64::total_cmp)
}

fn median(row: &Row, value: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = row.samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn machine() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores, {}, Linux {}", model.trim_start_matches([' ', '\t', ':']), release.trim())
}
