//! Children: workers under way and processes of `exec`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::Instant;

use coracle_runtime::sys::worker::Worker;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::container::Container;

/// What a worker was started for, with what its end needs.
#[derive(Debug)]
pub(crate) enum Job {
    Create(Box<Container>),
    Start {
        id: String,
    },
    Exec {
        tty: bool,
        timeout_ms: u64,
    },
    Signal,
    /// The pod's init, with the end of the pipe that keeps it alive.
    PodInit(OwnedFd),
    /// Removes what a creation that took too long has left, then tells the creation's failure.
    Undo,
    Delete {
        id: String,
    },
}

/// A worker under way and the client that waits for it.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) worker: Worker,
    pub(crate) job: Job,
    pub(crate) client: OwnedFd,
    pub(crate) deadline: Instant,
}

/// A process started by `exec`.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) client: OwnedFd,
    pub(crate) deadline: Option<Instant>,
    pub(crate) timed_out: bool,
}

/// Listings of the processes until no descendant is left: each may have forked once more before it was killed.
const ROUNDS: usize = 8;

impl Exec {
    /// Kills the process and what it has started: its session and its descendants. The process itself is stopped first and
    /// goes last, so that its children still name it as their parent while they are looked for.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::STOP);
        for _ in 0..ROUNDS {
            let processes = processes();
            let family = family(&processes, self.pid);
            if family.is_empty() {
                break;
            }
            for pid in family {
                kill_if(pid, &processes[&pid]);
            }
        }
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// Whose child a process is, which session it belongs to, since when it runs.
#[derive(Debug, Clone, PartialEq)]
struct Process {
    parent: i32,
    session: i32,
    started: u64,
}

/// Kills a process if it still is the one that was listed.
fn kill_if(pid: i32, listed: &Process) {
    let Some(Ok(pidfd)) = Pid::from_raw(pid).map(|p| pidfd_open(p, PidfdFlags::empty())) else { return };
    if process(pid).is_some_and(|now| now.started == listed.started) {
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
}

/// Everything below `root` or in its session, `root` itself not included.
fn family(processes: &BTreeMap<i32, Process>, root: i32) -> BTreeSet<i32> {
    let mut found: BTreeSet<i32> = processes
        .iter()
        .filter(|(_, p)| p.session == root || p.parent == root)
        .map(|(pid, _)| *pid)
        .collect();
    loop {
        let more: Vec<i32> = processes
            .iter()
            .filter(|(pid, p)| found.contains(&p.parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            found.remove(&root);
            return found;
        }
        found.extend(more);
    }
}

/// The processes of the machine, zombies left out.
fn processes() -> BTreeMap<i32, Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, process(pid)?))).collect()
}

fn process(pid: i32) -> Option<Process> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc_pid_stat(5); the name in parentheses may hold anything.
fn parse_stat(text: &str) -> Option<Process> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Process { parent, session, started: fields.nth(15)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_the_session_and_all_descendants() {
        let process = |parent, session| Process { parent, session, started: 1 };
        let processes = BTreeMap::from([
            (1, process(0, 1)),
            (10, process(1, 10)),  // the root
            (11, process(10, 10)), // its child
            (12, process(11, 12)), // a grandchild that left the session
            (13, process(1, 10)),  // an orphan of the session
            (20, process(1, 20)),
        ]);
        assert_eq!(family(&processes, 10), BTreeSet::from([11, 12, 13]));
        assert_eq!(family(&processes, 20), BTreeSet::new());
    }

    #[test]
    fn stat_is_read_from_behind_the_name() {
        let text = "7 (a) S (b)) S 3 7 5 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 9 1";
        assert_eq!(parse_stat(text), Some(Process { parent: 3, session: 5, started: 4242 }));
        assert_eq!(parse_stat("7 (a) Z 3 7 5 0"), None);
        let own = process(i32::try_from(std::process::id()).expect("pid")).expect("this process");
        assert!(own.started > 0 && own.parent > 0);
    }
}
