//! What a container may leave behind: nothing.
//!
//! Everything is looked up by the container's id, so that tests may run beside each other: processes by environment,
//! command line and control group, mounts by the path of the test's directory, control groups below our own parent.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The control group all test containers live below, in every hierarchy. `cargo xtask test` removes it at its end: a
/// test can't, because another one's runtime may just be making its own group below.
pub const CGROUP_PARENT: &str = "coracle-test";

/// Whether systemd makes the groups: `CORACLE_TEST_CGROUP=systemd`.
pub fn under_systemd() -> bool {
    std::env::var("CORACLE_TEST_CGROUP").is_ok_and(|driver| driver == "systemd")
}

/// The `cgroupsPath` of container `id`, in the driver's form.
pub fn cgroups_path(id: &str) -> String {
    if under_systemd() { format!("{CGROUP_PARENT}.slice:it:{id}") } else { format!("/{CGROUP_PARENT}/{id}") }
}

/// Where the group of `id` lies below a hierarchy's mount.
pub fn group_of(id: &str) -> PathBuf {
    if under_systemd() {
        // The slice `a-b` lies in the slice `a`.
        PathBuf::from(format!("coracle.slice/{CGROUP_PARENT}.slice/it-{id}.scope"))
    } else {
        Path::new(CGROUP_PARENT).join(id)
    }
}

/// All that is left of container `id`, whose files are in `directory`, as readable lines.
pub fn find(id: &str, directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    found.extend(processes(id).into_iter().map(|(pid, command)| format!("process {pid}: {command}")));
    found.extend(mounts(directory).into_iter().map(|line| format!("mount: {line}")));
    found.extend(cgroups(id).into_iter().map(|path| format!("cgroup: {}", path.display())));
    found.extend(
        state_files(&directory.join("state")).into_iter().map(|path| format!("file: {}", path.display())),
    );
    found
}

/// Living processes that belong to `id`.
pub fn processes(id: &str) -> Vec<(i32, String)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    pids.filter(|pid| *pid != me && belongs(*pid, id) && is_alive(*pid))
        .map(|pid| (pid, command_line(pid)))
        .collect()
}

fn belongs(pid: i32, id: &str) -> bool {
    ["cgroup", "environ", "cmdline"].iter().any(|file| {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        bytes.windows(id.len()).any(|window| window == id.as_bytes())
    })
}

/// Whether the process exists and is no zombie: who reaps orphans is the machine's business.
pub fn is_alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn command_line(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned()
}

fn mounts(directory: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let directory = directory.to_string_lossy();
    table.lines().filter(|line| line.contains(&*directory)).map(str::to_owned).collect()
}

/// Groups of `id` in every hierarchy.
pub fn cgroups(id: &str) -> Vec<PathBuf> {
    hierarchies().into_iter().map(|root| root.join(group_of(id))).filter(|path| path.exists()).collect()
}

/// The mounted hierarchies of control groups.
pub fn hierarchies() -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = table.lines().filter(|line| line.contains(" - cgroup"));
    mounted.filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

fn state_files(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    // Names that begin with a dot are the store's own (locks, caches), not a container's.
    paths.filter(|path| path.is_dir() && !name_begins_with_dot(path)).collect()
}

fn name_begins_with_dot(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}
