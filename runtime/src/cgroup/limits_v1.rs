//! Limits on version 1: the configuration's values as ordered writes, hierarchy by hierarchy in runc's order.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources, LinuxThrottleDevice,
};

use super::Error;
use super::write::{Refused, Write};

/// What the order of writes depends on.
#[derive(Debug, Clone, Copy)]
pub struct Current {
    /// `memory.limit_in_bytes`.
    pub memory_limit: u64,
    /// The kernel accounts swap (`memory.memsw.*` are there).
    pub swap: bool,
}

impl Current {
    /// A group that was made a moment ago.
    pub const FRESH: Self = Self { memory_limit: u64::MAX, swap: true };
}

/// The writes for `resources`. Freezer and devices are not limits.
///
/// # Errors
/// A value that cannot be.
pub fn limits(resources: &LinuxResources, current: Current) -> Result<Vec<Write>, Error> {
    let mut writes = Vec::new();
    if let Some(cpu) = resources.cpu() {
        cpuset(cpu, &mut writes);
    }
    if let Some(memory) = resources.memory() {
        memory_limits(memory, current, &mut writes)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_limits(cpu, &mut writes);
    }
    if let Some(pids) = resources.pids() {
        writes.push(Write::new("pids", "pids.max", pids_max(pids.limit())));
    }
    if let Some(block_io) = resources.block_io() {
        block_io_limits(block_io, &mut writes);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let prefix = format!("hugetlb.{}", limit.page_size());
        writes.push(Write::new("hugetlb", format!("{prefix}.limit_in_bytes"), limit.limit()));
        let reserved = Write::new("hugetlb", format!("{prefix}.rsvd.limit_in_bytes"), limit.limit());
        writes.push(reserved.or(Refused::IgnoreMissing));
    }
    if let Some(network) = resources.network() {
        network_limits(network, &mut writes);
    }
    rdma("rdma", resources, &mut writes);
    Ok(writes)
}

fn cpuset(cpu: &LinuxCpu, writes: &mut Vec<Write>) {
    for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        writes.extend(set(value).map(|value| Write::new("cpuset", file, value)));
    }
}

pub(super) fn set(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|value| !value.is_empty())
}

fn memory_limits(memory: &LinuxMemory, current: Current, writes: &mut Vec<Write>) -> Result<(), Error> {
    let limit = memory.limit().filter(|v| *v != 0);
    let mut swap = memory.swap().filter(|v| *v != 0);
    if limit == Some(-1) && swap.is_none() && current.swap {
        swap = Some(-1);
    }
    let limit_write = limit.map(|v| Write::new("memory", "memory.limit_in_bytes", v));
    let swap_write = swap.map(|v| Write::new("memory", "memory.memsw.limit_in_bytes", v));
    // The kernel demands memory <= memory + swap at every moment, so a rising pair begins with swap.
    let swap_first =
        limit.is_some() && swap.is_some_and(|s| s == -1 || current.memory_limit < s.unsigned_abs());
    if swap_first {
        writes.extend(swap_write.into_iter().chain(limit_write));
    } else {
        writes.extend(limit_write.into_iter().chain(swap_write));
    }
    if let Some(value) = memory.reservation().filter(|v| *v != 0) {
        writes.push(Write::new("memory", "memory.soft_limit_in_bytes", value));
    }
    if memory.disable_oom_killer() == Some(true) {
        writes.push(Write::new("memory", "memory.oom_control", 1));
    }
    match memory.swappiness() {
        // runc's callers say "unset" by the largest number.
        None | Some(u64::MAX) => Ok(()),
        Some(value) if value <= 100 => {
            writes.push(Write::new("memory", "memory.swappiness", value));
            Ok(())
        }
        Some(value) => {
            Err(Error::Invalid(format!("invalid memory swappiness value: {value} (valid range is 0-100)")))
        }
    }
}

fn cpu_limits(cpu: &LinuxCpu, writes: &mut Vec<Write>) {
    let mut add = |file: &str, value: Option<String>, refused: Refused| {
        writes.extend(value.map(|value| Write::new("cpu", file, value).or(refused)));
    };
    let text = |value: Option<u64>| value.filter(|v| *v != 0).map(|v| v.to_string());
    let quota = cpu.quota().filter(|v| *v != 0).map(|v| v.to_string());
    let retry = || if quota.is_some() { Refused::RetryLast } else { Refused::Fail };
    add("cpu.shares", text(cpu.shares()), Refused::Fail);
    add("cpu.cfs_period_us", text(cpu.period()), retry());
    let burst = if quota.is_some() { Refused::RetryLast } else { Refused::IgnoreMissing };
    add("cpu.cfs_burst_us", cpu.burst().map(|v| v.to_string()), burst);
    add("cpu.cfs_quota_us", quota.clone(), Refused::Fail);
    add("cpu.idle", cpu.idle().map(|v| v.to_string()), Refused::Fail);
    let runtime = cpu.realtime_runtime().filter(|v| *v != 0).map(|v| v.to_string());
    let period = if runtime.is_some() { Refused::RetryLast } else { Refused::Fail };
    add("cpu.rt_period_us", text(cpu.realtime_period()), period);
    add("cpu.rt_runtime_us", runtime, Refused::Fail);
}

/// As runc since 1.4: 0 is a limit, the lowest that systemd also knows.
pub(super) fn pids_max(limit: i64) -> String {
    match limit {
        0.. => limit.max(1).to_string(),
        _ => "max".to_owned(),
    }
}

fn block_io_limits(block_io: &LinuxBlockIo, writes: &mut Vec<Write>) {
    if let Some(weight) = block_io.weight().filter(|w| *w != 0) {
        // BFQ's file where the kernel has it, CFQ's (before 5.0) else.
        let cfq = Refused::Instead("blkio.weight".to_owned(), weight.to_string());
        writes.push(Write::new("blkio", "blkio.bfq.weight", weight).or(cfq));
    }
    if let Some(weight) = block_io.leaf_weight().filter(|w| *w != 0) {
        writes.push(Write::new("blkio", "blkio.leaf_weight", weight));
    }
    for device in block_io.weight_device().iter().flatten() {
        let line = |weight| format!("{}:{} {weight}", device.major(), device.minor());
        if let Some(weight) = device.weight().filter(|w| *w != 0) {
            let cfq = Refused::Instead("blkio.weight_device".to_owned(), line(weight));
            writes.push(Write::new("blkio", "blkio.bfq.weight_device", line(weight)).or(cfq));
        }
        if let Some(weight) = device.leaf_weight().filter(|w| *w != 0) {
            writes.push(Write::new("blkio", "blkio.leaf_weight_device", line(weight)));
        }
    }
    for (file, devices) in [
        ("blkio.throttle.read_bps_device", block_io.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", block_io.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", block_io.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", block_io.throttle_write_iops_device()),
    ] {
        writes.extend(devices.iter().flatten().map(|d| Write::new("blkio", file, throttle(d))));
    }
}

fn throttle(device: &LinuxThrottleDevice) -> String {
    format!("{}:{} {}", device.major(), device.minor(), device.rate())
}

fn network_limits(network: &LinuxNetwork, writes: &mut Vec<Write>) {
    if let Some(class) = network.class_id().filter(|c| *c != 0) {
        writes.push(Write::new("net_cls", "net_cls.classid", class));
    }
    for priority in network.priorities().iter().flatten() {
        let line = format!("{} {}", priority.name(), priority.priority());
        writes.push(Write::new("net_prio", "net_prio.ifpriomap", line));
    }
}

pub(super) fn rdma(controller: &'static str, resources: &LinuxResources, writes: &mut Vec<Write>) {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by_key(|(name, _)| name.as_str());
    for (name, limit) in devices {
        let part = |key: &str, value: Option<u32>| value.map(|v| format!(" {key}={v}")).unwrap_or_default();
        let handles = part("hca_handle", limit.hca_handles());
        let value = format!("{name}{handles}{}", part("hca_object", limit.hca_objects()));
        writes.push(Write::new(controller, "rdma.max", value));
    }
}
