//! A process of a container as plain values: identity, privileges, limits. Pure; unknown names are refused or dropped
//! here, so that the child only applies numbers.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use oci_spec::runtime::{
    Capability, IOPriorityClass, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    MemoryPolicyFlagType, MemoryPolicyModeType, PosixRlimit, PosixRlimitType, Process, Spec,
};

use super::{HostFacts, Problem};
use crate::sys::schedule::SchedAttr;

/// The five sets, as bit masks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

/// One limit for `prlimit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_*`.
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// Where the process's memory comes from, for set_mempolicy(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// `MPOL_*` with `MPOL_F_*`.
    pub mode: u32,
    /// Bit mask of nodes, 64 a word.
    pub nodes: Vec<u64>,
}

/// The process, ready to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessPlan {
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    pub cwd: PathBuf,
    pub terminal: bool,
    /// Height and width.
    pub console_size: Option<(u16, u16)>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: u32,
    /// `None`: the specification names no capabilities, so none are kept.
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
    pub scheduler: Option<SchedAttr>,
    /// The configuration limits the CPUs, which a deadline scheduler does not stand.
    pub has_cpuset: bool,
    /// Class and priority.
    pub io_priority: Option<(u32, u32)>,
    /// CPU lists for exec: before joining the cgroup, and after.
    pub initial_affinity: Option<Vec<usize>>,
    pub final_affinity: Option<Vec<usize>>,
    pub personality: Option<u64>,
    pub memory_policy: Option<MemoryPolicy>,
    pub preserve_fds: u32,
}

/// Plans `process`; `spec` gives what is the container's as a whole.
///
/// # Errors
/// Everything that is wrong with it at once.
pub fn plan_process(process: &Process, spec: &Spec, facts: &HostFacts) -> Result<ProcessPlan, Vec<Problem>> {
    let mut problems = Vec::new();
    let user = process.user();
    let plan = ProcessPlan {
        args: strings("process.args", process.args().as_deref(), &mut problems),
        env: environment(process.env().as_deref(), &mut problems),
        cwd: cwd(process.cwd(), &mut problems),
        terminal: process.terminal().unwrap_or(false),
        console_size: process.console_size().map(|b| (clamp(b.height()), clamp(b.width()))),
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask().unwrap_or(0o022),
        capabilities: capabilities(process),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        rlimits: rlimits(process.rlimits().as_deref(), &mut problems),
        oom_score_adj: process.oom_score_adj(),
        apparmor_profile: process.apparmor_profile().clone().filter(|p| !p.is_empty()),
        selinux_label: process.selinux_label().clone().filter(|l| !l.is_empty()),
        scheduler: scheduler(process, &mut problems),
        has_cpuset: has_cpuset(spec),
        io_priority: io_priority(process, &mut problems),
        initial_affinity: affinity(process, true, &mut problems),
        final_affinity: affinity(process, false, &mut problems),
        personality: personality(spec),
        memory_policy: memory_policy(spec, &mut problems),
        preserve_fds: 0,
    };
    if plan.args.is_empty() {
        problems.push(Problem::new("process.args", "args must not be empty"));
    }
    if plan.apparmor_profile.is_some() && !facts.apparmor {
        problems.push(Problem::new(
            "process.apparmorProfile",
            "apparmor profile is specified but apparmor is disabled",
        ));
    }
    if plan.selinux_label.is_some() && !facts.selinux {
        let text = "selinux label is specified in config, but selinux is disabled or not supported";
        problems.push(Problem::new("process.selinuxLabel", text));
    }
    if problems.is_empty() { Ok(plan) } else { Err(problems) }
}

fn clamp(cells: u64) -> u16 {
    u16::try_from(cells).unwrap_or(u16::MAX)
}

fn strings(field: &str, list: Option<&[String]>, problems: &mut Vec<Problem>) -> Vec<CString> {
    let mut out = Vec::new();
    for text in list.unwrap_or(&[]) {
        match CString::new(text.as_str()) {
            Ok(text) => out.push(text),
            Err(_) => problems.push(Problem::new(field, format!("{text:?} contains a nul byte"))),
        }
    }
    out
}

/// The last value of a name wins, as in a shell and in runc from 1.2 on.
fn environment(list: Option<&[String]>, problems: &mut Vec<Problem>) -> Vec<CString> {
    let list = list.unwrap_or(&[]);
    let mut kept: Vec<&String> = Vec::new();
    for (i, entry) in list.iter().enumerate() {
        let Some((name, _)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            problems.push(Problem::new("process.env", format!("invalid environment variable: {entry:?}")));
            continue;
        };
        let overridden =
            list[i + 1..].iter().any(|later| later.split_once('=').is_some_and(|(n, _)| n == name));
        if !overridden {
            kept.push(entry);
        }
    }
    let kept: Vec<String> = kept.into_iter().cloned().collect();
    strings("process.env", Some(&kept), problems)
}

fn cwd(cwd: &Path, problems: &mut Vec<Problem>) -> PathBuf {
    if !cwd.is_absolute() {
        problems.push(Problem::new("process.cwd", "cwd must be an absolute path"));
    }
    cwd.to_owned()
}

fn capabilities(process: &Process) -> Capabilities {
    let Some(sets) = process.capabilities() else { return Capabilities::default() };
    let mask = |set: &Option<std::collections::HashSet<Capability>>| {
        set.iter().flatten().filter_map(number).fold(0, |mask, bit| mask | 1 << bit)
    };
    Capabilities {
        bounding: mask(sets.bounding()),
        effective: mask(sets.effective()),
        inheritable: mask(sets.inheritable()),
        permitted: mask(sets.permitted()),
        ambient: mask(sets.ambient()),
    }
}

fn number(capability: &Capability) -> Option<u8> {
    let name = capability.to_string();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    caps::Capability::from_str(&format!("CAP_{name}")).ok().map(|c| c.index())
}

fn rlimits(list: Option<&[PosixRlimit]>, problems: &mut Vec<Problem>) -> Vec<Rlimit> {
    let mut out: Vec<Rlimit> = Vec::new();
    for limit in list.unwrap_or(&[]) {
        let resource = rlimit_number(limit.typ());
        if out.iter().any(|l| l.resource == resource) {
            problems.push(Problem::new("process.rlimits", format!("duplicated rlimit {}", limit.typ())));
        }
        out.push(Rlimit { resource, soft: limit.soft(), hard: limit.hard() });
    }
    out
}

const fn rlimit_number(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}

fn scheduler(process: &Process, problems: &mut Vec<Problem>) -> Option<SchedAttr> {
    let scheduler = process.scheduler().as_ref()?;
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let nice = (*scheduler.nice()).unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        problems.push(Problem::new("process.scheduler", format!("invalid scheduler.nice: {nice}")));
    }
    let priority = (*scheduler.priority()).unwrap_or(0);
    if priority != 0 && !matches!(policy, 1 | 2) {
        let text = "scheduler.priority can only be specified for SchedFIFO or SchedRR policy";
        problems.push(Problem::new("process.scheduler", text));
    }
    let deadline = [*scheduler.runtime(), *scheduler.deadline(), *scheduler.period()].map(|v| v.unwrap_or(0));
    if deadline.iter().any(|v| *v != 0) && policy != 6 {
        let text = "scheduler runtime/deadline/period can only be specified for SchedDeadline policy";
        problems.push(Problem::new("process.scheduler", text));
    }
    Some(SchedAttr {
        size: 0,
        policy,
        flags: scheduler.flags().iter().flatten().fold(0, |all, flag| all | scheduler_flag(*flag)),
        nice,
        priority: u32::try_from(priority).unwrap_or(0),
        runtime: deadline[0],
        deadline: deadline[1],
        period: deadline[2],
    })
}

const fn scheduler_flag(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

fn io_priority(process: &Process, problems: &mut Vec<Problem>) -> Option<(u32, u32)> {
    let wanted = process.io_priority().as_ref()?;
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u32::try_from(wanted.priority()) {
        Ok(priority) if priority <= 7 => Some((class, priority)),
        _ => {
            problems.push(Problem::new(
                "process.ioPriority",
                format!("invalid ioPriority.Priority: {}", wanted.priority()),
            ));
            None
        }
    }
}

fn affinity(process: &Process, initial: bool, problems: &mut Vec<Problem>) -> Option<Vec<usize>> {
    // The crate keeps its fields' getters to itself in this version: read it as the document it is.
    let value = serde_json::to_value(process.exec_cpu_affinity().as_ref()?).ok()?;
    let list = value.get(if initial { "initial" } else { "final" })?.as_str()?.to_owned();
    match parse_cpu_list(&list) {
        Some(cpus) => Some(cpus).filter(|c| !c.is_empty()),
        None => {
            problems.push(Problem::new("process.execCPUAffinity", format!("invalid CPU list {list:?}")));
            None
        }
    }
}

/// `0-3,7` as the kernel writes it.
pub(crate) fn parse_cpu_list(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',').filter(|p| !p.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        if from > to || to >= 1024 {
            return None;
        }
        cpus.extend(from..=to);
    }
    Some(cpus)
}

fn personality(spec: &Spec) -> Option<u64> {
    let personality = spec.linux().as_ref()?.personality().as_ref()?;
    Some(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

fn has_cpuset(spec: &Spec) -> bool {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let cpus = resources.and_then(|r| r.cpu().as_ref()).and_then(|cpu| cpu.cpus().as_deref());
    cpus.is_some_and(|cpus| !cpus.is_empty())
}

fn memory_policy(spec: &Spec, problems: &mut Vec<Problem>) -> Option<MemoryPolicy> {
    let policy = spec.linux().as_ref()?.memory_policy().as_ref()?;
    let mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flag = |flag: &MemoryPolicyFlagType| match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    };
    let flags: u32 = policy.flags().iter().flatten().map(flag).fold(0, |all, flag| all | flag);
    let Some(list) = parse_cpu_list(policy.nodes().as_deref().unwrap_or_default()) else {
        problems.push(Problem::new("linux.memoryPolicy.nodes", "invalid memory policy node"));
        return None;
    };
    let mut nodes = vec![0_u64; list.iter().max().map_or(0, |last| last / 64 + 1)];
    list.iter().for_each(|node| nodes[node / 64] |= 1 << (node % 64));
    Some(MemoryPolicy { mode: mode | flags, nodes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan(process: serde_json::Value) -> Result<ProcessPlan, Vec<Problem>> {
        let process: Process = serde_json::from_value(process).unwrap();
        plan_process(&process, &Spec::default(), &HostFacts::example())
    }

    #[test]
    fn numbers_come_out() {
        let got = plan(json!({
            "user": {"uid": 1, "gid": 2, "additionalGids": [3], "umask": 63},
            "args": ["sh"], "env": ["A=1", "B=2", "A=3"], "cwd": "/",
            "capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL"], "ambient": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6}],
            "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0},
            "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
            "execCPUAffinity": {"initial": "0-1", "final": "1"},
        }))
        .unwrap();
        assert_eq!((got.uid, got.gid, got.groups.as_slice(), got.umask), (1, 2, &[3][..], 0o77));
        assert_eq!(got.env, [c"B=2".to_owned(), c"A=3".to_owned()]);
        assert_eq!(got.capabilities.bounding, 0b10_0001);
        assert_eq!(got.capabilities.ambient, 0b10_0000);
        assert_eq!(got.rlimits, [Rlimit { resource: 7, soft: 5, hard: 6 }]);
        assert_eq!(got.io_priority, Some((3, 0)));
        assert_eq!(got.scheduler.map(|s| (s.policy, s.nice)), Some((3, 5)));
        assert_eq!((got.initial_affinity, got.final_affinity), (Some(vec![0, 1]), Some(vec![1])));
    }

    #[test]
    fn problems_come_all_at_once() {
        let problems = plan(json!({
            "user": {"uid": 0, "gid": 0}, "args": [], "env": ["novalue"], "cwd": "relative",
            "apparmorProfile": "x", "selinuxLabel": "y",
        }))
        .unwrap_err();
        let fields: Vec<&str> = problems.iter().map(|p| p.field.as_str()).collect();
        let want =
            ["process.env", "process.cwd", "process.args", "process.apparmorProfile", "process.selinuxLabel"];
        assert_eq!(fields, want);
    }

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpu_list("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_cpu_list("2-1"), None);
        assert_eq!(parse_cpu_list("x"), None);
    }
}
