//! Rules of `process`.

use oci_spec::runtime::{LinuxSchedulerPolicy, Process};

use super::Report;

pub fn check(process: &Process, selinux: bool, report: &mut Report) {
    if process.cwd().as_os_str().is_empty() {
        report.problem("process.cwd", "Cwd property must not be empty");
    } else if !process.cwd().is_absolute() {
        report.problem("process.cwd", "Cwd must be an absolute path");
    }
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        report.problem("process.args", "args must not be empty");
    }
    if process.selinux_label().as_ref().is_some_and(|label| !label.is_empty()) && !selinux {
        let text = "selinux label is specified in config, but selinux is disabled or not supported";
        report.problem("process.selinuxLabel", text);
    }
    strings(process, report);
    rlimits(process, report);
    scheduler(process, report);
    if let Some(priority) = process.io_priority().as_ref().map(oci_spec::runtime::LinuxIOPriority::priority)
        && !(0..=7).contains(&priority)
    {
        report.problem("process.ioPriority", format!("invalid ioPriority.Priority: {priority}"));
    }
    if let Some(value) = process.oom_score_adj().filter(|value| !(-1000..=1000).contains(value)) {
        report.problem("process.oomScoreAdj", format!("{value} is not between -1000 and 1000"));
    }
}

/// What the kernel gets as C strings cannot hold a NUL.
fn strings(process: &Process, report: &mut Report) {
    for (field, list) in [("process.args", process.args()), ("process.env", process.env())] {
        for (index, _) in list.iter().flatten().enumerate().filter(|(_, text)| text.contains('\0')) {
            report.problem(format!("{field}[{index}]"), "contains nul byte");
        }
    }
    for (index, entry) in process.env().iter().flatten().enumerate() {
        if !entry.contains('=') || entry.starts_with('=') {
            report
                .problem(format!("process.env[{index}]"), format!("invalid environment variable: {entry:?}"));
        }
    }
}

fn rlimits(process: &Process, report: &mut Report) {
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let field = format!("process.rlimits[{index}]");
        if limit.soft() > limit.hard() {
            let text =
                format!("{}: soft limit {} is above hard limit {}", limit.typ(), limit.soft(), limit.hard());
            report.problem(field, text);
        }
    }
}

fn scheduler(process: &Process, report: &mut Report) {
    use LinuxSchedulerPolicy::{SchedBatch, SchedDeadline, SchedFifo, SchedOther, SchedRr};
    let Some(scheduler) = process.scheduler() else { return };
    let policy = scheduler.policy();
    let nice = scheduler.nice().unwrap_or(0);
    let set = |value: &Option<u64>| value.is_some_and(|v| v != 0);
    if matches!(policy, SchedOther | SchedBatch) && !(-20..=19).contains(&nice) {
        let text = format!("invalid scheduler.nice: {nice} when scheduler.policy is {policy}");
        report.problem("process.scheduler.nice", text);
    }
    if scheduler.priority().is_some_and(|p| p != 0) && !matches!(policy, SchedFifo | SchedRr) {
        let text = "scheduler.priority can only be specified for SchedFIFO or SchedRR policy";
        report.problem("process.scheduler.priority", text);
    }
    let deadline = [scheduler.runtime(), scheduler.deadline(), scheduler.period()];
    if *policy != SchedDeadline && deadline.into_iter().any(|value| set(&value.to_owned())) {
        let text = "scheduler runtime/deadline/period can only be specified for SchedDeadline policy";
        report.problem("process.scheduler", text);
    }
}
