//! Writes the id maps of a new user namespace: directly, or through newuidmap and newgidmap without privilege.

use std::process::Command;

use oci_spec::runtime::LinuxIdMapping;

use crate::init::StepError;

/// Writes both maps of `pid`; `deny_groups` first forbids setgroups(2), which the kernel demands of an unprivileged
/// writer of `gid_map`.
///
/// # Errors
/// The kernel's, or the helper's words.
pub fn write(
    pid: i32,
    uids: &[LinuxIdMapping],
    gids: &[LinuxIdMapping],
    deny_groups: bool,
) -> Result<(), StepError> {
    if deny_groups {
        let path = format!("/proc/{pid}/setgroups");
        std::fs::write(&path, "deny").map_err(|e| StepError::io("write", &path, &e))?;
    }
    write_map(pid, "uid_map", uids, "newuidmap")?;
    write_map(pid, "gid_map", gids, "newgidmap")
}

fn write_map(pid: i32, file: &str, map: &[LinuxIdMapping], helper: &str) -> Result<(), StepError> {
    let path = format!("/proc/{pid}/{file}");
    match std::fs::write(&path, render(map)) {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => run_helper(helper, pid, map),
        other => other.map_err(|e| StepError::io("write", &path, &e)),
    }
}

fn render(map: &[LinuxIdMapping]) -> String {
    map.iter().map(|m| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size())).collect()
}

fn run_helper(helper: &str, pid: i32, map: &[LinuxIdMapping]) -> Result<(), StepError> {
    let mut command = Command::new(helper);
    command.arg(pid.to_string());
    for m in map {
        command.args([m.container_id().to_string(), m.host_id().to_string(), m.size().to_string()]);
    }
    let output = command.output().map_err(|e| {
        StepError::io("run", helper, &e)
            .hint("more than the own id can only be mapped with it (package uidmap)")
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(StepError::why("run", helper, String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_lines() {
        let map: Vec<LinuxIdMapping> = serde_json::from_str(
            r#"[{"containerID":0,"hostID":1000,"size":1},{"containerID":1,"hostID":5,"size":9}]"#,
        )
        .unwrap();
        assert_eq!(render(&map), "0 1000 1\n1 5 9\n");
    }
}
