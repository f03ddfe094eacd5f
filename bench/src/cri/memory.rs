//! Proportional set sizes: a page that is shared by ten processes counts as a tenth in each.

use std::path::Path;

/// Of one process, in bytes.
pub fn of_process(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    parse(&text).ok_or_else(|| format!("{path}: no Pss"))
}

/// Of all monitors or shims, which carry `mark` in their command lines, and of what they run that is no container's:
/// the programs called `pause` and their own children of the same program.
pub fn of_helpers(mark: &str, daemon: u32) -> Result<u64, String> {
    let processes = std::fs::read_dir("/proc").map_err(|e| format!("/proc: {e}"))?;
    let pids: Vec<u32> =
        processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    let marked = |pid: u32| pid != daemon && read(pid, "cmdline").contains(mark);
    let helpers = pids.iter().copied().filter(|pid| {
        marked(*pid) || (read(*pid, "comm").trim() == "pause" && parent(*pid).is_some_and(marked))
    });
    // A process that ended meanwhile costs nothing.
    Ok(helpers.filter_map(|pid| of_process(pid).ok()).sum())
}

fn read(pid: u32, file: &str) -> String {
    let bytes = std::fs::read(Path::new("/proc").join(pid.to_string()).join(file)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn parent(pid: u32) -> Option<u32> {
    read(pid, "stat").rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn parse(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_proportional_size_is_found() {
        let text = "0-1 ---p 0 0:0 0 [rollup]\nRss:  100 kB\nPss:      12 kB\nPss_Dirty: 3 kB\n";
        assert_eq!(super::parse(text), Some(12 * 1024));
    }
}
