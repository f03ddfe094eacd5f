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
    /// Threads, as the kernel counts them against the limit.
    pub(super) threads: Option<u64>,
    /// 0 is none.
    pub(super) threads_max: u64,
    pub(super) processes: Option<u64>,
    pub(super) devices: Vec<Device>,
}

/// What was read from and written to a block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Device {
    /// Major and minor number.
    pub(super) number: (u32, u32),
    pub(super) read_bytes: u64,
    pub(super) written_bytes: u64,
    pub(super) reads: u64,
    pub(super) writes: u64,
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
    pub(super) kernel: u64,
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
    /// As the controller has it: with memory on version 1, without on version 2; 0 is none.
    pub(super) limit: u64,
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

    /// The processes of the group and of those below it.
    pub(super) fn processes(&self) -> Vec<i32> {
        let path = ["pids", "memory", ""].iter().find_map(|name| self.0.get(*name));
        path.map(|path| processes(path)).unwrap_or_default()
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
                limit: limit.unwrap_or(0),
            });
            Some(Memory {
                usage,
                max_usage: number(path, "memory.max_usage_in_bytes").unwrap_or(0),
                limit: number(path, "memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT),
                failcnt: number(path, "memory.failcnt").unwrap_or(0),
                rss: get(&stat, "total_rss"),
                kernel: number(path, "memory.kmem.usage_in_bytes").unwrap_or(0),
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
        let pids = self.0.get("pids");
        Usage {
            cpu,
            memory,
            threads: pids.and_then(|path| number(path, "pids.current")),
            threads_max: pids.and_then(|path| number(path, "pids.max")).unwrap_or(0),
            processes: pids.map(|path| processes(path).len() as u64),
            devices: self.0.get("blkio").map(|path| devices_v1(path)).unwrap_or_default(),
        }
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
            let limit = number(path, "memory.swap.max").unwrap_or(0);
            let swap = number(path, "memory.swap.current").map(|usage| Swap {
                usage,
                available: limit.saturating_sub(usage),
                limit,
            });
            let events = table(path, "memory.events");
            Memory {
                usage,
                max_usage: number(path, "memory.peak").unwrap_or(0),
                limit: number(path, "memory.max"),
                failcnt: get(&events, "max"),
                rss: get(&stat, "anon"),
                kernel: get(&stat, "kernel"),
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
        Usage {
            cpu,
            memory,
            threads: number(path, "pids.current"),
            threads_max: number(path, "pids.max").unwrap_or(0),
            processes: Some(processes(path).len() as u64),
            devices: devices_v2(path),
        }
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

/// The processes of a group and of those below it.
fn processes(group: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        found.extend(processes(&entry.path()));
    }
    found
}

/// `8:0 Read 4096`, one line an operation.
fn devices_v1(group: &Path) -> Vec<Device> {
    let mut devices: BTreeMap<(u32, u32), Device> = BTreeMap::new();
    for (file, bytes) in [("blkio.throttle.io_service_bytes", true), ("blkio.throttle.io_serviced", false)] {
        let text = std::fs::read_to_string(group.join(file)).unwrap_or_default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let (number, operation) = (words.next().and_then(device_number), words.next());
            let count = words.next().and_then(|word| word.parse().ok());
            let (Some(number), Some(count)) = (number, count) else { continue };
            let device = devices.entry(number).or_insert_with(|| Device { number, ..Device::default() });
            match (operation, bytes) {
                (Some("Read"), true) => device.read_bytes = count,
                (Some("Write"), true) => device.written_bytes = count,
                (Some("Read"), false) => device.reads = count,
                (Some("Write"), false) => device.writes = count,
                _ => {}
            }
        }
    }
    devices.into_values().collect()
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 ...`
fn devices_v2(group: &Path) -> Vec<Device> {
    let text = std::fs::read_to_string(group.join("io.stat")).unwrap_or_default();
    let device = |line: &str| {
        let (number, rest) = line.split_once(' ')?;
        let value = |name: &str| {
            let mut pairs = rest.split(' ').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
        };
        Some(Device {
            number: device_number(number)?,
            read_bytes: value("rbytes"),
            written_bytes: value("wbytes"),
            reads: value("rios"),
            writes: value("wios"),
        })
    };
    text.lines().filter_map(device).collect()
}

fn device_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
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
            ("pids.max", "max\n"),
            ("cgroup.procs", "17\n18\n"),
            ("blkio.throttle.io_service_bytes", "8:1 Read 10\n8:1 Write 20\n8:1 Total 30\nTotal 30\n"),
            ("blkio.throttle.io_serviced", "8:1 Read 3\n"),
        ]);
        let all = ["cpu", "cpuacct", "memory", "pids", "blkio"];
        let usage = Group(all.iter().map(|c| ((*c).into(), group.path().into())).collect()).read(false);
        let (cpu, memory) = (usage.cpu.expect("cpu"), usage.memory.expect("memory"));
        assert_eq!((cpu.total, cpu.throttled_periods, cpu.throttled), (5000, 2, 99));
        assert_eq!(
            (memory.working_set(), memory.available(), memory.rss, memory.cache),
            (700, 3300, 250, 700)
        );
        assert_eq!(memory.swap, Some(Swap { usage: 200, available: 0, limit: 0 }));
        assert_eq!((usage.threads, usage.processes), (Some(4), Some(2)));
        let device = Device { number: (8, 1), read_bytes: 10, written_bytes: 20, reads: 3, writes: 0 };
        assert_eq!(usage.devices, [device]);
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
            ("io.stat", "8:0 rbytes=7 wbytes=8 rios=1 wios=2 dbytes=0 dios=0\n"),
        ]);
        let usage = Group(BTreeMap::from([(String::new(), group.path().into())])).read(true);
        let memory = usage.memory.expect("memory");
        assert_eq!(usage.cpu.expect("cpu").total, 7000);
        assert_eq!((memory.working_set(), memory.available(), memory.limit), (0, 0, None));
        assert_eq!(memory.swap, Some(Swap { usage: 10, available: 20, limit: 30 }));
        let device = Device { number: (8, 0), read_bytes: 7, written_bytes: 8, reads: 1, writes: 2 };
        assert_eq!(usage.devices, [device]);
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
