//! What a control group uses, as cAdvisor and containerd compute it; cgroup version 1 and 2.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use coracle_runtime::cgroup::HostCgroups;

/// Above this a limit of version 1 means "none".
const NO_LIMIT: u64 = 1 << 62;

/// Numbers of a group; what its controllers do not tell is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) cpu: Option<Cpu>,
    pub(super) memory: Option<Memory>,
    pub(super) processes: Option<u64>,
}

/// Nanoseconds, and what the quota did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cpu {
    pub(super) total: u64,
    pub(super) user: u64,
    pub(super) system: u64,
    pub(super) periods: u64,
    pub(super) throttled_periods: u64,
    pub(super) throttled: u64,
}

/// Bytes and counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) usage: u64,
    pub(super) max_usage: u64,
    pub(super) limit: Option<u64>,
    pub(super) failcnt: u64,
    pub(super) rss: u64,
    pub(super) cache: u64,
    pub(super) mapped_file: u64,
    pub(super) active_file: u64,
    pub(super) inactive_file: u64,
    pub(super) faults: u64,
    pub(super) major_faults: u64,
    pub(super) oom_kills: u64,
    pub(super) swap: Option<Swap>,
}

/// Bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Swap {
    pub(super) usage: u64,
    pub(super) available: u64,
}

impl Memory {
    /// What the kernel cannot take back at once.
    pub(super) const fn working_set(&self) -> u64 {
        self.usage.saturating_sub(self.inactive_file)
    }

    /// What is left of the limit; 0 where there is none.
    pub(super) fn available(&self) -> u64 {
        self.limit.map_or(0, |limit| limit.saturating_sub(self.working_set()))
    }
}

/// The directories of a group, by controller (the empty one is version 2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Group(BTreeMap<String, PathBuf>);

impl Group {
    /// The group of a process.
    pub(super) fn of_process(host: &HostCgroups, pid: i32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        Some(Self::parse(host, &text))
    }

    fn parse(host: &HostCgroups, text: &str) -> Self {
        let mut found = BTreeMap::new();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            for controller in controllers.split(',') {
                if let Some(directory) = below(host, controller, path) {
                    found.insert(controller.to_owned(), directory);
                }
            }
        }
        Self(found)
    }

    /// The group at a path of the cgroup file system.
    pub(super) fn at(host: &HostCgroups, path: &str) -> Self {
        let names = host.hierarchies.keys();
        Self(names.filter_map(|name| Some((name.clone(), below(host, name, path)?))).collect())
    }

    /// The group around this one.
    pub(super) fn parent(&self) -> Self {
        let parent = |path: &PathBuf| path.parent().map(Path::to_owned);
        Self(self.0.iter().filter_map(|(name, path)| Some((name.clone(), parent(path)?))).collect())
    }

    pub(super) fn read(&self, unified: bool) -> Usage {
        if unified { self.read_v2() } else { self.read_v1() }
    }

    fn read_v1(&self) -> Usage {
        let cpu = self.0.get("cpuacct").and_then(|path| {
            let quota = self.0.get("cpu").map(|path| table(path, "cpu.stat")).unwrap_or_default();
            Some(Cpu {
                total: number(path, "cpuacct.usage")?,
                user: number(path, "cpuacct.usage_user").unwrap_or(0),
                system: number(path, "cpuacct.usage_sys").unwrap_or(0),
                periods: get(&quota, "nr_periods"),
                throttled_periods: get(&quota, "nr_throttled"),
                throttled: get(&quota, "throttled_time"),
            })
        });
        let memory = self.0.get("memory").and_then(|path| {
            let stat = table(path, "memory.stat");
            let usage = number(path, "memory.usage_in_bytes")?;
            let both = number(path, "memory.memsw.usage_in_bytes");
            let limit = number(path, "memory.memsw.limit_in_bytes").filter(|limit| *limit < NO_LIMIT);
            let swap = both.map(|both| Swap {
                usage: both.saturating_sub(usage),
                available: limit.map_or(0, |limit| limit.saturating_sub(both)),
            });
            Some(Memory {
                usage,
                max_usage: number(path, "memory.max_usage_in_bytes").unwrap_or(0),
                limit: number(path, "memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT),
                failcnt: number(path, "memory.failcnt").unwrap_or(0),
                rss: get(&stat, "total_rss"),
                cache: get(&stat, "total_cache"),
                mapped_file: get(&stat, "total_mapped_file"),
                active_file: get(&stat, "total_active_file"),
                inactive_file: get(&stat, "total_inactive_file"),
                faults: get(&stat, "total_pgfault"),
                major_faults: get(&stat, "total_pgmajfault"),
                oom_kills: get(&table(path, "memory.oom_control"), "oom_kill"),
                swap,
            })
        });
        let processes = self.0.get("pids").and_then(|path| number(path, "pids.current"));
        Usage { cpu, memory, processes }
    }

    fn read_v2(&self) -> Usage {
        let Some(path) = self.0.get("") else { return Usage::default() };
        let time = table(path, "cpu.stat");
        let nanoseconds = |key| get(&time, key).saturating_mul(1000);
        let cpu = (!time.is_empty()).then(|| Cpu {
            total: nanoseconds("usage_usec"),
            user: nanoseconds("user_usec"),
            system: nanoseconds("system_usec"),
            periods: get(&time, "nr_periods"),
            throttled_periods: get(&time, "nr_throttled"),
            throttled: nanoseconds("throttled_usec"),
        });
        let memory = number(path, "memory.current").map(|usage| {
            let stat = table(path, "memory.stat");
            let swap = number(path, "memory.swap.current").map(|usage| Swap {
                usage,
                available: number(path, "memory.swap.max").map_or(0, |limit| limit.saturating_sub(usage)),
            });
            let events = table(path, "memory.events");
            Memory {
                usage,
                max_usage: number(path, "memory.peak").unwrap_or(0),
                limit: number(path, "memory.max"),
                failcnt: get(&events, "max"),
                rss: get(&stat, "anon"),
                cache: get(&stat, "file"),
                mapped_file: get(&stat, "file_mapped"),
                active_file: get(&stat, "active_file"),
                inactive_file: get(&stat, "inactive_file"),
                faults: get(&stat, "pgfault"),
                major_faults: get(&stat, "pgmajfault"),
                oom_kills: get(&events, "oom_kill"),
                swap,
            }
        });
        Usage { cpu, memory, processes: number(path, "pids.current") }
    }
}

/// Where a group of a hierarchy is seen: the mount may show a part of it only.
fn below(host: &HostCgroups, controller: &str, path: &str) -> Option<PathBuf> {
    let hierarchy = host.hierarchies.get(controller)?;
    let root = hierarchy.root.trim_end_matches('/');
    let path = path.strip_prefix(root).unwrap_or(path);
    Some(hierarchy.mountpoint.join(path.trim_start_matches('/')))
}

/// A file with one number; none where it says `max`.
fn number(group: &Path, file: &str) -> Option<u64> {
    std::fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()
}

/// A file with a name and a number a line.
fn table(group: &Path, file: &str) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(group.join(file)).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?))).collect()
}

fn get(table: &BTreeMap<String, u64>, key: &str) -> u64 {
    table.get(key).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("directory");
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).expect("file");
        }
        directory
    }

    #[test]
    fn version_1_is_read() {
        let group = written(&[
            ("cpuacct.usage", "5000\n"),
            ("cpu.stat", "nr_periods 3\nnr_throttled 2\nthrottled_time 99\n"),
            ("memory.usage_in_bytes", "1000\n"),
            ("memory.limit_in_bytes", "4000\n"),
            ("memory.memsw.usage_in_bytes", "1200\n"),
            ("memory.memsw.limit_in_bytes", "9223372036854771712\n"),
            (
                "memory.stat",
                "cache 1\ntotal_cache 700\ntotal_rss 250\ntotal_inactive_file 300\ntotal_pgfault 8\n",
            ),
            ("pids.current", "4\n"),
        ]);
        let all = ["cpu", "cpuacct", "memory", "pids"];
        let usage = Group(all.iter().map(|c| ((*c).into(), group.path().into())).collect()).read(false);
        let (cpu, memory) = (usage.cpu.expect("cpu"), usage.memory.expect("memory"));
        assert_eq!((cpu.total, cpu.throttled_periods, cpu.throttled), (5000, 2, 99));
        assert_eq!(
            (memory.working_set(), memory.available(), memory.rss, memory.cache),
            (700, 3300, 250, 700)
        );
        assert_eq!(memory.swap, Some(Swap { usage: 200, available: 0 }));
        assert_eq!(usage.processes, Some(4));
    }

    #[test]
    fn version_2_is_read_and_no_limit_is_none() {
        let group = written(&[
            ("cpu.stat", "usage_usec 7\nuser_usec 4\nsystem_usec 3\n"),
            ("memory.current", "1000\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 250\nfile 700\ninactive_file 2000\npgmajfault 1\n"),
            ("memory.swap.current", "10\n"),
            ("memory.swap.max", "30\n"),
        ]);
        let usage = Group(BTreeMap::from([(String::new(), group.path().into())])).read(true);
        let memory = usage.memory.expect("memory");
        assert_eq!(usage.cpu.expect("cpu").total, 7000);
        assert_eq!((memory.working_set(), memory.available(), memory.limit), (0, 0, None));
        assert_eq!((memory.swap, usage.processes), (Some(Swap { usage: 10, available: 20 }), None));
    }

    #[test]
    fn a_mount_may_show_a_part_of_a_hierarchy() {
        let mountinfo = "30 25 0:26 /part /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let host = HostCgroups::parse(false, mountinfo, "5:memory:/part/own\n");
        let group = Group::parse(&host, "5:memory:/part/pod/c\n1:name=x:/y\n");
        assert_eq!(group, Group(BTreeMap::from([("memory".into(), "/sys/fs/cgroup/memory/pod/c".into())])));
        assert_eq!(group.parent(), Group::at(&host, "/pod"));
    }
}
