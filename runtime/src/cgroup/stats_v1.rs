//! Statistics of version 1, hierarchy by hierarchy.

use std::collections::BTreeMap;

use super::directory::Directory;
use super::stats::{
    Blkio, BlockEntry, CpuSet, CpuUsage, HugePages, Memory, MemoryUse, Throttling, Usage, huge_page_sizes,
    number, pids, table,
};

/// USER_HZ, which is part of the kernel's ABI.
const NANOSECONDS_A_TICK: u64 = 1_000_000_000 / 100;

/// Which of the kernel's tables the block controller keeps depends on its scheduler; the first that is there counts.
const BLOCK_PREFIXES: [(&str, &str); 4] = [
    ("blkio.bfq.", "_recursive"),
    ("blkio.", "_recursive"),
    ("blkio.throttle.", "_recursive"),
    ("blkio.throttle.", ""),
];

pub(super) fn read(directories: &BTreeMap<String, Directory>) -> Usage {
    let mut usage = Usage::default();
    if let Some(directory) = directories.get("cpuacct") {
        usage.cpu.usage = cpu_usage(directory);
    }
    if let Some(directory) = directories.get("cpu") {
        usage.cpu.throttling = throttling(&directory.read("cpu.stat").unwrap_or_default());
    }
    if let Some(directory) = directories.get("cpuset") {
        usage.cpuset = cpuset(directory);
    }
    if let Some(directory) = directories.get("memory") {
        usage.memory = memory(directory);
    }
    if let Some(directory) = directories.get("pids") {
        usage.pids = pids(directory);
    }
    if let Some(directory) = directories.get("blkio") {
        usage.blkio = blkio(directory);
    }
    if let Some(directory) = directories.get("hugetlb") {
        usage.hugetlb = hugetlb(directory);
    }
    usage
}

fn cpu_usage(directory: &Directory) -> CpuUsage {
    let ticks = table(&directory.read("cpuacct.stat").unwrap_or_default());
    let time = |key: &str| ticks.get(key).copied().unwrap_or(0) * NANOSECONDS_A_TICK;
    let (percpu_user, percpu_kernel) =
        per_cpu_by_mode(&directory.read("cpuacct.usage_all").unwrap_or_default());
    CpuUsage {
        total: number(directory, "cpuacct.usage"),
        percpu: numbers(&directory.read("cpuacct.usage_percpu").unwrap_or_default()),
        percpu_kernel,
        percpu_user,
        kernel: time("system"),
        user: time("user"),
    }
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Lines `cpu user system` below a heading.
fn per_cpu_by_mode(text: &str) -> (Vec<u64>, Vec<u64>) {
    let line = |line: &str| match numbers(line)[..] {
        [_, user, system, ..] => Some((user, system)),
        _ => None,
    };
    text.lines().skip(1).filter_map(line).unzip()
}

fn throttling(text: &str) -> Throttling {
    let stat = table(text);
    let value = |key: &str| stat.get(key).copied().unwrap_or(0);
    Throttling {
        periods: value("nr_periods"),
        throttled_periods: value("nr_throttled"),
        throttled_time: value("throttled_time"),
    }
}

fn cpuset(directory: &Directory) -> CpuSet {
    let list = |file| range_list(&directory.read(file).unwrap_or_default());
    let level = directory.read("cpuset.sched_relax_domain_level").unwrap_or_default();
    CpuSet {
        cpus: list("cpuset.cpus"),
        cpu_exclusive: number(directory, "cpuset.cpu_exclusive"),
        mems: list("cpuset.mems"),
        mem_hardwall: number(directory, "cpuset.mem_hardwall"),
        mem_exclusive: number(directory, "cpuset.mem_exclusive"),
        memory_migrate: number(directory, "cpuset.memory_migrate"),
        memory_spread_page: number(directory, "cpuset.memory_spread_page"),
        memory_spread_slab: number(directory, "cpuset.memory_spread_slab"),
        memory_pressure: number(directory, "cpuset.memory_pressure"),
        sched_load_balance: number(directory, "cpuset.sched_load_balance"),
        sched_relax_domain_level: level.trim().parse().unwrap_or(0),
    }
}

/// `0-2,5`.
fn range_list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.parse::<u16>().ok()?..=to.parse::<u16>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

fn memory(directory: &Directory) -> Memory {
    let raw = table(&directory.read("memory.stat").unwrap_or_default());
    Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: memory_use(directory, "memory"),
        swap: memory_use(directory, "memory.memsw"),
        kernel: memory_use(directory, "memory.kmem"),
        kernel_tcp: memory_use(directory, "memory.kmem.tcp"),
        raw,
        psi: None,
    }
}

fn memory_use(directory: &Directory, prefix: &str) -> MemoryUse {
    let value = |suffix: &str| number(directory, &format!("{prefix}.{suffix}"));
    MemoryUse {
        limit: value("limit_in_bytes"),
        usage: value("usage_in_bytes"),
        max: value("max_usage_in_bytes"),
        failcnt: value("failcnt"),
    }
}

fn blkio(directory: &Directory) -> Blkio {
    let there = |(prefix, suffix): &&(&str, &str)| directory.has(&format!("{prefix}io_serviced{suffix}"));
    let Some((prefix, suffix)) = BLOCK_PREFIXES.iter().find(there) else { return Blkio::default() };
    let entries =
        |name: &str| block_entries(&directory.read(&format!("{prefix}{name}{suffix}")).unwrap_or_default());
    Blkio {
        io_service_bytes_recursive: entries("io_service_bytes"),
        io_serviced_recursive: entries("io_serviced"),
        io_queue_recursive: entries("io_queued"),
        io_service_time_recursive: entries("io_service_time"),
        io_wait_time_recursive: entries("io_wait_time"),
        io_merged_recursive: entries("io_merged"),
        io_time_recursive: entries("time"),
        sectors_recursive: entries("sectors"),
        psi: None,
    }
}

/// Lines `8:0 Read 4096` or `8:0 6792`, and a line `Total …` that is no device's.
fn block_entries(text: &str) -> Vec<BlockEntry> {
    let entry = |line: &str| {
        let words: Vec<&str> = line.split([' ', ':']).collect();
        let (major, minor, op, value) = match words[..] {
            [major, minor, value] => (major, minor, "", value),
            [major, minor, op, value] => (major, minor, op, value),
            _ => return None,
        };
        Some(BlockEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

fn hugetlb(directory: &Directory) -> BTreeMap<String, HugePages> {
    let pages = |size: String| {
        let reserved = format!("hugetlb.{size}.rsvd");
        // Reservations are counted since Linux 5.7.
        let prefix = if directory.has(&format!("{reserved}.usage_in_bytes")) {
            reserved
        } else {
            format!("hugetlb.{size}")
        };
        let value = |name: &str| number(directory, &format!("{prefix}.{name}"));
        let pages = HugePages {
            usage: value("usage_in_bytes"),
            max: value("max_usage_in_bytes"),
            failcnt: value("failcnt"),
        };
        (size, pages)
    };
    huge_page_sizes().into_iter().map(pages).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_tables() {
        assert_eq!(per_cpu_by_mode("cpu user system\n0 1 2\n1 3 4\n"), (vec![1, 3], vec![2, 4]));
        assert_eq!(range_list("0-2,5\n"), [0, 1, 2, 5]);
        assert!(range_list("\n").is_empty());
        let throttled = throttling("nr_periods 5\nnr_throttled 2\nthrottled_time 77\n");
        assert_eq!(throttled, Throttling { periods: 5, throttled_periods: 2, throttled_time: 77 });
    }

    #[test]
    fn block_devices_without_the_total() {
        let entry = |minor, op: &str, value| BlockEntry { major: 8, minor, op: op.to_owned(), value };
        assert_eq!(
            block_entries("8:0 Read 4096\n8:16 6792\nTotal 10888\n"),
            [entry(0, "Read", 4096), entry(16, "", 6792)]
        );
    }
}
