//! Kills for lack of memory, as they happen.
//!
//! Version 1 signals an eventfd that was registered in `cgroup.event_control`; version 2 raises `POLLPRI` on
//! `memory.events`, whose counter tells how many there were (cgroups(7), Documentation/admin-guide/cgroup-v2.rst).

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Error;
use super::directory::Directory;

/// Reports kills for lack of memory.
#[derive(Debug)]
pub struct OomWatch(Source);

#[derive(Debug)]
enum Source {
    /// `control` is the event's object: the registration ends when it is closed.
    V1 {
        event: OwnedFd,
        _control: OwnedFd,
        path: PathBuf,
    },
    V2 {
        events: OwnedFd,
        seen: u64,
    },
}

impl OomWatch {
    /// Starts to watch the memory group among `directories`.
    pub(super) fn open(directories: &BTreeMap<String, Directory>) -> Result<Self, Error> {
        if let Some(memory) = directories.get("memory") {
            return Self::open_v1(memory);
        }
        let unified = directories.get("").filter(|_| directories.len() == 1);
        let unified =
            unified.ok_or_else(|| Error::Unsupported("the container has no memory group".to_owned()))?;
        let events = unified.file("memory.events", OFlags::RDONLY)?;
        let seen = oom_kills(&events).unwrap_or(0);
        Ok(Self(Source::V2 { events, seen }))
    }

    fn open_v1(memory: &Directory) -> Result<Self, Error> {
        let failed = |errno| Error::path("make an eventfd for", memory.path(), errno);
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
        let control = memory.file("memory.oom_control", OFlags::RDONLY)?;
        memory.write("cgroup.event_control", &format!("{} {}", event.as_raw_fd(), control.as_raw_fd()))?;
        Ok(Self(Source::V1 { event, _control: control, path: memory.path().to_owned() }))
    }

    /// What to poll for.
    #[must_use]
    pub fn poll_fd(&self) -> PollFd<'_> {
        match &self.0 {
            Source::V1 { event, .. } => PollFd::new(event, PollFlags::IN),
            Source::V2 { events, .. } => PollFd::new(events, PollFlags::PRI),
        }
    }

    /// How many kills there were since the last call.
    pub fn take(&mut self) -> u64 {
        match &mut self.0 {
            Source::V1 { event, path, .. } => {
                let mut count = [0_u8; 8];
                let read = rustix::io::read(&*event, &mut count);
                // The removal of the group signals the eventfd, too.
                if read.is_err() || !path.exists() { 0 } else { u64::from_ne_bytes(count) }
            }
            Source::V2 { events, seen } => {
                let now = oom_kills(events).unwrap_or(*seen);
                let new = now.saturating_sub(*seen);
                *seen = now;
                new
            }
        }
    }
}

/// Reads `oom_kill` from the start of `memory.events`, which also rearms the poll.
fn oom_kills(events: &OwnedFd) -> Result<u64, Errno> {
    let mut text = [0_u8; 1024];
    let length = rustix::io::pread(events, &mut text, 0)?;
    Ok(parse_oom_kills(&String::from_utf8_lossy(&text[..length])))
}

fn parse_oom_kills(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_counter_of_kills_is_found() {
        let text = "low 0\nhigh 3\nmax 5\noom 2\noom_kill 4\noom_group_kill 1\n";
        assert_eq!(super::parse_oom_kills(text), 4);
        assert_eq!(super::parse_oom_kills(""), 0);
    }
}
