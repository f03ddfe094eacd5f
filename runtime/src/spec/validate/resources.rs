//! Rules of limits and of the hardware's partitions.

use oci_spec::runtime::{LinuxIntelRdt, LinuxResources, MemoryPolicyModeType as Mode, Spec};

use super::{Facts, Report};
use crate::plan::process::parse_cpu_list;

pub fn check(spec: &Spec, facts: &Facts, report: &mut Report) {
    let Some(linux) = spec.linux() else { return };
    if let Some(resources) = linux.resources() {
        limits(resources, facts, report);
    }
    if let Some(rdt) = linux.intel_rdt() {
        intel_rdt(rdt, facts, report);
    }
    if let Some(policy) = linux.memory_policy() {
        // A list that can't be read is the plan's to report.
        let nodes = policy.nodes().as_deref().unwrap_or_default();
        let nodes = parse_cpu_list(nodes).map_or(usize::from(!nodes.trim().is_empty()), |list| list.len());
        memory_policy(policy.mode(), nodes, report);
    }
}

fn limits(resources: &LinuxResources, facts: &Facts, report: &mut Report) {
    if !facts.cgroup_unified && resources.unified().as_ref().is_some_and(|map| !map.is_empty()) {
        let text = "invalid configuration: cannot use unified on cgroup v1";
        report.problem("linux.resources.unified", text);
    }
    if let Some(memory) = resources.memory() {
        #[allow(deprecated)]
        if memory.kernel().is_some() || memory.kernel_tcp().is_some() {
            let text = "Kernel memory settings are ignored and will be removed";
            report.warning("linux.resources.memory.kernel", text);
        }
        let (limit, swap) = (memory.limit().unwrap_or(0), memory.swap().unwrap_or(0));
        if facts.cgroup_unified && swap > 0 && limit == 0 {
            report.problem("linux.resources.memory.swap", "unable to set swap limit without memory limit");
        } else if swap > 0 && limit > 0 && swap < limit {
            report.problem("linux.resources.memory.swap", "memory+swap limit should be >= memory limit");
        }
    }
    if facts.cgroup_unified {
        for (field, _) in v1_only(resources).into_iter().filter(|(_, set)| *set) {
            report.warning(field, "has no effect on cgroup v2");
        }
    }
    for (index, device) in resources.devices().iter().flatten().enumerate() {
        let access = device.access().as_deref().unwrap_or_default();
        if access.is_empty() {
            let text = format!("device access at {index} field cannot be empty");
            report.problem(format!("linux.resources.devices[{index}]"), text);
        }
    }
}

/// What runc drops in silence on unified groups.
fn v1_only(resources: &LinuxResources) -> [(&'static str, bool); 5] {
    let memory = resources.memory().as_ref();
    let cpu = resources.cpu().as_ref();
    let network = resources.network().as_ref();
    [
        ("linux.resources.memory.swappiness", memory.is_some_and(|m| m.swappiness().is_some())),
        (
            "linux.resources.memory.disableOOMKiller",
            memory.is_some_and(|m| m.disable_oom_killer().unwrap_or(false)),
        ),
        (
            "linux.resources.cpu.realtimeRuntime",
            cpu.is_some_and(|c| c.realtime_runtime().is_some_and(|v| v != 0)),
        ),
        ("linux.resources.network.classID", network.is_some_and(|n| n.class_id().is_some_and(|v| v != 0))),
        (
            "linux.resources.network.priorities",
            network.is_some_and(|n| n.priorities().as_ref().is_some_and(|list| !list.is_empty())),
        ),
    ]
}

fn intel_rdt(rdt: &LinuxIntelRdt, facts: &Facts, report: &mut Report) {
    if !facts.resctrl {
        report.problem("linux.intelRdt", "intelRdt is specified in config, but Intel RDT is not enabled");
    }
    let id = rdt.clos_id().as_deref().unwrap_or_default();
    if matches!(id, "." | "..") || (id.len() > 1 && id.contains('/')) {
        report.problem("linux.intelRdt.closID", format!("invalid intelRdt.ClosID {id:?}"));
    }
}

fn memory_policy(mode: Mode, nodes: usize, report: &mut Report) {
    match mode {
        Mode::MpolDefault | Mode::MpolLocal if nodes > 0 => {
            let text = format!("memory policy mode requires 0 nodes but got {nodes}");
            report.problem("linux.memoryPolicy.nodes", text);
        }
        Mode::MpolDefault | Mode::MpolLocal | Mode::MpolPreferred => {}
        Mode::MpolBind | Mode::MpolInterleave | Mode::MpolPreferredMany | Mode::MpolWeightedInterleave
            if nodes == 0 =>
        {
            let text = "memory policy mode requires at least one node but got 0";
            report.problem("linux.memoryPolicy.nodes", text);
        }
        Mode::MpolBind | Mode::MpolInterleave | Mode::MpolPreferredMany | Mode::MpolWeightedInterleave => {}
    }
}
