//! The processes of a group: listing, freezing, killing, and removing the group when they are gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::directory::{Directory, is_absent};
use super::systemd::Unit;
use super::{Cgroup, Error, FreezerState};

const PATIENCE: Duration = Duration::from_secs(10);

/// A signal does not wait longer for the freezer: it is sent all the same.
const KILL_PATIENCE: Duration = Duration::from_millis(500);

/// So many looks at a group of version 1 that is still freezing before it is thawed for a moment.
const LOOKS: u32 = 40;

impl Cgroup {
    /// Its processes, with `all` also those of groups below.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pids(&self, all: bool) -> Result<Vec<i32>, Error> {
        let Some(directory) = self.main() else { return Ok(Vec::new()) };
        let mut pids = Vec::new();
        collect(directory.path(), all, &mut pids)?;
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Stops every process.
    ///
    /// # Errors
    /// The kernel's; the group is thawed again.
    pub fn freeze(&self) -> Result<(), Error> {
        self.set_frozen(true, PATIENCE).inspect_err(|_| drop(self.set_frozen(false, PATIENCE)))
    }

    /// Lets every process run.
    ///
    /// # Errors
    /// The kernel's.
    pub fn thaw(&self) -> Result<(), Error> {
        self.set_frozen(false, PATIENCE)
    }

    /// Whether the group is frozen.
    ///
    /// # Errors
    /// The kernel's.
    pub fn freezer_state(&self) -> Result<FreezerState, Error> {
        let frozen = match (self.directories.get("freezer"), self.directories.get("")) {
            (Some(v1), _) => v1.read_if_there("freezer.state")?.is_some_and(|text| text.trim() != "THAWED"),
            (None, Some(v2)) => v2.read_if_there("cgroup.freeze")?.is_some_and(|text| text.trim() == "1"),
            (None, None) => false,
        };
        Ok(if frozen { FreezerState::Frozen } else { FreezerState::Thawed })
    }

    /// Signals every process of the group and of those below.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        if signal == libc::SIGKILL
            && let Some(v2) =
                self.directories.get("").filter(|d| self.paths.len() == 1 && d.has("cgroup.kill"))
        {
            return v2.write("cgroup.kill", "1");
        }
        // It asks whether there is anybody, and an empty group is no error.
        if signal == 0 {
            return Ok(());
        }
        let Some(signal) = Signal::from_named_raw(signal) else {
            return Err(Error::Invalid(format!("signal {signal} is unknown")));
        };
        let was_frozen = matches!(self.freezer_state(), Ok(FreezerState::Frozen));
        // Nothing forks while it is frozen, so that one look finds all of them.
        let frozen = was_frozen || self.set_frozen(true, KILL_PATIENCE).is_ok();
        let signalled = self.signal_all(signal, if frozen { 1 } else { 16 });
        // What is frozen on version 1 dies only when it thaws.
        if !was_frozen || signal == Signal::KILL {
            let _ = self.thaw();
        }
        signalled
    }

    /// Without a freezer a process that forks between the look and the signal is met by the next round.
    fn signal_all(&self, signal: Signal, rounds: u32) -> Result<(), Error> {
        for round in 0..rounds {
            let pids = self.pids(true)?;
            for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
                let _ = kill_process(pid, signal);
            }
            if signal != Signal::KILL || pids.is_empty() || round + 1 == rounds {
                break;
            }
            pause();
        }
        Ok(())
    }

    /// Removes the group and those below, deepest first.
    ///
    /// # Errors
    /// A group that stays busy.
    pub fn remove(&self) -> Result<(), Error> {
        let scope = self.unit.as_ref().filter(|_| !self.needs_add());
        remove_all(&self.paths, scope.map(|unit| unit.name.as_str()), || {})
    }

    /// The hierarchy that lists the processes.
    fn main(&self) -> Option<&Directory> {
        let known = ["devices", "pids", "memory", ""];
        known.iter().find_map(|name| self.directories.get(*name)).or_else(|| self.directories.values().next())
    }

    fn set_frozen(&self, frozen: bool, patience: Duration) -> Result<(), Error> {
        let (directory, file, value, done) = match (self.directories.get("freezer"), self.directories.get(""))
        {
            (Some(v1), _) => {
                let word = if frozen { "FROZEN" } else { "THAWED" };
                (v1, "freezer.state", word, ("freezer.state", word.to_owned()))
            }
            (None, Some(v2)) => {
                let digit = if frozen { "1" } else { "0" };
                (v2, "cgroup.freeze", digit, ("cgroup.events", format!("frozen {digit}")))
            }
            (None, None) => {
                return Err(Error::Unsupported("cannot pause a container without a freezer".to_owned()));
            }
        };
        let start = Instant::now();
        for look in 1_u32.. {
            // Version 1 may never finish while processes appear in the group; after a thaw it has another chance.
            if frozen && file == "freezer.state" && look.is_multiple_of(LOOKS) {
                directory.write(file, "THAWED")?;
                pause();
            }
            directory.write(file, value)?;
            if directory.read(done.0)?.lines().any(|line| line.trim() == done.1) {
                return Ok(());
            }
            if start.elapsed() > patience {
                break;
            }
            pause();
        }
        let action = if frozen { "freeze" } else { "thaw" };
        Err(Error::Timeout { action, path: directory.path().to_owned(), seconds: patience.as_secs() })
    }
}

/// Removes groups and those below, deepest first. The kernel refuses one that has processes: `busy` may end them, and the
/// last of them leaves a moment later.
///
/// # Errors
/// A group that stays busy.
pub fn remove_all(
    paths: &BTreeMap<String, PathBuf>,
    scope: Option<&str>,
    mut busy: impl FnMut(),
) -> Result<(), Error> {
    if let Some(name) = scope {
        // systemd would ask the processes to end and wait for them.
        busy();
        Unit::of(name, paths).stop()?;
    }
    let start = Instant::now();
    for path in paths.values() {
        while let Err(error) = remove_tree(path) {
            if error.errno() != Some(Errno::BUSY) || start.elapsed() > PATIENCE {
                return Err(error);
            }
            busy();
            pause();
        }
    }
    Ok(())
}

/// A millisecond between two looks at a state that the kernel does not announce (version 1).
fn pause() {
    let _ = rustix::event::poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }));
}

fn collect(path: &Path, all: bool, pids: &mut Vec<i32>) -> Result<(), Error> {
    let read = Directory::open(path)
        .and_then(|d| Ok((d.read("cgroup.procs")?, if all { d.children()? } else { Vec::new() })));
    let (text, children) = match read {
        Ok(read) => read,
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    pids.extend(text.lines().filter_map(|line| line.trim().parse::<i32>().ok()).filter(|pid| *pid > 0));
    children.iter().try_for_each(|child| collect(child, all, pids))
}

fn remove_tree(path: &PathBuf) -> Result<(), Error> {
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::BUSY | Errno::NOTEMPTY) => {}
        Err(errno) => return Err(Error::path("rmdir", path, errno)),
    }
    let children = Directory::open(path).and_then(|directory| directory.children());
    children.unwrap_or_default().iter().try_for_each(remove_tree)?;
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::path("rmdir", path, errno)),
    }
}
