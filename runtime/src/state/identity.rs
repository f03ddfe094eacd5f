//! Who a process is beyond its number: a pid is reused, (boot, pidfs inode) or (boot, pid, start time) is not.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Error;
use crate::small_file;

/// `PID_FS_MAGIC` of linux/magic.h: pidfds are files of a real file system, with unique inodes, since 6.9.
const PID_FS_MAGIC: u64 = 0x5049_4446;

/// The identity of a container's first process.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// The pid in the runtime's pid namespace.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks since boot.
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The inode of the pidfd where pidfs numbers them uniquely (6.9).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pidfs_inode: Option<u64>,
}

impl Identity {
    /// Reads the identity of the process behind `pidfd`, whose number is `pid`.
    ///
    /// The caller holds the pidfd of a child that is not yet waited for, so that `pid` cannot be another process.
    pub fn of(pid: i32, pidfd: impl AsFd) -> Result<Self, Error> {
        let (start_time, _) = stat(pid)?;
        Ok(Self { pid, start_time, boot_id: boot_id()?, pidfs_inode: pidfs_inode(pidfd) })
    }

    /// Opens a pidfd of the process, or `None` when it is gone, a zombie, or the pid belongs to someone else by now.
    ///
    /// The descriptor is opened first and compared after: what it refers to cannot change any more.
    pub fn open(&self) -> Result<Option<OwnedFd>, Error> {
        if self.boot_id != boot_id()? {
            return Ok(None);
        }
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            // EINVAL: the number is now a thread's, not a process's.
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Ok(None),
            Err(errno) => return Err(Error::errno("pidfd_open", self.proc_path())(errno)),
        };
        if !self.matches(&pidfd) || exited(&pidfd) {
            return Ok(None);
        }
        Ok(Some(pidfd))
    }

    /// Says whether the process still runs.
    pub fn is_alive(&self) -> Result<bool, Error> {
        self.open().map(|fd| fd.is_some())
    }

    fn matches(&self, pidfd: &OwnedFd) -> bool {
        if let (Some(want), Some(got)) = (self.pidfs_inode, pidfs_inode(pidfd)) {
            return want == got;
        }
        stat(self.pid).is_ok_and(|(start_time, _)| start_time == self.start_time)
    }

    fn proc_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.pid))
    }
}

/// A pidfd is readable once the whole process has exited, zombies included (pidfd_open(2)).
fn exited(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1))
}

fn pidfs_inode(pidfd: impl AsFd) -> Option<u64> {
    let pidfd = pidfd.as_fd();
    let kind = rustix::fs::fstatfs(pidfd).ok()?.f_type;
    if u64::try_from(kind).ok()? != PID_FS_MAGIC {
        return None;
    }
    rustix::fs::fstat(pidfd).ok().map(|stat| stat.st_ino)
}

/// The start time and the state letter of `pid`.
fn stat(pid: i32) -> Result<(u64, char), Error> {
    let path = format!("/proc/{pid}/stat");
    let text = small_file::read_text(&path).map_err(Error::io("read", &path))?;
    parse_stat(&text).ok_or_else(|| {
        Error::io("parse", &path)(std::io::Error::new(std::io::ErrorKind::InvalidData, "not a stat line"))
    })
}

/// The command name is in parentheses and may hold spaces and parentheses itself: fields are counted from the last one.
fn parse_stat(text: &str) -> Option<(u64, char)> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((start_time, state))
}

fn boot_id() -> Result<String, Error> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    small_file::read_text(PATH).map(|id| id.trim().to_owned()).map_err(Error::io("read", PATH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_line_with_hostile_name() {
        let line = "42 (a) R 1 (x) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 4096 1";
        assert_eq!(parse_stat(line), Some((777, 'S')));
        assert_eq!(parse_stat("garbage"), None);
    }

    #[test]
    fn follows_a_child_from_life_to_death() {
        let mut child = std::process::Command::new("/bin/cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        let identity = Identity::of(pid, &pidfd).unwrap();
        assert!(identity.is_alive().unwrap());
        let other = Identity { start_time: identity.start_time + 1, pidfs_inode: None, ..identity.clone() };
        assert!(!other.is_alive().unwrap());
        let rebooted = Identity { boot_id: "other".into(), ..identity.clone() };
        assert!(!rebooted.is_alive().unwrap());
        drop(child.stdin.take());
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        assert!(!identity.is_alive().unwrap(), "a zombie is not alive");
        child.wait().unwrap();
        assert!(!identity.is_alive().unwrap());
    }
}
