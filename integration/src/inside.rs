//! The view from inside a container, as a script prints it, made comparable between two runtimes.
//!
//! Pids, ids, temporary paths and counters differ from run to run and are replaced or dropped; everything a program
//! inside can tell its runtime by stays.

/// Prints everything a process inherits (hazard: a runtime's own attributes pass through execve).
pub const SCRIPT: &str = r#"
section() { echo "== $1"; }
p=/proc/$$
section status; cat $p/status
section limits; cat $p/limits
section oom_score_adj; cat $p/oom_score_adj
section timerslack; cat $p/timerslack_ns
section cgroup; cat $p/cgroup
section mountinfo; cat $p/mountinfo
section attr; cat $p/attr/current; echo
section stat; cat $p/stat
section fds; ls -l $p/fd
section cwd; pwd; readlink $p/root; readlink $p/exe
section env; env
section cmdline; tr '\0' ' ' < $p/cmdline
section umask; umask
section id; id
section hostname; hostname; cat /proc/sys/kernel/domainname
section dev; ls -l /dev /dev/pts
section uid_map; cat $p/uid_map $p/gid_map; cat $p/setgroups
section net; ls /sys/class/net 2>&1
section sched; cat $p/autogroup 2>&1; cat $p/loginuid 2>&1; cat $p/coredump_filter
section writable; for d in / /proc/sys /sys /dev /dev/shm /tmp /proc/sysrq-trigger; do
    [ -w $d ] && echo "$d w" || echo "$d -"; done
section masked; for f in /proc/kcore /proc/keys /proc/timer_list /proc/acpi /sys/firmware /proc/latency_stats; do
    [ -e $f ] && ls -ld $f | cut -c1-10 && head -c 1 $f 2>&1 | wc -c; done
"#;

/// Lines of `status` that tell nothing about the runtime.
const VOLATILE_STATUS: &[&str] = &[
    "Pid:",
    "PPid:",
    "Tgid:",
    "Ngid:",
    "Vm",
    "Rss",
    "voluntary_ctxt",
    "nonvoluntary_ctxt",
    "Hugetlb",
    "SigQ:",
    "FDSize:",
    "Threads:",
    "State:",
    "x86_Thread",
    "THP",
    "untag",
];

/// Replaces what differs between two runs of the same bundle.
pub fn normalise(text: &str, id: &str, directory: &str) -> String {
    let text = text.replace(id, "<ID>").replace(directory, "<DIR>");
    let mut section = "";
    let mut lines = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            section = name;
            lines.push(line.to_owned());
            continue;
        }
        match section {
            "status" => lines.extend(status_line(line)),
            "mountinfo" => lines.push(mount_line(line)),
            "stat" => lines.push(stat_line(line)),
            "fds" => lines.extend(descriptor_line(line)),
            "dev" => lines.push(device_line(line)),
            "sched" => lines
                .push(line.replace(|c: char| c.is_ascii_digit(), "").replace("/autogroup-", "autogroup ")),
            _ => lines.push(line.to_owned()),
        }
    }
    lines.join("\n")
}

/// All that can be blocked: busybox's shell does that while it forks, and on one processor the child looks first.
const BLOCKED_BY_THE_SHELL: &str = "SigBlk:\tfffffffffffbfeff";

fn status_line(line: &str) -> Option<String> {
    let volatile = VOLATILE_STATUS.iter().any(|prefix| line.starts_with(prefix)) || line.starts_with("NS");
    if line == BLOCKED_BY_THE_SHELL {
        return Some("SigBlk:\t0000000000000000".to_owned());
    }
    let Some(mask) = line.strip_prefix("SigIgn:\t") else { return (!volatile).then(|| line.to_owned()) };
    // Signals 32 to 34 belong to C libraries and Go's run time, which handle and so reset them in passing.
    let mask = u64::from_str_radix(mask, 16).unwrap_or(0) & !(0b111 << 31);
    Some(format!("SigIgn:\t{mask:016x}"))
}

/// Without mount ids, device numbers and numbers of peer groups.
fn mount_line(line: &str) -> String {
    let fields: Vec<&str> = line.split(' ').collect();
    let rest = fields.get(3..).unwrap_or_default();
    let words = rest.iter().map(|word| match word.split_once(':') {
        Some((kind @ ("master" | "shared" | "propagate_from"), _)) => kind.to_owned(),
        _ => (*word).to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Process group and session relative to the pid, controlling terminal as yes or no, nice, threads, policy.
fn stat_line(line: &str) -> String {
    let Some((head, rest)) = line.split_once(") ") else { return line.to_owned() };
    let pid = head.split(' ').next().unwrap_or_default();
    let fields: Vec<&str> = rest.split(' ').collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
    let relative = |value: &str| if value == pid { "self".to_owned() } else { "other".to_owned() };
    format!(
        "pgrp {} session {} terminal {} nice {} priority {} policy {} exit_signal {}",
        relative(field(5)),
        relative(field(6)),
        field(7) != "0",
        field(19),
        field(18),
        field(41),
        field(38),
    )
}

/// Descriptor and kind of target: `0 -> /dev/null`, `1 -> pipe`.
fn descriptor_line(line: &str) -> Option<String> {
    let (head, target) = line.split_once(" -> ")?;
    let number = head.rsplit(' ').next()?;
    let kind = target.split(":[").next()?;
    let kind = if kind.contains("/call-") { "output file" } else { kind };
    let kind = if kind.starts_with("/dev/pts/") { "terminal" } else { kind };
    Some(format!("{number} -> {kind}"))
}

/// Mode, owner and name of a device, without link counts, sizes and dates.
fn device_line(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words.len() < 8 {
        return if line.starts_with("total") { "total".to_owned() } else { line.to_owned() };
    }
    let size = if words[4].ends_with(',') { format!("{} {}", words[4], words[5]) } else { String::new() };
    let name = match words.iter().position(|word| *word == "->") {
        Some(arrow) => words[arrow - 1..].join(" "),
        None => words[words.len() - 1].to_owned(),
    };
    format!("{} {} {} {size} {name}", words[0], words[2], words[3])
}

/// The lines that are only in one of two views, as `runtime: line`.
pub fn differences(names: [&str; 2], views: [&str; 2]) -> Vec<String> {
    let mut found = Vec::new();
    for (mine, other) in [(0, 1), (1, 0)] {
        let mut section = "";
        let theirs = sectioned(views[other]);
        for line in views[mine].lines() {
            section = line.strip_prefix("== ").unwrap_or(section);
            if !theirs.contains(&(section, line)) {
                found.push(format!("{section}: {}: {line}", names[mine]));
            }
        }
    }
    found
}

fn sectioned(view: &str) -> std::collections::BTreeSet<(&str, &str)> {
    let mut section = "";
    view.lines()
        .map(|line| {
            section = line.strip_prefix("== ").unwrap_or(section);
            (section, line)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volatile_parts_vanish() {
        let view = "== status\nPid:\t7\nUmask:\t0022\n== mountinfo\n612 590 0:53 / /proc rw master:3 - proc proc rw\n\
                    == fds\nl-wx 1 0 0 64 Jan 1 00:00 1 -> pipe:[881]\n== x\nit-1 in /tmp/d\n";
        assert_eq!(
            normalise(view, "it-1", "/tmp/d"),
            "== status\nUmask:\t0022\n== mountinfo\n/ /proc rw master - proc proc rw\n== fds\n1 -> pipe\n== x\n<ID> in <DIR>"
        );
    }

    #[test]
    fn differences_name_the_runtime_and_the_section() {
        let found = differences(["a", "b"], ["== s\nx\ny", "== s\nx"]);
        assert_eq!(found, ["s: a: y"]);
    }
}
