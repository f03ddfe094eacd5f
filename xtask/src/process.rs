//! Runs one test program with a deadline and gathers what it leaves behind.
//!
//! Containers' processes lose their parents by design, and the machine's first process may not reap them (a container
//! without an init). So this process is the child subreaper of all tests: it waits for whatever comes to it, and names
//! and ends what is still alive when the program has ended.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus};

/// How a program ended.
pub struct Ended {
    pub status: Option<WaitStatus>,
    pub timed_out: bool,
    /// Processes that outlived it: pid and command line. They have been killed.
    pub left: BTreeMap<i32, String>,
}

impl Ended {
    pub fn success(&self) -> bool {
        self.status.is_some_and(|status| status.exit_status() == Some(0))
    }

    pub fn describe(&self) -> String {
        match self.status {
            _ if self.timed_out => "ran into its deadline and was killed".to_owned(),
            Some(status) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (_, Some(signal)) => format!("killed by signal {signal}"),
                _ => "ended".to_owned(),
            },
            None => "lost".to_owned(),
        }
    }
}

/// Makes this process the one that orphans of tests come to.
pub fn become_subreaper() -> Result<(), String> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| format!("child subreaper: {error}"))
}

/// Runs `command` with its output in `log`, at most for `deadline`.
pub fn run(command: &mut Command, log: &Path, deadline: Duration) -> Result<Ended, String> {
    let describe = |error: &dyn std::fmt::Display| format!("{}: {error}", log.display());
    let output = File::create(log).map_err(|error| describe(&error))?;
    let errors = output.try_clone().map_err(|error| describe(&error))?;
    // A group of its own, so that the deadline ends the whole program with its helpers.
    let child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0)).ok_or("no process id")?;
    let mut ended = wait(pid, deadline)?;
    ended.left = end_left_behind(Duration::from_secs(3))?;
    Ok(ended)
}

/// Waits for `pid` and reaps everything else on the way.
fn wait(pid: Pid, deadline: Duration) -> Result<Ended, String> {
    let pidfd =
        rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|error| format!("pidfd: {error}"))?;
    let end = Instant::now() + deadline;
    let mut ended = Ended { status: None, timed_out: false, left: BTreeMap::new() };
    loop {
        let mut events = [PollFd::new(&pidfd, PollFlags::IN)];
        let _ = poll(&mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 200_000_000 }));
        if let Some(status) = reap(Some(pid))? {
            ended.status = Some(status);
            return Ok(ended);
        }
        if !ended.timed_out && Instant::now() > end {
            ended.timed_out = true;
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Reaps all that has ended; the status of `watched` if it is among them.
fn reap(watched: Option<Pid>) -> Result<Option<WaitStatus>, String> {
    let mut found = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == watched => found = Some(status),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(found),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("wait: {error}")),
        }
    }
}

/// Gives orphans `grace` to end by themselves, then kills them; what had to be killed.
fn end_left_behind(grace: Duration) -> Result<BTreeMap<i32, String>, String> {
    let end = Instant::now() + grace;
    let mut killed = BTreeMap::new();
    loop {
        reap(None)?;
        let alive = children();
        if alive.is_empty() {
            return Ok(killed);
        }
        if Instant::now() > end {
            for (pid, command) in alive {
                if let Some(pid) = Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, Signal::KILL);
                }
                killed.insert(pid, command);
            }
            if Instant::now() > end + Duration::from_secs(10) {
                return Ok(killed);
            }
        }
        let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 }));
    }
}

/// Our living children, by pid.
fn children() -> BTreeMap<i32, String> {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let Ok(processes) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| parent_of(*pid) == Some(me))
        .map(|pid| (pid, command_line(pid)))
        .collect()
}

/// The parent of a process that is not a zombie.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z" && state != "X").then_some(parent)
}

fn command_line(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned()
}
