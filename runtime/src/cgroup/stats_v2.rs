//! Statistics of version 2, under version 1's names.

use std::collections::BTreeMap;

use super::directory::Directory;
use super::stats::{
    Blkio, BlockEntry, Cpu, CpuUsage, HugePages, Memory, MemoryUse, Pids, Pressure, Stall, Throttling, Usage,
    huge_page_sizes, number, pids, table,
};

pub(super) fn read(directory: &Directory) -> Usage {
    Usage {
        cpu: cpu(directory),
        memory: memory(directory),
        pids: count(directory),
        blkio: blkio(directory),
        hugetlb: hugetlb(directory),
        ..Usage::default()
    }
}

fn cpu(directory: &Directory) -> Cpu {
    let stat = table(&directory.read("cpu.stat").unwrap_or_default());
    let value = |key: &str| stat.get(key).copied().unwrap_or(0);
    let nanoseconds = |key: &str| value(key) * 1000;
    Cpu {
        usage: CpuUsage {
            total: nanoseconds("usage_usec"),
            kernel: nanoseconds("system_usec"),
            user: nanoseconds("user_usec"),
            ..CpuUsage::default()
        },
        throttling: Throttling {
            periods: value("nr_periods"),
            throttled_periods: value("nr_throttled"),
            throttled_time: nanoseconds("throttled_usec"),
        },
        psi: pressure(directory, "cpu.pressure"),
    }
}

fn memory(directory: &Directory) -> Memory {
    let raw = table(&directory.read("memory.stat").unwrap_or_default());
    let usage = memory_use(directory, "memory");
    let swap = memory_use(directory, "memory.swap");
    // A sum of two peaks would be no peak.
    let both = MemoryUse {
        limit: if swap.limit == u64::MAX { u64::MAX } else { swap.limit.saturating_add(usage.limit) },
        usage: swap.usage + usage.usage,
        max: 0,
        failcnt: swap.failcnt,
    };
    Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        swap: both,
        raw,
        psi: pressure(directory, "memory.pressure"),
        ..Memory::default()
    }
}

fn memory_use(directory: &Directory, prefix: &str) -> MemoryUse {
    let value = |suffix: &str| number(directory, &format!("{prefix}.{suffix}"));
    MemoryUse { limit: value("max"), usage: value("current"), max: value("peak"), failcnt: 0 }
}

/// Where the controller is not enabled, the processes are counted.
fn count(directory: &Directory) -> Pids {
    if directory.has("pids.current") {
        return pids(directory);
    }
    let lines = |file| directory.read(file).map(|text| text.lines().count());
    let count = lines("cgroup.procs").or_else(|_| lines("cgroup.threads")).unwrap_or(0);
    Pids { current: u64::try_from(count).unwrap_or(0), limit: 0 }
}

fn blkio(directory: &Directory) -> Blkio {
    let (bytes, operations) = block_entries(&directory.read("io.stat").unwrap_or_default());
    Blkio {
        io_service_bytes_recursive: bytes,
        io_serviced_recursive: operations,
        psi: pressure(directory, "io.pressure"),
        ..Blkio::default()
    }
}

/// Lines `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`: bytes and operations.
fn block_entries(text: &str) -> (Vec<BlockEntry>, Vec<BlockEntry>) {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|word| word.split_once(':'));
        let Some((Ok(major), Ok(minor))) = device.map(|(major, minor)| (major.parse(), minor.parse())) else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (table, op) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                _ => continue,
            };
            let value = value.parse().unwrap_or(0);
            table.push(BlockEntry { major, minor, op: op.to_owned(), value });
        }
    }
    (bytes, operations)
}

fn hugetlb(directory: &Directory) -> BTreeMap<String, HugePages> {
    let pages = |size: String| {
        let reserved = format!("hugetlb.{size}.rsvd.current");
        let current =
            directory.number(&reserved).or_else(|_| directory.number(&format!("hugetlb.{size}.current")));
        let events = table(&directory.read(&format!("hugetlb.{size}.events")).unwrap_or_default());
        let failcnt = events.get("max").copied().unwrap_or(0);
        Some((size, HugePages { usage: current.ok()?, max: 0, failcnt }))
    };
    huge_page_sizes().into_iter().filter_map(pages).collect()
}

/// `None` where the kernel keeps none, or refuses (`psi=1` is missing on its command line).
fn pressure(directory: &Directory, file: &str) -> Option<Pressure> {
    directory.read(file).ok().map(|text| parse_pressure(&text))
}

fn parse_pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let stall = match words.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            set(stall, key, value);
        }
    }
    pressure
}

fn set(stall: &mut Stall, key: &str, value: &str) {
    match key {
        "avg10" => stall.avg10 = value.parse().unwrap_or(0.0),
        "avg60" => stall.avg60 = value.parse().unwrap_or(0.0),
        "avg300" => stall.avg300 = value.parse().unwrap_or(0.0),
        "total" => stall.total = value.parse().unwrap_or(0),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_of_both_kinds() {
        let text = "some avg10=1.50 avg60=0.20 avg300=0.00 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.10 total=7\n";
        let pressure = parse_pressure(text);
        assert_eq!(pressure.some, Stall { avg10: 1.5, avg60: 0.2, avg300: 0.0, total: 99 });
        assert_eq!(pressure.full, Stall { avg10: 0.0, avg60: 0.0, avg300: 0.1, total: 7 });
    }

    #[test]
    fn io_by_device() {
        let (bytes, operations) =
            block_entries("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n254:0\n");
        let entry = |op: &str, value| BlockEntry { major: 8, minor: 16, op: op.to_owned(), value };
        assert_eq!(bytes, [entry("Read", 1), entry("Write", 2)]);
        assert_eq!(operations, [entry("Read", 3), entry("Write", 4)]);
    }
}
