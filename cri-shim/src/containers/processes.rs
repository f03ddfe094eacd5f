//! The processes of a container, and the runtime's commands that need no monitor.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::Error;
use crate::config::CgroupDriver;
use crate::daemon::Daemon;

/// How long the runtime may take for one of these.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a command line of the runtime that made the container `id`; its stdout.
pub(super) async fn runtime(daemon: &Arc<Daemon>, id: &str, args: &[&str]) -> Result<String, Error> {
    let binary = binary(daemon, id);
    let mut command = tokio::process::Command::new(&binary);
    command.arg("--root").arg(daemon.runtime_root());
    if daemon.config.cgroup_driver == CgroupDriver::Systemd {
        command.arg("--systemd-cgroup");
    }
    command.args(args).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let fail = |message: String| Error::Runtime {
        runtime: binary.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        command: args.join(" "),
        message,
    };
    let output = match tokio::time::timeout(DEADLINE, command.output()).await {
        Ok(done) => done.map_err(|e| fail(e.to_string()))?,
        Err(_) => return Err(fail(format!("no answer within {} s", DEADLINE.as_secs()))),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(fail(String::from_utf8_lossy(&output.stderr).trim().chars().take(2000).collect()))
}

/// That of the pod's handler (RuntimeClass), `coracle` where it names none.
fn binary(daemon: &Daemon, id: &str) -> PathBuf {
    let sandbox = daemon.records.containers.get(id).map(|c| c.read().sandbox.clone());
    let sandbox = sandbox.and_then(|id| daemon.records.sandboxes.get(&id));
    let handler = sandbox.and_then(|s| daemon.config.handler(&s.read().runtime_handler));
    handler.and_then(|h| h.path).unwrap_or_else(|| daemon.programs.runtime.clone())
}

/// The living processes of the container's control group. A container that the runtime does not know has none; that it
/// cannot be asked says nothing of its processes, and is an error.
pub(super) async fn living(daemon: &Arc<Daemon>, id: &str) -> Result<Vec<i32>, Error> {
    if !daemon.runtime_root().join(id).is_dir() {
        return Ok(Vec::new());
    }
    let text = match runtime(daemon, id, &["ps", "--format", "json", id]).await {
        Ok(text) => text,
        // Removed between the two looks, or its group went with the last process (systemd).
        Err(_) if !daemon.runtime_root().join(id).is_dir() => return Ok(Vec::new()),
        Err(Error::Runtime { message, .. }) if message.contains("no such file or directory") => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let pids: Option<Vec<i32>> = serde_json::from_str(&text).map_err(|e| Error::Runtime {
        runtime: "runtime".into(),
        command: format!("ps {id}"),
        message: format!("answered no list of processes: {e}"),
    })?;
    Ok(pids.unwrap_or_default().into_iter().filter(|pid| is_alive(*pid)).collect())
}

/// Kills everything in the container's group until nothing of it is alive.
pub(super) async fn kill_all(daemon: &Arc<Daemon>, id: &str, patience: Duration) -> Result<(), Error> {
    let end = Instant::now() + patience;
    let mut pause = Duration::from_millis(5);
    loop {
        let left = living(daemon, id).await;
        if left.as_ref().is_ok_and(Vec::is_empty) {
            return Ok(());
        }
        if Instant::now() > end {
            let processes = describe(&left?);
            return Err(Error::Alive { id: id.to_owned(), processes });
        }
        // It may have gone in between: the next look tells.
        let _ = runtime(daemon, id, &["kill", "--all", id, "KILL"]).await;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// Ends and removes a container without its monitor.
pub(super) async fn delete(daemon: &Arc<Daemon>, id: &str) -> Result<(), Error> {
    runtime(daemon, id, &["delete", "--force", id]).await.map(|_| ())
}

/// Not dead and not a zombie: who reaps an orphan is no concern of the container.
pub(super) fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| !matches!(fields.first().map(String::as_str), Some("Z" | "X") | None))
}

/// `pid 7 (cp), state D, in nfs_wait, 12 s old`, for each.
pub(super) fn describe(pids: &[i32]) -> String {
    let one = |pid: &i32| {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let wait = match read("wchan").trim() {
            "" | "0" => "no wait channel".to_owned(),
            channel => format!("in {channel}"),
        };
        let fields = stat(*pid).unwrap_or_default();
        let state = fields.first().map_or("?", String::as_str);
        format!("pid {pid} ({}), state {state}, {wait}, {} s old", read("comm").trim(), age(&fields))
    };
    pids.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Fields of `/proc/<pid>/stat` from the state (field 3) on; the command before it may hold spaces and parentheses.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// Seconds since the start (field 22, in ticks since boot).
fn age(fields: &[String]) -> u64 {
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let started = fields.get(19).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0) / ticks;
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let now = uptime.split('.').next().and_then(|s| s.parse::<u64>().ok()).unwrap_or(0);
    now.saturating_sub(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_described() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(is_alive(me));
        let text = describe(&[me]);
        assert!(text.starts_with(&format!("pid {me} (")) && text.ends_with(" s old"), "{text}");
        assert!(!is_alive(i32::MAX));
    }
}
