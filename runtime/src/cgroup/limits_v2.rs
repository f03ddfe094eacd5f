//! Limits on version 2: the configuration's values, made for version 1, converted as runc and crun convert them.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::Error;
use super::limits_v1::{pids_max, rdma, set};
use super::write::{Refused, Write};

/// The period that the kernel has without being told (cgroup-v2.rst).
const DEFAULT_PERIOD: u64 = 100_000;

/// The writes for `resources`, in runc's order; `unified` comes last and so wins.
///
/// # Errors
/// A value that cannot be.
pub fn limits(resources: &LinuxResources) -> Result<Vec<Write>, Error> {
    let mut writes = Vec::new();
    if let Some(pids) = resources.pids() {
        writes.push(Write::new("", "pids.max", pids_max(pids.limit())));
    }
    if let Some(memory) = resources.memory() {
        memory_limits(memory, &mut writes)?;
    }
    if let Some(block_io) = resources.block_io() {
        block_io_limits(block_io, &mut writes);
    }
    if let Some(cpu) = resources.cpu() {
        cpu_limits(cpu, &mut writes);
        for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            writes.extend(set(value).map(|value| Write::new("", file, value)));
        }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let prefix = format!("hugetlb.{}", limit.page_size());
        writes.push(Write::new("", format!("{prefix}.max"), limit.limit()));
        writes.push(Write::new("", format!("{prefix}.rsvd.max"), limit.limit()).or(Refused::IgnoreMissing));
    }
    rdma("", resources, &mut writes);
    unified(resources, &mut writes)?;
    Ok(writes)
}

/// What the configuration says and version 2 has no file for.
pub fn without_effect(resources: &LinuxResources) -> Vec<String> {
    let memory = resources.memory().as_ref();
    let cpu = resources.cpu().as_ref();
    let block_io = resources.block_io().as_ref();
    [
        ("memory.swappiness", memory.is_some_and(|m| m.swappiness().is_some())),
        ("memory.disableOOMKiller", memory.is_some_and(|m| m.disable_oom_killer() == Some(true))),
        ("cpu.realtimeRuntime", cpu.is_some_and(|c| c.realtime_runtime().is_some_and(|v| v != 0))),
        ("cpu.realtimePeriod", cpu.is_some_and(|c| c.realtime_period().is_some_and(|v| v != 0))),
        ("blockIO.leafWeight", block_io.is_some_and(|b| b.leaf_weight().is_some_and(|v| v != 0))),
        ("network", resources.network().is_some()),
    ]
    .into_iter()
    .filter(|(_, is_set)| *is_set)
    .map(|(name, _)| format!("linux.resources.{name} has no effect on cgroup v2"))
    .collect()
}

fn memory_limits(memory: &LinuxMemory, writes: &mut Vec<Write>) -> Result<(), Error> {
    let limit = memory.limit().unwrap_or(0);
    if let Some(swap) = swap_max(memory.swap().unwrap_or(0), limit)? {
        // Without swap accounting there is nothing to forbid, and nothing to open.
        let refused = if swap == "max" || swap == "0" { Refused::IgnoreMissing } else { Refused::Fail };
        writes.push(Write::new("", "memory.swap.max", swap).or(refused));
    }
    for (file, value) in [("memory.max", limit), ("memory.low", memory.reservation().unwrap_or(0))] {
        match value {
            0 => {}
            -1 => writes.push(Write::new("", file, "max")),
            value => writes.push(Write::new("", file, value)),
        }
    }
    Ok(())
}

/// The configuration's `swap` is memory and swap together, `memory.swap.max` swap alone; 0 is "not set".
pub(super) fn swap_max(swap: i64, memory: i64) -> Result<Option<String>, Error> {
    let invalid = |text: &str| Err(Error::Invalid(text.to_owned()));
    match (swap, memory) {
        (0, -1) | (-1, _) => Ok(Some("max".to_owned())),
        (0, _) => Ok(None),
        (swap, -1) => Ok(Some(swap.to_string())),
        (_, 0) => invalid("unable to set swap limit without memory limit"),
        (_, memory) if memory < 0 => Err(Error::Invalid(format!("invalid memory value: {memory}"))),
        (swap, memory) if swap < memory => invalid("memory+swap limit should be >= memory limit"),
        (swap, memory) => Ok(Some((swap - memory).to_string())),
    }
}

fn cpu_limits(cpu: &LinuxCpu, writes: &mut Vec<Write>) {
    let quota = cpu.quota().filter(|v| *v != 0);
    let period = cpu.period().filter(|v| *v != 0);
    writes.extend(cpu.idle().map(|v| Write::new("", "cpu.idle", v)));
    if let Some(shares) = cpu.shares().filter(|v| *v != 0) {
        writes.push(Write::new("", "cpu.weight", weight_from_shares(shares)));
    }
    let refused = if quota.is_some() { Refused::RetryLast } else { Refused::Fail };
    writes.extend(cpu.burst().map(|v| Write::new("", "cpu.max.burst", v).or(refused)));
    if let Some(value) = cpu_max(quota, period) {
        writes.push(Write::new("", "cpu.max", value));
    }
}

fn cpu_max(quota: Option<i64>, period: Option<u64>) -> Option<String> {
    if quota.is_none() && period.is_none() {
        return None;
    }
    let quota = quota.filter(|q| *q > 0).map_or_else(|| "max".to_owned(), |q| q.to_string());
    Some(format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD)))
}

/// The curve through (2, 1), (1024, 100) and (262144, 10000) that runc 1.3.2 and crun 1.23 changed to. The line before
/// it gave the default of 1,024 shares a weight of 39.
#[must_use]
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn weight_from_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

fn block_io_limits(block_io: &LinuxBlockIo, writes: &mut Vec<Write>) {
    if let Some(weight) = block_io.weight().filter(|w| *w != 0) {
        let instead = Refused::Instead("io.weight".to_owned(), io_weight(weight).to_string());
        writes.push(Write::new("", "io.bfq.weight", weight).or(instead));
    }
    for device in block_io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight().filter(|w| *w != 0) {
            let line = |weight: u64| format!("{}:{} {weight}", device.major(), device.minor());
            let instead = Refused::Instead("io.weight".to_owned(), line(io_weight(weight)));
            writes.push(Write::new("", "io.bfq.weight", line(weight.into())).or(instead));
        }
    }
    for (key, devices) in [
        ("rbps", block_io.throttle_read_bps_device()),
        ("wbps", block_io.throttle_write_bps_device()),
        ("riops", block_io.throttle_read_iops_device()),
        ("wiops", block_io.throttle_write_iops_device()),
    ] {
        writes.extend(devices.iter().flatten().map(|d| Write::new("", "io.max", io_max(key, d))));
    }
}

/// 10..1000 of version 1 to 1..10000.
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight).saturating_sub(10) * 9999 / 990
}

fn io_max(key: &str, device: &LinuxThrottleDevice) -> String {
    let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
    format!("{}:{} {key}={rate}", device.major(), device.minor())
}

fn unified(resources: &LinuxResources, writes: &mut Vec<Write>) -> Result<(), Error> {
    let mut entries: Vec<_> = resources.unified().iter().flatten().collect();
    entries.sort();
    for (file, value) in entries {
        if file.contains('/') {
            return Err(Error::Invalid(format!(
                "unified resource {file:?} must be a file name (no slashes)"
            )));
        }
        if !file.contains('.') {
            return Err(Error::Invalid(format!(
                "unified resource {file:?} must be in the form CONTROLLER.PARAMETER"
            )));
        }
        // Files of several lines (io.max) take one a write.
        writes.extend(value.lines().map(|line| Write::new("", file.clone(), line)));
    }
    Ok(())
}
