//! What a group uses, in the form of runc's `events`, which Docker, podman and cAdvisor read.
//!
//! The form is the same for both versions: version 2's values are shown under version 1's names. A file that a kernel or a
//! hierarchy lacks leaves its values at 0, and like Go's `omitempty` a 0 is left out where runc leaves it out.

use std::collections::BTreeMap;

use serde::Serialize;

use super::directory::{Directory, parse_number};
use super::{stats_v1, stats_v2};

/// Everything that runc shows.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(super) struct Usage {
    pub cpu: Cpu,
    pub cpuset: CpuSet,
    pub memory: Memory,
    pub pids: Pids,
    pub blkio: Blkio,
    pub hugetlb: BTreeMap<String, HugePages>,
    /// Groups of resctrl are refused with the configuration.
    pub intel_rdt: BTreeMap<(), ()>,
    /// runc knows the interfaces that it made itself, which are none.
    pub network_interfaces: Option<()>,
}

#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(super) struct Cpu {
    #[serde(skip_serializing_if = "is_unset")]
    pub usage: CpuUsage,
    #[serde(skip_serializing_if = "is_unset")]
    pub throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// In nanoseconds.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(super) struct CpuUsage {
    #[serde(skip_serializing_if = "is_unset")]
    pub total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    pub kernel: u64,
    pub user: u64,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Throttling {
    #[serde(skip_serializing_if = "is_unset")]
    pub periods: u64,
    #[serde(skip_serializing_if = "is_unset")]
    pub throttled_periods: u64,
    #[serde(skip_serializing_if = "is_unset")]
    pub throttled_time: u64,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(super) struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// In bytes.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Memory {
    #[serde(skip_serializing_if = "is_unset")]
    pub cache: u64,
    #[serde(skip_serializing_if = "is_unset")]
    pub usage: MemoryUse,
    /// Memory and swap together, as version 1 counts.
    #[serde(skip_serializing_if = "is_unset")]
    pub swap: MemoryUse,
    #[serde(skip_serializing_if = "is_unset")]
    pub kernel: MemoryUse,
    #[serde(rename = "kernelTCP", skip_serializing_if = "is_unset")]
    pub kernel_tcp: MemoryUse,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct MemoryUse {
    pub limit: u64,
    #[serde(skip_serializing_if = "is_unset")]
    pub usage: u64,
    #[serde(skip_serializing_if = "is_unset")]
    pub max: u64,
    pub failcnt: u64,
}

/// A limit of 0 is none.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Pids {
    #[serde(skip_serializing_if = "is_unset")]
    pub current: u64,
    #[serde(skip_serializing_if = "is_unset")]
    pub limit: u64,
}

#[derive(Debug, Default, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_queue_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlockEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(super) struct BlockEntry {
    #[serde(skip_serializing_if = "is_unset")]
    pub major: u64,
    #[serde(skip_serializing_if = "is_unset")]
    pub minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    #[serde(skip_serializing_if = "is_unset")]
    pub value: u64,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(super) struct HugePages {
    #[serde(skip_serializing_if = "is_unset")]
    pub usage: u64,
    #[serde(skip_serializing_if = "is_unset")]
    pub max: u64,
    pub failcnt: u64,
}

/// Pressure stall information.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(super) struct Pressure {
    #[serde(skip_serializing_if = "is_unset")]
    pub some: Stall,
    #[serde(skip_serializing_if = "is_unset")]
    pub full: Stall,
}

#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(super) struct Stall {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

fn is_unset<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads all of it.
pub(super) fn read(directories: &BTreeMap<String, Directory>) -> Usage {
    match directories.get("").filter(|_| directories.len() == 1) {
        Some(unified) => stats_v2::read(unified),
        None => stats_v1::read(directories),
    }
}

/// One number, or 0.
pub(super) fn number(directory: &Directory, file: &str) -> u64 {
    directory.number(file).unwrap_or(0)
}

/// runc shows "no limit" as 0.
pub(super) fn pids(directory: &Directory) -> Pids {
    let limit = directory.number("pids.max").ok().filter(|limit| *limit != u64::MAX);
    Pids { current: number(directory, "pids.current"), limit: limit.unwrap_or(0) }
}

/// Lines of a key and a number.
pub(super) fn table(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), parse_number(value)?))
    };
    text.lines().filter_map(pair).collect()
}

/// The sizes of huge pages as control groups name them (`2MB`), from the kernel's directory of them.
pub(super) fn huge_page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    entries.filter_map(|entry| huge_page_size(&entry.file_name().to_string_lossy())).collect()
}

fn huge_page_size(name: &str) -> Option<String> {
    let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kib {
        1_048_576.. => format!("{}GB", kib >> 20),
        1024.. => format!("{}MB", kib >> 10),
        _ => format!("{kib}KB"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_left_out_where_runc_leaves_them_out() {
        let shown = serde_json::to_value(Usage::default()).unwrap();
        let cpuset = serde_json::json!({
            "cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0, "memory_migrate": 0, "memory_spread_page": 0,
            "memory_spread_slab": 0, "memory_pressure": 0, "sched_load_balance": 0, "sched_relax_domain_level": 0,
        });
        let want = serde_json::json!({
            "cpu": {}, "cpuset": cpuset, "memory": {}, "pids": {}, "blkio": {}, "hugetlb": {}, "intel_rdt": {},
            "network_interfaces": null,
        });
        assert_eq!(shown, want);
    }

    #[test]
    fn huge_pages_have_the_names_of_their_files() {
        for (name, want) in [
            ("hugepages-64kB", Some("64KB")),
            ("hugepages-2048kB", Some("2MB")),
            ("hugepages-1048576kB", Some("1GB")),
            ("hugepages-x", None),
        ] {
            assert_eq!(huge_page_size(name).as_deref(), want, "{name}");
        }
    }
}
